package main

import (
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// What a look costs with 10,000 connections, all of which have their owner; and with one
// among them whose owner, this process with 10,000 files, must be found. The doctor looks
// every 250 ms, or so seldom that it stays at 5 % of a processor.
func BenchmarkLookAt10000Connections(b *testing.B) {
	const many, backlog = 10_000, 4000 // of one listener: the far ends are never accepted
	lab, err := natlab.New(natlab.Config{Path: scaled(many, time.Minute, time.Minute, time.Minute)})
	if errors.Is(err, natlab.ErrUnavailable) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer lab.Close()
	var to net.Listener
	for i := range many {
		if i%backlog == 0 {
			if to, err = lab.Listen(lab.Server(0).String() + ":0"); err != nil {
				b.Fatal(err)
			}
			defer to.Close()
		}
		c, err := lab.Dial(b.Context(), "tcp4", to.Addr().String())
		if errors.Is(err, syscall.EMFILE) {
			b.Skip(err)
		}
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
	}
	var see eyes
	if err := lab.Inside("client", func() error { see, err = openEyes(); return err }); err != nil {
		b.Fatal(err)
	}
	defer see.close()
	h, p := newHistory(newPathway(scaled(many, time.Minute, time.Minute, time.Minute), true), 250*time.Millisecond), newProc("/proc")
	var s sight
	look := func() {
		if err := see.look(&s); err != nil {
			b.Fatal(err)
		}
		h.look(time.Now(), &s)
		if want := h.ownerless(false); len(want) > 0 {
			p.find(want, true)
		}
	}
	look()
	for name, strangers := range map[string]int{"all known": 0, "one new": 1} {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread() // its time is the cost
			defer runtime.UnlockOSThread()
			before := see.cpu()
			for b.Loop() {
				n := strangers
				for _, f := range h.flows {
					if n--; n < 0 {
						break
					}
					f.owner = nil
				}
				look()
			}
			b.ReportMetric(float64((see.cpu()-before).Microseconds())/1000/float64(b.N), "cpu-ms/look")
		})
	}
	if len(h.flows) != many {
		b.Errorf("%d connections", len(h.flows))
	}
}
