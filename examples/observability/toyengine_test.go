package main

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestTheToyEngineFallsToItsFloorWhileItsServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:443"), Network: "tcp"}
		e := newToyEngine(shared.Dest)
		defer e.close()
		told := make(chan struct{}, 1)
		e.Notify(told)
		says := func(wantLeased int, wantDegraded bool) {
			t.Helper()
			if r := e.Reports(shared)[0]; r.Leased != wantLeased || (r.Degraded != "") != wantDegraded {
				t.Errorf("after %v: %+v", time.Since(e.began), r)
			}
		}
		takes := func(want int) {
			t.Helper()
			var grants []budget.Grant
			for g, ok := e.Take(shared); ok; g, ok = e.Take(shared) {
				grants = append(grants, g)
			}
			if len(grants) != want {
				t.Errorf("after %v it allows %d ports", time.Since(e.began), len(grants))
			}
			if r := e.Reports(shared)[0]; r.Held != want || r.Room != 0 {
				t.Errorf("after %v it says that %d are held, and room for %d more", time.Since(e.began), r.Held, r.Room)
			}
			for _, g := range grants {
				g.Release()
			}
			if r := e.Reports(shared)[0]; r.Held != 0 || r.Room != want {
				t.Errorf("after %v it says that %d are held, and room for %d more", time.Since(e.began), r.Held, r.Room)
			}
		}

		says(toyLease, false)
		takes(toyFloor + toyLease)
		time.Sleep(toyAway + toyTTL - toyRenewal) // the lease outlasts the server
		says(toyLease, false)
		<-told // of room, by the last Release
		time.Sleep(2 * toyRenewal)
		says(0, true)
		takes(toyFloor)
		<-told
		for range 100 {
			if _, ok := e.Take(netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.4:443"), Network: "tcp"}); !ok {
				t.Fatal("it refuses ports to a destination that nobody shares")
			}
		}
		time.Sleep(toyAway)
		says(toyLease, false)
		takes(toyFloor + toyLease)
	})
}
