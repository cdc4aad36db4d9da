package dialer_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestEachDialThatWaitsIsShownOnceWithAllThatItWaitsFor(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		d.Resolver = names{"two.test": addrs("20.0.0.1", "20.0.0.2")}
		at := []netpath.Key{
			{Dest: netip.MustParseAddrPort(first), Network: "tcp"},
			{Dest: netip.MustParseAddrPort(second), Network: "tcp"},
		}
		held := []*dialer.Conn{lab.dial(d, first), lab.dial(d, second)}
		if w := lab.ledger.Waits(); len(w) > 0 {
			t.Errorf("though nobody waits: %v", w)
		}
		got := make(chan error)
		for _, ctx := range []context.Context{t.Context(), lab.ledger.Telemetry().Setup(t.Context(), "", "a pool").With(t.Context())} {
			go func() {
				c, err := d.DialContext(ctx, "tcp", "two.test:443")
				if err == nil {
					c.Close()
				}
				got <- err
			}()
		}
		synctest.Wait()
		time.Sleep(3 * time.Second)
		waits := lab.ledger.Waits()
		if len(waits) != 2 || waits[0].Owned == waits[1].Owned {
			t.Fatalf("not one of each kind: %+v", waits)
		}
		for _, w := range waits {
			if w.Host != "two.test:443" || w.For != 3*time.Second || !slices.Equal(w.Keys, at) {
				t.Errorf("it is shown as %+v", w)
			}
		}
		for _, c := range held {
			c.Close()
		}
		for range 2 {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAnAccountSaysWhatItsPathForgetsAndHowThatIsKnown(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		lab.serve(server)
		c := lab.dial(lab.dialer(), server)
		defer c.Close()
		if a := lab.account(server); a.Forgets != 4*time.Minute || a.Learned {
			t.Errorf("at first: %v, learned: %v", a.Forgets, a.Learned)
		}
		key := netpath.Key{Dest: netip.MustParseAddrPort(server), Network: "tcp"}
		for range 2 { // two votes that do not overlap
			began := time.Now()
			time.Sleep(time.Minute)
			dialer.LearnerOf(lab.ledger).Died(key, began, time.Minute)
		}
		if a := lab.account(server); a.Forgets != 30*time.Second || !a.Learned {
			t.Errorf("after two deaths in a minute of silence: %v, learned: %v", a.Forgets, a.Learned)
		}
	})
}
