package dialer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestALedgerWithAPathThatMakesNoSenseDialsNothing(t *testing.T) {
	for _, test := range []struct {
		says string
		path netpath.Profile
	}{
		{"Limits[0].N is -5", netpath.Profile{Limits: []netpath.Limit{{Scope: netpath.Destination, N: -5}}}},
		{"Limits[0].N is 0", netpath.Profile{Limits: []netpath.Limit{{Scope: netpath.Destination}}}},
		{"Sharers is -1", netpath.Profile{Sharers: -1}},
		{"Hold.FIN is -1m", netpath.Profile{Hold: netpath.Hold{FIN: -time.Minute}}},
		{"Hold.SYN is -2", netpath.Profile{Hold: netpath.Hold{SYN: -2}}},
		{"Idle is -1s", netpath.Profile{Idle: -time.Second}},
	} {
		t.Run(test.says, func(t *testing.T) {
			inLab(t, 1, func(t *testing.T, lab *lab) {
				lab.serve(server)
				lab.ledger.Path = test.path
				_, err := lab.dialer().DialContext(t.Context(), "tcp", server)
				var d *dialer.DialError
				if !errors.As(err, &d) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v", err)
				}
				if lab.ledger.Accounts() != nil || lab.ledger.Flows() != nil {
					t.Error("it keeps accounts")
				}
				if opened := lab.nat.Stats().Opened; opened != 0 {
					t.Errorf("%d SYNs", opened)
				}
			})
		})
	}
}

func TestAnAddressThatMakesNoSenseIsRefusedAtOnce(t *testing.T) {
	as := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	address := as(new(*net.AddrError))
	for _, test := range []struct {
		network, address, says string
		is                     func(error) bool
	}{
		{"udp", server, "unknown network udp", as(new(net.UnknownNetworkError))},
		{"", server, "unknown network", as(new(net.UnknownNetworkError))},
		{"tcp", "", "missing port", address},
		{"tcp", ":443", "empty host", address},
		{"tcp", "[]:443", "empty host", address},
		{"tcp", "20.1.2.3", "missing port", address},
		{"tcp", "20.1.2.3:", "port", address},
		{"tcp", "20.1.2.3:0", "port 0 is not within", address},
		{"tcp", "20.1.2.3:-1", "port -1 is not within", address},
		{"tcp", "20.1.2.3:65536", "port 65536 is not within", address},
		{"tcp", "20.1.2.3:99999999999999999999", "port", address},
		{"tcp", "2001:db8::1:443", "too many colons", address},
		{"tcp6", server, "no address for tcp6", as(new(*net.DNSError))},
		{"tcp4", "[2001:db8::1]:443", "no address for tcp4", as(new(*net.DNSError))},
		{"tcp", "nobody.example:443", "no address for tcp", as(new(*net.DNSError))},
		{"tcp", "broken.example:443", "the resolver is broken", func(err error) bool { return errors.Is(err, errBroken) }},
	} {
		t.Run(test.network+" "+test.address, func(t *testing.T) {
			inLab(t, 1, func(t *testing.T, lab *lab) {
				d := lab.dialer()
				d.Resolver = resolver(func(_ context.Context, host string) ([]netip.Addr, error) {
					if host == "broken.example" {
						return nil, errBroken
					}
					return nil, nil
				})
				start := time.Now()
				_, err := d.DialContext(t.Context(), test.network, test.address)
				var whole *dialer.DialError
				if !errors.As(err, &whole) || !test.is(err) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %#v: %v", err, err)
				}
				if !dialer.SafeToRetry(err) || waited(start) != 0 {
					t.Errorf("after %v; safe to retry: %t", waited(start), dialer.SafeToRetry(err))
				}
				lab.wantEmpty()
			})
		})
	}
}

// Not in virtual time: the system's library is asked for names of ports.
func TestAPortThatNobodyKnowsIsRefused(t *testing.T) {
	d := &dialer.Dialer{Ledger: new(dialer.Ledger)}
	_, err := d.DialContext(t.Context(), "tcp", "20.1.2.3:no-such-port")
	var a *net.AddrError
	if !errors.As(err, &a) || !strings.Contains(err.Error(), "unknown port") {
		t.Errorf("got %v", err)
	}
}

var errBroken = errors.New("the resolver is broken")

type resolver func(ctx context.Context, host string) ([]netip.Addr, error)

func (r resolver) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return r(ctx, host)
}

func TestAContextThatIsDoneDialsNothing(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		d := lab.dialer()
		r, err := d.Reserve(ctx, "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		cancel(enough)
		if _, err := r.Dial(ctx); !errors.Is(err, enough) {
			t.Errorf("a reservation: %v", err)
		}
		lab.wantEmpty()
		if _, err := d.DialContext(ctx, "tcp", server); !errors.Is(err, enough) {
			t.Errorf("a dial: %v", err)
		}
		if opened := lab.nat.Stats().Opened; opened != 0 {
			t.Errorf("%d SYNs", opened)
		}
	})
}

func TestAResolverThatHangsIsBoundedByTimeout(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		d.Timeout = 3 * time.Second
		d.Resolver = resolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		start := time.Now()
		_, err := d.DialContext(t.Context(), "tcp", "api.example:443")
		var n net.Error
		if !errors.As(err, &n) || !n.Timeout() || !errors.Is(err, context.DeadlineExceeded) || dialer.VerdictOf(err) != dialer.DNS {
			t.Errorf("got %v", err)
		}
		if took := waited(start); took != d.Timeout {
			t.Errorf("after %v", took)
		}
		lab.wantEmpty()
	})
}

func TestARefusedDialHoldsItsPortAsARSTDoes(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		_, err := lab.dialer().DialContext(t.Context(), "tcp", server)
		var op *net.OpError
		if !errors.As(err, &op) || !errors.Is(err, syscall.ECONNREFUSED) || !dialer.SafeToRetry(err) {
			t.Errorf("got %v", err)
		}
		if a := lab.account(server); a.Cooling[keepalive.Refused] != 1 || a.NextFree != 15*time.Second+margin || a.Failed != 1 {
			t.Errorf("got %v", a)
		}
		lab.fits()
	})
}

func TestADialIntoABlackHoleEndsWithTimeout(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.net.BlackHole(server)
		start := time.Now()
		_, err := lab.dialer().DialContext(t.Context(), "tcp", server)
		var n net.Error
		if !errors.As(err, &n) || !n.Timeout() || errors.Is(err, dialer.ErrBudget) {
			t.Errorf("got %v", err)
		}
		if took := waited(start); took != 10*time.Second {
			t.Errorf("after %v, want Timeout's default", took)
		}
		hold := lab.ledger.Path.Effective().Hold.SYN
		if a := lab.account(server); a.Cooling[keepalive.Unanswered] != 1 || a.NextFree != hold+margin {
			t.Errorf("got %v, want it held for %v", a, hold)
		}
		lab.fits()
	})
}

func TestADialThatNeverLeftHoldsNothing(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		d.Dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EMFILE}
		}
		for range 3 {
			if _, err := d.DialContext(t.Context(), "tcp", server); !errors.Is(err, syscall.EMFILE) {
				t.Errorf("got %v", err)
			}
			lab.wantEmpty()
		}
	})
}

func TestSourcesNeedTheKernelsDial(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		d.Sources = []dialer.Source{{Addr: netip.MustParseAddr("127.0.0.1")}}
		if _, err := d.DialContext(t.Context(), "tcp", server); err == nil || !strings.Contains(err.Error(), "Sources is set together with Dial") {
			t.Errorf("got %v", err)
		}
	})
}

func TestSourcesOfTheOtherFamilyAreNoSources(t *testing.T) {
	d := &dialer.Dialer{Ledger: new(dialer.Ledger), Sources: []dialer.Source{{Addr: netip.MustParseAddr("2001:db8::1")}}}
	_, err := d.DialContext(t.Context(), "tcp", server)
	var a *net.AddrError
	if !errors.As(err, &a) || !strings.Contains(err.Error(), "Dialer.Sources") {
		t.Errorf("got %v", err)
	}
}

func TestAReservationIsUsedOnce(t *testing.T) {
	inLab(t, 2, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		reserve := func() *dialer.Reservation {
			r, err := d.Reserve(t.Context(), "tcp", server)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := reserve()
		if got := r.Remote().String(); got != server {
			t.Errorf("it is for %v", got)
		}
		c, err := r.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.Release() // too late
		if a := lab.account(server); a.Active != 1 || a.Taken() != 1 {
			t.Errorf("released after Dial: %v", a)
		}
		if _, err := r.Dial(t.Context()); err == nil || !dialer.SafeToRetry(err) {
			t.Errorf("dialed twice: %v", err)
		}
		c.Close()

		r = reserve()
		r.Release()
		other := reserve() // may have the same memory
		r.Release()
		if a := lab.account(server); a.Asked != 1 {
			t.Errorf("released twice: %v", a)
		}
		if _, err := r.Dial(t.Context()); err == nil {
			t.Error("dialed after Release")
		}
		other.Release()
	})
}

// collect runs the garbage collector until its finds are booked.
func collect(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the garbage collector found nothing in 10 s")
		}
		runtime.GC()
	}
}

func TestAReservationThatIsDroppedComesBack(t *testing.T) {
	ledger := &dialer.Ledger{Path: azure(1)}
	d := &dialer.Dialer{Ledger: ledger}
	if _, err := d.Reserve(t.Context(), "tcp", server); err != nil {
		t.Fatal(err)
	}
	collect(t, func() bool { return len(ledger.Accounts()) == 0 })
}

func TestAConnectionThatIsDroppedIsBooked(t *testing.T) {
	ln := echo(t)
	path := azure(4)
	path.Exempt = netpath.NoExempt()
	ended := make(chan dialer.Event, 1)
	d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path}, Observe: func(e dialer.Event) {
		if e.Kind == dialer.Ended {
			ended <- e
		}
	}}
	func() {
		c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x"))
		c.Read(make([]byte, 1))
	}()
	var e dialer.Event
	collect(t, func() bool {
		select {
		case e = <-ended:
			return true
		default:
			return false
		}
	})
	if !e.Ending.Lost || e.Ending.How != keepalive.FINByUs {
		t.Errorf("got %v %+v", e.Ending.How, e.Ending)
	}
	as := d.Ledger.Accounts()
	if len(as) != 1 || as[0].Cooling[keepalive.FINByUs] != 1 || as[0].Taken() != 1 {
		t.Errorf("got %v", as)
	}
}

func TestAWaiterWhoGivesUpPassesTheGrantOn(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		r, err := d.Reserve(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		for _, ctx := range []context.Context{ctx, t.Context()} {
			go func() {
				c, err := d.DialContext(ctx, "tcp", server)
				if err == nil {
					c.Close()
				}
				got <- err
			}()
			synctest.Wait()
		}
		r.Release() // to the first in the queue,
		cancel()    // who may have left by now
		for range 2 {
			if err := <-got; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

func TestAnErrorSaysWhereItDialedOnce(t *testing.T) {
	op := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(20, 1, 2, 3), Port: 80}, Err: syscall.ECONNREFUSED}
	for address, want := range map[string]string{
		"20.1.2.3:80":    "dial tcp 20.1.2.3:80: connection refused",
		"api.example:80": "dial tcp api.example:80: 20.1.2.3:80: connection refused",
	} {
		if got := (&dialer.DialError{Network: "tcp", Address: address, Err: op}).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOfSourcesThatAreAlikeAnyIsChosen(t *testing.T) {
	ln := echo(t)
	for _, limits := range [][]netpath.Limit{nil, {{Scope: netpath.SourceDestination, N: 1000}}} {
		l := &dialer.Ledger{Path: netpath.Profile{Limits: limits, Exempt: netpath.NoExempt()}, Ramp: -1}
		d := &dialer.Dialer{Ledger: l, Sources: []dialer.Source{{Addr: netip.MustParseAddr("127.0.0.2")}, {Addr: netip.MustParseAddr("127.0.0.3")}}}
		from := map[string]int{}
		for range 40 {
			c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			from[addrOf(c).String()]++
			defer c.Close()
		}
		if len(from) != 2 { // by chance in one of 10^12
			t.Errorf("%v: from %v", limits, from)
		}
	}
}

func addrOf(c net.Conn) netip.Addr { return c.LocalAddr().(*net.TCPAddr).AddrPort().Addr() }

func TestAnInterfaceThatIsGoneLeavesTheOthers(t *testing.T) {
	ln := echo(t)
	lo := dialer.Source{Addr: netip.MustParseAddr("127.0.0.1")}
	gone := dialer.Source{Interface: "gone9"}
	c, err := (&dialer.Dialer{Ledger: new(dialer.Ledger), Sources: []dialer.Source{gone, lo}}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	both := &dialer.Dialer{Ledger: new(dialer.Ledger), Sources: []dialer.Source{lo, gone}, Resolver: names{"both.example": {netip.IPv6Loopback(), lo.Addr}}}
	c, err = both.DialContext(t.Context(), "tcp", net.JoinHostPort("both.example", fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		t.Errorf("the name has an address that is reached without it: %v", err)
	} else {
		c.Close()
	}
	_, err = (&dialer.Dialer{Ledger: new(dialer.Ledger), Sources: []dialer.Source{gone}}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err == nil || !strings.Contains(err.Error(), `interface "gone9"`) {
		t.Errorf("got %v", err)
	}
}
