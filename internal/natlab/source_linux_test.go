package natlab_test

import (
	"context"
	"net"
	"testing"

	"github.com/natwise/natwise/internal/natlab"
)

func TestASourceHasPortsOfItsOwnWhereSourcesAreCounted(t *testing.T) {
	for _, counted := range []bool{false, true} {
		name := map[bool]string{false: "shared", true: "per source"}[counted]
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 2, func(cfg *natlab.Config) { cfg.Clients, cfg.PerSource = 2, counted })
			from := func(i int) error {
				ctx, cancel := context.WithTimeout(t.Context(), late)
				defer cancel()
				c, err := natlab.DialFrom(r.Lab, ctx, &net.TCPAddr{IP: r.Client(i).AsSlice()}, "tcp", r.dst.String())
				if err == nil {
					t.Cleanup(func() { c.Close() })
				}
				return err
			}
			for range 2 {
				if err := from(0); err != nil {
					t.Fatal(err)
				}
			}
			if err := from(0); !isTimeout(err) {
				t.Errorf("a third flow of one source: %v, want silence", err)
			}
			want := 2
			if counted {
				want = 4
			}
			for i := range want - 2 {
				if err := from(1); err != nil {
					t.Errorf("flow %d of the other source: %v", i, err)
				}
			}
			if err := from(1); !isTimeout(err) {
				t.Errorf("one more flow of the other source: %v, want silence", err)
			}
			if got := len(r.flows()); got != want {
				t.Errorf("%d flows, want %d", got, want)
			}
			if got := r.held(); got != want {
				t.Errorf("%d ports are held, want %d", got, want)
			}
			if c := r.counts().By[r.dst]; c.Admitted != want || c.Refused < 2 {
				t.Errorf("the gateway counts %+v", c)
			}
		})
	}
}

func TestPerSourceCannotBeHadWithReuse(t *testing.T) {
	_, err := natlab.New(natlab.Config{Reuse: true, PerSource: true, Clients: 2, Room: 8})
	if err == nil {
		t.Error("no error")
	}
}
