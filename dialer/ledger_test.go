package dialer_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

const margin = 20 * time.Millisecond // what the ledger adds to each hold

func TestAPortCoolsFor240SecondsAfterFIN(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		lab.dial(d, server).Close()

		start := time.Now()
		c := lab.dial(d, server)
		if took := waited(start); took != 240*time.Second+margin {
			t.Errorf("the port came back after %v", took)
		}
		c.Close()
	})
}

func TestTheNATNeverRefusesWhatTheLedgerAllows(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				c, err := d.DialContext(t.Context(), "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(20 * time.Millisecond)
				c.Close()
				lab.fits()
			})
		}
		wg.Wait()
		stats := lab.nat.Stats()
		if stats.Opened != 500 || stats.RefusedSYNs != 0 || stats.Peak > 128 {
			t.Errorf("%d flows, %d SYNs refused, %d ports at most", stats.Opened, stats.RefusedSYNs, stats.Peak)
		}
	})
}

func TestADialGivesUpWithTheAccountInItsError(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		var events []dialer.Event
		d.Observe = func(e dialer.Event) { events = append(events, e) }
		defer lab.dial(d, server).Close()

		start := time.Now()
		_, err := d.DialContext(t.Context(), "tcp", server)
		if took := waited(start); took != 30*time.Second {
			t.Errorf("gave up after %v, want MaxWait's default", took)
		}
		var b *dialer.BudgetError
		if !errors.As(err, &b) || !errors.Is(err, dialer.ErrBudget) || !dialer.SafeToRetry(err) {
			t.Fatalf("got %v", err)
		}
		if b.Account.Active != 1 || b.Account.Limit != 1 || b.Account.Waiting != 1 {
			t.Errorf("the account says %v", b.Account)
		}
		for _, want := range []string{"dial tcp " + server, "1 of 1 ports taken", "1 active", "1 waiting", "MaxWait"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		if ds := lab.ledger.Diagnoses(); len(ds) != 1 || ds[0].Verdict != dialer.Exhausted || ds[0].Remote.String() != server || ds[0].Dials != 1 {
			t.Errorf("diagnoses: %+v", ds)
		}
		if waits := events[len(events)-1]; waits.Kind != dialer.Waited || waits.Verdict != dialer.Exhausted {
			t.Errorf("the last event: %+v", waits)
		}
	})
}

func TestWhatIsKeptBackIsToldToWhoWaits(t *testing.T) {
	for want, ramp := range map[string]time.Duration{"31 of 32 ports taken (31 active, 1 kept back), 1 waiting": -1, "15 of 32 ports taken (15 active, 17 kept back), 1 waiting": time.Hour} {
		inLab(t, 32, func(t *testing.T, lab *lab) {
			lab.serve(server)
			lab.ledger.Ramp, lab.ledger.MaxWait = ramp, time.Second
			d := lab.dialer()
			var err error
			for err == nil {
				var c net.Conn
				if c, err = d.DialContext(t.Context(), "tcp", server); err == nil {
					defer c.Close()
				}
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}

func TestAFlowIsSeenInTheAccountOfItsDestinationToo(t *testing.T) {
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.SourceDestination, N: 100}, {Scope: netpath.Destination, N: 4}}
	path.Exempt = netpath.NoExempt()
	ln := echo(t)
	l := &dialer.Ledger{Path: path, Ramp: -1, MaxWait: 5 * time.Second}
	source := []dialer.Source{{Addr: netip.MustParseAddr("127.0.0.1")}}
	first := &dialer.Dialer{Ledger: l, Sources: source}
	for range 4 {
		c, err := first.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if parked := c.(*dialer.Conn); !parked.Park(parked.Turn()) {
			t.Fatal("not parked")
		}
	}
	for _, a := range l.Accounts() {
		if a.Idle != 4 || a.Taken() != 4 {
			t.Errorf("%v", a)
		}
	}
	second := &dialer.Dialer{Ledger: l, Sources: source}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	second.DialContext(ctx, "tcp", ln.Addr().String()) // the hold is longer than that
	if n := l.Accounts()[0].Idle; n != 3 {
		t.Errorf("%d of 4 idle connections are left, of which one was to be ended for who waits", n)
	}
}

func TestADeadlineEndsTheWaitAndLeavesNoTrace(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		c := lab.dial(d, server)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.DialContext(ctx, "tcp", server)
		if !errors.Is(err, dialer.ErrBudget) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if a := lab.account(server); a.Waiting != 0 || a.Taken() != 1 {
			t.Errorf("left behind: %v", a)
		}
		c.Close()
	})
}

func TestAFailedDialWakesTheNext(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.Path.Hold.RST = netpath.None // so that the refused one holds nothing
		lab.nat.Path.Hold.RST = netpath.None
		d := lab.dialer()
		r1, err := d.Reserve(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		r2, err := d.Reserve(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			c, err := d.DialContext(t.Context(), "tcp", server)
			if err == nil {
				c.Close()
			}
			got <- err
		}()
		synctest.Wait()
		r1.Release()
		r1.Release() // the second counts for nothing
		if err := <-got; err != nil {
			t.Error(err)
		}
		r2.Release()
	})
}

func TestThePortGoesToTheOwnerWithTheFewestFlows(t *testing.T) {
	inLab(t, 10, func(t *testing.T, lab *lab) {
		lab.serve(server)
		rich, poor := lab.dialer(), lab.dialer()
		var open []*dialer.Conn
		for range 8 {
			open = append(open, lab.dial(rich, server))
		}
		for range 2 {
			open = append(open, lab.dial(poor, server))
		}
		lab.ledger.MaxWait = -1
		order := make(chan string, 2)
		wait := func(d *dialer.Dialer, name string) {
			go func() {
				c, err := d.DialContext(t.Context(), "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				order <- name
				c.Close()
			}()
			synctest.Wait()
		}
		wait(rich, "rich") // has waited longer
		wait(poor, "poor")
		open[0].Close()
		if first := <-order; first != "poor" {
			t.Errorf("the first port went to the %s owner", first)
		}
		for _, c := range open[1:] {
			c.Close()
		}
		<-order
	})
}

func TestAmongEqualsWhoWaitedLongestIsFirst(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		c := lab.dial(d, server)
		order := make(chan int, 20)
		for i := range 20 {
			go func() {
				c, err := d.DialContext(t.Context(), "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				c.Close()
			}()
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		c.Close()
		for i := range 20 {
			if got := <-order; got != i {
				t.Fatalf("turn %d went to waiter %d", i, got)
			}
		}
	})
}

func TestANewcomerFindsAPort(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		hog := lab.dialer()
		hog.Ledger.MaxWait = time.Second
		var open []*dialer.Conn
		for range 127 {
			open = append(open, lab.dial(hog, server))
		}
		if _, err := hog.DialContext(t.Context(), "tcp", server); !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("the hog took the last port: %v", err)
		}
		start := time.Now()
		open = append(open, lab.dial(lab.dialer(), server))
		if took := waited(start); took != 0 {
			t.Errorf("a newcomer waited %v", took)
		}
		for _, c := range open {
			c.Close()
		}
	})
}

func TestAControlConnectionMayUseTheReserve(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		for range 127 {
			defer lab.dial(d, server).Close()
		}
		c, err := d.DialContext(dialer.WithControl(t.Context()), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestAtMost16DialsOfAnAccountAreUnderWay(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.BlackHole(server)
		d := lab.dialer()
		d.Timeout = 5 * time.Second
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if c, err := d.DialContext(t.Context(), "tcp", server); err == nil {
					c.Close()
					t.Error("connected through a black hole")
				}
			})
		}
		synctest.Wait()
		if a := lab.account(server); a.Dialing != 16 || a.Waiting != 84 {
			t.Errorf("got %v", a)
		}
		wg.Wait()
		if opened := lab.nat.Stats().Opened; opened > 20 {
			t.Errorf("%d SYNs into a black hole", opened)
		}
		lab.fits()
	})
}

func TestAWaiterStandsUnderAllAddressesOfItsName(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		a, b := "20.1.2.3:443", "20.1.2.4:443"
		lab.serve(a, b)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		d.Resolver = names{"api.example": addrs("20.1.2.3", "20.1.2.4")}
		first, second := lab.dial(d, "api.example:443"), lab.dial(d, "api.example:443")
		if first.RemoteAddr().String() == second.RemoteAddr().String() {
			t.Fatalf("both on %v: the second address was not used", first.RemoteAddr())
		}
		got := make(chan *dialer.Conn)
		go func() { got <- lab.dial(d, "api.example:443") }()
		synctest.Wait()
		if n := lab.account(a).Waiting + lab.account(b).Waiting; n != 2 {
			t.Errorf("stands under %d keys", n)
		}
		second.Close() // its port, whichever address, comes free first
		third := <-got
		if third.RemoteAddr().String() != second.RemoteAddr().String() {
			t.Errorf("got %v", third.RemoteAddr())
		}
		if n := lab.account(first.RemoteAddr().String()).Waiting; n != 0 {
			t.Errorf("still stands under the other key")
		}
		first.Close()
		third.Close()
	})
}

func TestTwoNamesOnOneAddressShareAnAccount(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		d.Resolver = names{"a.example": addrs("20.1.2.3"), "b.example": addrs("20.1.2.3")}
		defer lab.dial(d, "a.example:443").Close()
		defer lab.dial(d, "b.example:443").Close()
		if a := lab.account(server); a.Active != 2 {
			t.Errorf("got %v", a)
		}
	})
}

func TestANameWithFourAddressesGetsFourTimesTheFlows(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve("20.0.0.1:80", "20.0.0.2:80", "20.0.0.3:80", "20.0.0.4:80")
		d := lab.dialer()
		d.Resolver = names{"api.example": addrs("20.0.0.1", "20.0.0.2", "20.0.0.3", "20.0.0.4")}
		lab.ledger.MaxWait = time.Second
		var open []*dialer.Conn
		for range 32 {
			open = append(open, lab.dial(d, "api.example:80"))
		}
		if _, err := d.DialContext(t.Context(), "tcp", "api.example:80"); !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("the 33rd: %v", err)
		}
		for _, a := range lab.ledger.Accounts() {
			if a.Active != 8 {
				t.Errorf("unevenly: %v", a)
			}
		}
		for _, c := range open {
			c.Close()
		}
	})
}

func TestAFlowMayOweSeveralAccounts(t *testing.T) {
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 3}, {Scope: netpath.Sockets, N: 4}}
	onPath(t, path, func(t *testing.T, lab *lab) {
		lab.serve("20.0.0.1:80", "20.0.0.2:80")
		lab.ledger.MaxWait = time.Second
		d := lab.dialer()
		var open []*dialer.Conn
		for range 3 {
			open = append(open, lab.dial(d, "20.0.0.1:80"))
		}
		open = append(open, lab.dial(d, "20.0.0.2:80"))
		if _, err := d.DialContext(t.Context(), "tcp", "20.0.0.2:80"); !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("a fifth socket: %v", err)
		}
		open[0].Close() // its socket leaves at once, its port stays
		synctest.Wait()
		open = append(open, lab.dial(d, "20.0.0.2:80"))
		if _, err := d.DialContext(t.Context(), "tcp", "20.0.0.1:80"); !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("a fourth port: %v", err)
		}
		for _, c := range open[1:] {
			c.Close()
		}
	})
}

func TestExemptDestinationsAreNotCounted(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve("10.0.0.5:80")
		d := lab.dialer()
		for range 10 {
			defer lab.dial(d, "10.0.0.5:80").Close()
		}
		if as := lab.ledger.Accounts(); len(as) != 0 {
			t.Errorf("booked: %v", as)
		}
	})
}

func TestShadowRefusesNothingAndCountsWhatItWouldHave(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.Shadow = true
		d := lab.dialer()
		d.Dial = lab.net.DialContext // or the NAT would refuse
		var conns []*dialer.Conn
		for range 5 {
			conns = append(conns, lab.dial(d, server))
		}
		if a := lab.account(server); a.Active != 5 || a.Exceeded != 3 {
			t.Errorf("got %v, %d exceeded", a, a.Exceeded)
		}
		for _, c := range conns {
			c.Close()
		}
		time.Sleep(24 * time.Hour)
		if a := lab.account(server); a.Taken() != 0 || a.Exceeded != 3 {
			t.Errorf("a day later: %v, %d exceeded", a, a.Exceeded)
		}
	})
}

func TestAFreshLedgerBeginsWithHalfOfASmallLimit(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.Ramp = 0
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		start := time.Now()
		for i := range 127 {
			defer lab.dial(d, server).Close()
			if i == 62 && waited(start) != 0 {
				t.Errorf("the first half took %v", waited(start))
			}
		}
		if took := waited(start); took < 230*time.Second || took > 240*time.Second {
			t.Errorf("the second half was there after %v, want about the longest hold", took)
		}
	})
}

func TestAParkedFlowIsGivenUpForWhoWaits(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		rich := lab.dialer()
		var open []*dialer.Conn
		for range 19 {
			open = append(open, lab.dial(rich, server))
		}
		time.Sleep(time.Second)
		park(t, open[3]) // parked longest
		time.Sleep(time.Second)
		park(t, open[7]) // and one more, since the last port stays a newcomer's
		time.Sleep(time.Second)
		park(t, open[0])
		poor := lab.dialer()
		first := lab.dial(poor, server) // the newcomer's port
		start := time.Now()
		second := lab.dial(poor, server)
		if took := waited(start); took < time.Second || took > 241*time.Second {
			t.Errorf("waited %v", took)
		}
		if _, err := open[3].Unpark(); !errors.Is(err, keepalive.ErrRetired) {
			t.Errorf("the longest idle flow: %v", err)
		}
		if n, err := open[3].Write([]byte("x")); n != 0 || !dialer.SafeToRetry(err) {
			t.Errorf("a write on it: %d, %v", n, err)
		}
		if _, err := open[0].Unpark(); errors.Is(err, keepalive.ErrRetired) {
			t.Errorf("the other idle flow was ended too: %v", err)
		}
		first.Close()
		second.Close()
		for i, c := range open {
			if i != 3 && i != 7 {
				c.Close()
			}
		}
	})
}

func TestAFlowParkedWhileSomebodyWaitsIsOffered(t *testing.T) {
	inLab(t, 3, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		rich, poor := lab.dialer(), lab.dialer()
		open := []*dialer.Conn{lab.dial(rich, server), lab.dial(rich, server), lab.dial(rich, server)}
		got := make(chan *dialer.Conn)
		go func() { got <- lab.dial(poor, server) }()
		synctest.Wait()
		park(t, open[1])
		(<-got).Close()
		if !open[1].Closed() {
			t.Error("the parked flow is still there")
		}
		open[0].Close()
		open[2].Close()
	})
}

func TestNobodyLosesAParkedFlowToAnEqual(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = time.Second
		a, b := lab.dialer(), lab.dialer()
		mine, other := lab.dial(a, server), lab.dial(b, server)
		park(t, mine)
		if _, err := b.DialContext(t.Context(), "tcp", server); !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("got %v", err)
		}
		if _, err := mine.Unpark(); err != nil {
			t.Errorf("ended for somebody who holds as many: %v", err)
		}
		mine.Close()
		other.Close()
	})
}
