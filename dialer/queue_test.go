package dialer_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
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

// dialFor begins a dial for an owner, and returns when it waits or has ended. The
// function that it returns calls it off.
func (l *lab) dialFor(owner any, address string) (callOff func()) {
	ctx, cancel := context.WithCancel(dialer.WithOwner(l.Context(), owner))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.dialer().DialContext(ctx, "tcp", address); err == nil {
			c.Close()
		}
	}()
	synctest.Wait()
	return func() {
		cancel()
		<-done
	}
}

func TestAnOwnerIsToldWhatItsDialsWaitFor(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.ledger.MaxWait = -1
		if err := lab.ledger.Obstacle("mine"); err != nil {
			t.Errorf("before the first dial: %v", err)
		}
		one, two := lab.dial(lab.dialer(), first), lab.dial(lab.dialer(), second)
		theirs := lab.dialFor("theirs", second)
		if err := lab.ledger.Obstacle("mine"); err != nil {
			t.Errorf("while somebody else waits: %v", err)
		}
		time.Sleep(time.Second)
		mine := lab.dialFor("mine", first)
		time.Sleep(time.Second)
		later := lab.dialFor("mine", second)
		err := lab.ledger.Obstacle("mine")
		var b *dialer.BudgetError
		if !errors.As(err, &b) || !errors.Is(err, dialer.ErrBudget) || b.Timeout() || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if a := b.Account; a.Key.Dest.String() != first || a.Active != 1 || a.Waiting != 1 || a.OldestWait != time.Second {
			t.Errorf("it names %v, waited for for %v", a, a.OldestWait)
		}
		if want := "1 of 1 ports taken (1 active), 1 waiting"; !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q does not end with %q", err, want)
		}
		mine()
		if err := lab.ledger.Obstacle("mine"); !errors.As(err, &b) || b.Account.Key.Dest.String() != second || b.Account.Waiting != 2 {
			t.Errorf("of the later dial it says %v", err)
		}
		later()
		if err := lab.ledger.Obstacle("mine"); err != nil {
			t.Errorf("when none waits any more: %v", err)
		}
		theirs()
		one.Close()
		two.Close()
	})
}

func TestAnOwnerWhoseAddressFailsIsToldSo(t *testing.T) {
	inLab(t, 4, func(t *testing.T, lab *lab) {
		lab.dialFor("mine", third)() // nobody is there
		callOff := lab.dialFor("mine", third)
		if err := lab.ledger.Obstacle("mine"); !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, dialer.ErrBudget) {
			t.Errorf("got %v", err)
		}
		callOff()
	})
}

func TestALedgerThatIsWrongHasNoObstacle(t *testing.T) {
	l := dialer.Ledger{Path: netpath.Profile{Limits: []netpath.Limit{{Scope: netpath.Destination, N: -5}}}}
	if err := l.Obstacle("mine"); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestADialWithoutMaxWaitWaitsAsLongAsItsContext(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		taken := lab.dial(d, server)
		time.AfterFunc(time.Minute, func() { taken.Close() })
		start := time.Now()
		c, err := d.DialContext(dialer.WithoutMaxWait(t.Context()), "tcp", server)
		if err != nil {
			t.Fatalf("after %v: %v", waited(start), err)
		}
		c.Close()
		if took := waited(start); took < 5*time.Minute {
			t.Errorf("a port that the NAT holds for 4 min was there after %v", took)
		}
	})
}
