package dialer_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestAHerdIntoARefusingServerMakesFewSYNs(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		lab.net.Latency = 5 * time.Millisecond
		var wg sync.WaitGroup
		var refused atomic.Int32
		for range 1000 {
			wg.Go(func() {
				_, err := d.DialContext(t.Context(), "tcp", server)
				if errors.Is(err, syscall.ECONNREFUSED) {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		if n := refused.Load(); n != 1000 {
			t.Errorf("%d were told that they are refused", n)
		}
		if opened := lab.nat.Stats().Opened; opened > 20 {
			t.Errorf("%d SYNs", opened)
		}
	})
}

func TestAFailingAddressIsTriedByOneDialAtATime(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.BlackHole(server)
		d := lab.dialer()
		d.Timeout = time.Second
		dial := func() error {
			c, err := d.DialContext(t.Context(), "tcp", server)
			if err == nil {
				c.Close()
			}
			return err
		}
		if dial() == nil {
			t.Fatal("connected through a black hole")
		}
		var wg sync.WaitGroup
		var timeouts atomic.Int32
		for range 50 {
			wg.Go(func() {
				start := time.Now()
				err := dial()
				if timeout, ok := err.(*dialer.DialError); !ok || !timeout.Timeout() || errors.Is(err, dialer.ErrBudget) {
					t.Errorf("got %v", err)
				}
				if took := waited(start); took > time.Second+100*time.Millisecond {
					t.Errorf("after %v", took)
				}
				timeouts.Add(1)
			})
		}
		time.Sleep(100 * time.Millisecond) // the first wait is at most that
		synctest.Wait()
		if a := lab.account(server); a.Dialing != 1 || a.Waiting != 49 {
			t.Errorf("got %v", a)
		}
		wg.Wait()
		if n := timeouts.Load(); n != 50 {
			t.Errorf("%d shared the trial's error", n)
		}
		if opened := lab.nat.Stats().Opened; opened != 2 {
			t.Errorf("%d SYNs", opened)
		}
	})
}

func TestAFirstSuccessEndsTheBackoff(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		lab.ledger.MaxWait = -1
		for range 6 { // until the waits are long
			if _, err := d.DialContext(t.Context(), "tcp", server); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatal(err)
			}
		}
		lab.serve(server)
		lab.dial(d, server).Close()
		start := time.Now()
		for range 30 {
			defer lab.dial(d, server).Close()
		}
		if took := waited(start); took != 0 {
			t.Errorf("after the first success, the others took %v", took)
		}
	})
}

func TestImpatienceIsNoFailureOfTheAddress(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.Latency = 15 * time.Millisecond // 30 ms for a handshake
		d := lab.dialer()
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := d.DialContext(ctx, "tcp", server)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
		}
		start := time.Now()
		lab.dial(d, server).Close()
		if took := waited(start); took != 30*time.Millisecond {
			t.Errorf("a patient dial took %v", took)
		}
	})
}

func TestADialThatIsGivenUpMakesWayForTheNext(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.BlackHole(server)
		d := lab.dialer()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for range 16 { // all that may be under way
			wg.Go(func() { d.DialContext(ctx, "tcp", server) })
		}
		synctest.Wait()
		start := time.Now()
		for range 5 {
			wg.Go(func() {
				c, err := d.DialContext(t.Context(), "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				if took := waited(start); took > time.Second {
					t.Errorf("connected after %v", took)
				}
				c.Close()
			})
		}
		time.Sleep(500 * time.Millisecond)
		lab.net.Heal(server)
		wg.Wait()
	})
}

func TestWhoWaitsForAPortToAFailingAddressDoesNotSpin(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		if _, err := d.DialContext(t.Context(), "tcp", server); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the backoff is over, the port is still held
		lab.serve(server)
		start := time.Now()
		lab.dial(d, server).Close()
		if took := waited(start); took != 14*time.Second+margin {
			t.Errorf("after %v", took)
		}
	})
}

func TestAFailureIsForgotten(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		if _, err := lab.dialer().DialContext(t.Context(), "tcp", server); err == nil {
			t.Fatal("connected to nobody")
		}
		time.Sleep(16 * time.Second) // its hold, and the longest wait
		if accounts, _, failing, _ := lab.ledger.Remembers(); accounts != 0 || failing != 0 {
			t.Errorf("%d accounts and %d failures are remembered", accounts, failing)
		}
	})
}

func TestATrialThatIsGivenUpLeavesTheNextToAnother(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.BlackHole(server)
		d := lab.dialer()
		d.Timeout = 2 * time.Second
		if _, err := d.DialContext(t.Context(), "tcp", server); err == nil {
			t.Fatal("connected through a black hole")
		}
		time.Sleep(100 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		trial := make(chan error)
		go func() {
			_, err := d.DialContext(ctx, "tcp", server)
			trial <- err
		}()
		synctest.Wait()
		got := make(chan error)
		go func() {
			c, err := d.DialContext(t.Context(), "tcp", server)
			if err == nil {
				c.Close()
			}
			got <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-trial; !errors.Is(err, context.Canceled) {
			t.Errorf("the trial: %v", err)
		}
		lab.net.Heal(server)
		start := time.Now()
		if err := <-got; err != nil || waited(start) != 0 {
			t.Errorf("the next: %v after %v", err, waited(start))
		}
	})
}

func TestWhoWaitsForATrialIsWokenWhereNothingIsHeld(t *testing.T) {
	path := azure(1)
	path.Hold.RST = netpath.None
	onPath(t, path, func(t *testing.T, lab *lab) {
		lab.net.Latency = time.Second
		lab.serve("20.0.0.2:80")
		d := lab.dialer()
		d.Resolver = names{"both.example": addrs("20.0.0.1", "20.0.0.2")}
		hog := lab.dial(lab.dialer(), "20.0.0.2:80")
		d.DialContext(t.Context(), "tcp", "20.0.0.1:80") // refused: the address fails from now on
		time.Sleep(time.Second)
		trial := make(chan error, 1)
		go func() {
			_, err := lab.dialer().DialContext(t.Context(), "tcp", "20.0.0.1:80")
			trial <- err
		}()
		synctest.Wait()
		got := make(chan *dialer.Conn)
		go func() { got <- lab.dial(d, "both.example:80") }()
		if err := <-trial; err == nil {
			t.Fatal("the trial went through")
		}
		lab.serve("20.0.0.1:80")
		start := time.Now()
		c := <-got
		if took := waited(start); took > 5*time.Second {
			t.Errorf("tried again after %v", took)
		}
		c.Close()
		hog.Close()
	})
}

func TestAShortTimeoutSaysNothingAboutTheAddress(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.BlackHole(server)
		hasty := lab.dialer()
		hasty.Timeout = 50 * time.Millisecond
		if _, err := hasty.DialContext(t.Context(), "tcp", server); err == nil {
			t.Fatal("connected through a black hole")
		}
		lab.net.Heal(server)
		start := time.Now()
		lab.dial(lab.dialer(), server).Close()
		if took := waited(start); took != 0 {
			t.Errorf("another's dial had to wait %v", took)
		}
	})
}

func TestAnOwnerThatCannotBeComparedIsTheCallersBug(t *testing.T) {
	defer func() {
		if got, want := recover(), "dialer: owner of type []int is not comparable"; got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}()
	dialer.WithOwner(t.Context(), []int{1})
}

func TestTroubleIsKnownWithoutADial(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		d.Timeout = time.Second
		trouble := func() error { return d.Trouble(t.Context(), "tcp", server) }
		if err := trouble(); err != nil {
			t.Errorf("nothing is known, and it says %v", err)
		}
		if _, err := d.DialContext(t.Context(), "tcp", server); err == nil {
			t.Fatal("connected to nobody")
		}
		if err := trouble(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after a refusal it says %v", err)
		}
		lab.serve(server)
		time.Sleep(time.Second)
		c, err := d.DialContext(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := trouble(); err != nil {
			t.Errorf("after a success it says %v", err)
		}
		if err := d.Trouble(t.Context(), "udp", server); err == nil {
			t.Error("there is no network udp")
		}
	})
}

func TestADiagnosisCountsRefusedDialsFromTheFirstOn(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		d, start := lab.dialer(), time.Now()
		for range 5 {
			if _, err := d.DialContext(t.Context(), "tcp", server); dialer.VerdictOf(err) != dialer.PeerDown {
				t.Error(err)
			}
			time.Sleep(11 * time.Second)
		}
		if ds := lab.ledger.Diagnoses(); len(ds) != 1 || ds[0].Dials != 5 || !ds[0].Since.Equal(start) {
			t.Errorf("since %v: %+v", start, ds)
		}
		lab.serve(server)
		lab.dial(d, server).Close()
		if ds := lab.ledger.Diagnoses(); len(ds) != 0 {
			t.Errorf("though a dial worked: %+v", ds)
		}
	})
}

func TestAControlDialSaysNothingToWhoAskedAfterItsLastSYN(t *testing.T) {
	dialer.OldKernel(t)
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(server)
		var down atomic.Bool
		d := lab.dialer()
		d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			for pause := time.Second; down.Load(); pause *= 2 {
				select {
				case <-time.After(pause):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return lab.nat.DialContext(ctx, network, address)
		}
		dial := func() error {
			c, err := d.DialContext(t.Context(), "tcp", server)
			if err == nil {
				c.Close()
			}
			return err
		}
		down.Store(true)
		if dial() == nil {
			t.Fatal("connected through a black hole")
		}
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(dialer.WithControl(t.Context()), 2500*time.Millisecond) // SYNs after 0 and 1 s
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() { d.DialContext(ctx, "tcp", server) })
		time.Sleep(500 * time.Millisecond)
		all.Go(func() {
			if dial() == nil {
				t.Error("who asked before is told nothing")
			}
		})
		time.Sleep(1500 * time.Millisecond)
		down.Store(false)
		start := time.Now()
		if err := dial(); err != nil || waited(start) != 500*time.Millisecond {
			t.Errorf("the path is in order, and after %v: %v", waited(start), err)
		}
		all.Wait()
	})
}
