package dialer_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
)

const (
	first, second, third = "20.0.0.1:443", "20.0.0.2:443", "20.0.0.3:443"
	other                = "[2a00::1]:443" // of the other family
	name                 = "api.example:443"
)

// named returns a dialer that knows the addresses of name.
func (l *lab) named(addresses ...string) *dialer.Dialer {
	d := l.dialer()
	var as []netip.Addr
	for _, a := range addresses {
		as = append(as, netip.MustParseAddrPort(a).Addr())
	}
	d.Resolver = names{"api.example": as}
	return d
}

func TestTheSecondAddressIsTriedAfterStagger(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.net.BlackHole(first)
		start := time.Now()
		c := lab.dial(lab.named(first, second), name)
		if took := waited(start); took != 250*time.Millisecond || c.RemoteAddr().String() != second {
			t.Errorf("connected to %v after %v", c.RemoteAddr(), took)
		}
		synctest.Wait()
		if a := lab.account(first); a.Cooling[keepalive.Unanswered] != 1 || a.Taken() != 1 {
			t.Errorf("the loser's account: %v", a)
		}
		lab.fits()
		c.Close()
	})
}

func TestALoserThatConnectsIsClosedAndBooked(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.net.BlackHole(first)
		lab.net.BlackHole(second)
		d := lab.named(first, second)
		got := make(chan *dialer.Conn)
		go func() { got <- lab.dial(d, name) }()
		time.Sleep(300 * time.Millisecond)
		lab.net.Heal(first) // both answer at one moment
		lab.net.Heal(second)
		winner := <-got
		synctest.Wait()
		loser := second
		if winner.RemoteAddr().String() == second {
			loser = first
		}
		if a := lab.account(winner.RemoteAddr().String()); a.Active != 1 || a.Taken() != 1 {
			t.Errorf("the winner's account: %v", a)
		}
		if a := lab.account(loser); a.Taken() != 1 || a.Active != 0 {
			t.Errorf("the loser's account: %v", a)
		}
		lab.fits()
		winner.Close()
	})
}

func TestAnAddressThatFailsMakesWayAtOnce(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(third)
		start := time.Now()
		c := lab.dial(lab.named(first, second, third), name)
		if took := waited(start); took != 0 || c.RemoteAddr().String() != third {
			t.Errorf("connected to %v after %v", c.RemoteAddr(), took)
		}
		c.Close()
	})
}

func TestIfAllAddressesFailTheErrorTellsOfEach(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		start := time.Now()
		_, err := lab.named(first, second, third).DialContext(t.Context(), "tcp", name)
		if !errors.Is(err, syscall.ECONNREFUSED) || waited(start) != 0 {
			t.Errorf("got %v after %v", err, waited(start))
		}
		for _, a := range []string{name, first, second, third} {
			if !strings.Contains(err.Error(), a) {
				t.Errorf("%q does not tell of %v", err, a)
			}
		}
		lab.fits()
	})
}

func TestThereIsNoRaceWherePortsAreFew(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		d := lab.named(first, second)
		for range 17 { // 15 % are free
			defer lab.dial(d, second).Close()
		}
		lab.net.BlackHole(first)
		d.Timeout = 2 * time.Second
		start := time.Now()
		c := lab.dial(d, name)
		if took := waited(start); took != 2*time.Second || c.RemoteAddr().String() != second {
			t.Errorf("connected to %v after %v, want the second address when the first had failed", c.RemoteAddr(), took)
		}
		c.Close()
	})
}

func TestNegativeStaggerRacesNothing(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.net.BlackHole(first)
		d := lab.named(first, second)
		d.Stagger, d.Timeout = -1, 3*time.Second
		start := time.Now()
		lab.dial(d, name).Close()
		if took := waited(start); took != 3*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestIfTheRestIsFullItIsWaitedFor(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(second)
		d := lab.named(first, second)
		hog := lab.dial(lab.dialer(), second)
		time.AfterFunc(5*time.Second, func() { hog.Close() })
		lab.ledger.MaxWait = -1
		start := time.Now()
		c := lab.dial(d, name)
		if took := waited(start); took != 245*time.Second+margin {
			t.Errorf("after %v", took)
		}
		c.Close()
	})
}

func TestIfTheRestStaysFullTheErrorTellsOfTheFailureToo(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(second)
		d := lab.named(first, second)
		defer lab.dial(lab.dialer(), second).Close()
		_, err := d.DialContext(t.Context(), "tcp", name)
		if !errors.Is(err, dialer.ErrBudget) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheOtherFamilyIsNext(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(first, second, other)
		lab.net.BlackHole(first)
		lab.net.BlackHole(second)
		c := lab.dial(lab.named(first, second, other), name)
		if got := c.RemoteAddr().(*net.TCPAddr).AddrPort().String(); got != other {
			t.Errorf("connected to %v", got)
		}
		if n := lab.nat.Stats().Opened; n != 2 {
			t.Errorf("%d SYNs, want one to each family", n)
		}
		c.Close()
	})
}

func TestWithinThePreferredFamilyRoomDecides(t *testing.T) {
	inLab(t, 8, func(t *testing.T, lab *lab) {
		lab.serve(first, second, other)
		d := lab.named(first, second, other)
		for range 3 {
			defer lab.dial(d, first).Close()
		}
		c := lab.dial(d, name)
		if got := c.RemoteAddr().String(); got != second { // the other family has as much
			t.Errorf("connected to %v", got)
		}
		c.Close()
	})
}
