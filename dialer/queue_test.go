package dialer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestWhoWaitsForOneDestinationIsInNobodysWayToAnother(t *testing.T) {
	path := azure(1)
	path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.Sockets, N: 600}) // as Functions count
	onPath(t, path, func(t *testing.T, lab *lab) {
		lab.serve(first, second, third)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		held := lab.dial(d, first)
		one := dialer.WithOwner(t.Context(), "one owner") // of all that is dialed below
		waiting := make(chan *dialer.Conn)
		go func() {
			c, _ := d.DialContext(one, "tcp", first)
			waiting <- c.(*dialer.Conn)
		}()
		synctest.Wait()
		start := time.Now()
		for _, at := range []string{second, third} {
			c, err := d.DialContext(one, "tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if took := waited(start); took != 0 {
			t.Errorf("the other destinations took %v", took)
		}
		held.Close()
		(<-waiting).Close()
	})
}

func TestAControlConnectionPassesItsOwnersQueue(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		var open []*dialer.Conn
		for range 19 {
			open = append(open, lab.dial(d, server))
		}
		last, err := d.DialContext(dialer.WithControl(t.Context()), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 2)
		wait := func(control bool, name string) {
			ctx := t.Context()
			if control {
				ctx = dialer.WithControl(ctx)
			}
			go func() {
				c, err := d.DialContext(ctx, "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				order <- name
				c.Close()
			}()
			synctest.Wait()
		}
		wait(false, "an ordinary dial")
		wait(true, "the control connection")
		start := time.Now()
		last.Close() // its port may only be a control connection's
		if got := <-order; got != "the control connection" || waited(start) > 241*time.Second {
			t.Errorf("%s was first, after %v", got, waited(start))
		}
		for _, c := range open {
			c.Close()
		}
		<-order
	})
}

func TestADialBeforeTheFailureWasKnownDoesNotEndTheBackoff(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.net.BlackHole(server)
		d := lab.dialer()
		d.Timeout = time.Second
		for range 3 { // begun together: one failure
			go d.DialContext(t.Context(), "tcp", server)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, _, failing, _ := lab.ledger.Remembers(); failing != 1 {
			t.Errorf("%d addresses fail", failing)
		}
		if a := lab.account(server); a.Failed != 3 {
			t.Errorf("got %v", a)
		}
	})
}
