package natlab_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

var vip = netip.MustParseAddrPort("10.78.9.1:80")

// martians is how many packets the kernel has dropped because they came from an
// address of their receiver's: on the whole machine, since it was started.
func martians(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/stat/rt_cache")
	if err != nil {
		t.Skip(err) // a kernel that does not count
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "in_martian_src")
	if column < 0 {
		t.Fatalf("no in_martian_src in %q", lines[0])
	}
	for _, cpu := range lines[1:] {
		v, err := strconv.ParseUint(strings.Fields(cpu)[column], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		n += int(v)
	}
	return n
}

// backends are the client's port 8080, where somebody listens indeed, and port 81 of
// n-1 servers.
func (r *room) backends(n int) []netip.AddrPort {
	r.t.Helper()
	own, err := r.ListenClient(netip.AddrPortFrom(r.Client(0), 8080).String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { own.Close() })
	all := []netip.AddrPort{own.Addr().(*net.TCPAddr).AddrPort()}
	r.serve(":81")
	for i := range n - 1 {
		all = append(all, netip.AddrPortFrom(r.Server(i), 81))
	}
	return all
}

// tryAll dials many times at once and returns how often somebody answered.
func (r *room) tryAll(dials int, dst netip.AddrPort) (answered, hung int) {
	r.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for range dials {
		all.Go(func() {
			_, err := r.try(dst)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answered++
			case isTimeout(err):
				hung++
			default:
				r.t.Error(err)
			}
		})
	}
	all.Wait()
	return answered, hung
}

func TestAFlowThatTheBalancerGivesBackToItsClientIsAMartian(t *testing.T) {
	const dials = 96
	for n, hangs := range map[int]struct{ least, most int }{
		1: {dials, dials},
		2: {dials/2 - 30, dials/2 + 30}, // six standard deviations
		4: {dials/4 - 24, dials/4 + 26},
	} {
		t.Run(strconv.Itoa(n)+" backends", func(t *testing.T) {
			r := newRoom(t, 128, func(cfg *natlab.Config) { cfg.Servers = 4 })
			if err := r.Balance(vip, r.backends(n)...); err != nil {
				t.Fatal(err)
			}
			before := martians(t)
			answered, hung := r.tryAll(dials, vip)
			dropped := martians(t) - before
			t.Logf("%d answered, %d hung, %d martians", answered, hung, dropped)
			if hung < hangs.least || hung > hangs.most || answered+hung != dials {
				t.Errorf("%d answered and %d hung of %d, %d backends", answered, hung, dials, n)
			}
			if dropped < hung {
				t.Errorf("the kernel counts %d martians, and %d SYNs came back", dropped, hung)
			}
			if f := r.flows(); len(f) != 0 {
				t.Errorf("an account was asked: %v", f)
			}
		})
	}
}

func TestABackendSeesTheClientItself(t *testing.T) {
	r := newRoom(t, 1, nil)
	r.serve(":81")
	if err := r.Balance(vip, netip.AddrPortFrom(r.Server(0), 81)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the limit is no matter of the balancer's
		c, err := r.try(vip)
		if err != nil {
			t.Fatal(err)
		}
		s := <-r.accepted
		if s.RemoteAddr().String() != c.LocalAddr().String() || c.RemoteAddr().String() != vip.String() {
			t.Errorf("%v to %v is for the server %v to %v", c.LocalAddr(), c.RemoteAddr(), s.RemoteAddr(), s.LocalAddr())
		}
		if err := passes(s, c); err != nil {
			t.Error(err)
		}
	}
}

func TestAnotherAddressOfTheClientGetsThrough(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) { cfg.Clients = 2 })
	if err := r.Balance(vip, r.backends(1)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := natlab.DialFrom(r.Lab, ctx, &net.TCPAddr{IP: r.Client(1).AsSlice()}, "tcp", vip.String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := r.try(vip); !isTimeout(err) {
		t.Errorf("from its first address: %v, want silence", err)
	}

	// It is the gateway's translation that lets it through, not that it is another one.
	if _, err := r.Exec(t.Context(), "gateway", "nft", "flush set ip lab detours"); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	if _, err := natlab.DialFrom(r.Lab, soon, &net.TCPAddr{IP: r.Client(1).AsSlice()}, "tcp", vip.String()); !isTimeout(err) {
		t.Errorf("from its second address, untranslated: %v, want silence", err)
	}
}

func TestWhoDialsInTheGatewayMeetsTheBalancer(t *testing.T) {
	r := newRoom(t, 1, nil)
	backends := append(r.backends(1), netip.AddrPortFrom(r.Server(0), 81))
	for _, only := range backends {
		if err := r.Balance(vip, only); err != nil {
			t.Fatal(err)
		}
		var c net.Conn
		err := r.Inside("gateway", func() (err error) {
			c, err = net.DialTimeout("tcp", vip.String(), 5*time.Second)
			return err
		})
		if err != nil {
			t.Fatalf("%v: %v", only, err)
		}
		c.Close()
	}
}

func TestABalancerCanBeABlackHole(t *testing.T) {
	r := newRoom(t, 8, nil)
	r.serve(":81")
	backend := netip.AddrPortFrom(r.Server(0), 81)
	if err := r.Balance(vip, backend); err != nil {
		t.Fatal(err)
	}
	client, err := r.try(vip)
	if err != nil {
		t.Fatal(err)
	}
	server := <-r.accepted
	for _, hole := range []netip.AddrPort{vip, backend, {}} {
		if err := r.Blackhole(hole, true); err != nil {
			t.Fatal(err)
		}
		if err := passes(client, server); !isTimeout(err) {
			t.Errorf("%v, to the server: %v, want silence", hole, err)
		}
		if err := passes(server, client); !isTimeout(err) {
			t.Errorf("%v, to the client: %v, want silence", hole, err)
		}
		if _, err := r.try(vip); !isTimeout(err) {
			t.Errorf("%v, dial: %v, want silence", hole, err)
		}
		if err := r.Blackhole(hole, false); err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{client, server} { // what was swallowed comes when TCP tries again
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatalf("%v, after the hole: %v", hole, err)
			}
		}
		if _, err := r.try(vip); err != nil {
			t.Errorf("%v, dial after the hole: %v", hole, err)
		}
	}
}

func TestBalanceRefusesWhatCannotBe(t *testing.T) {
	r := newRoom(t, 1, nil)
	server := netip.AddrPortFrom(r.Server(0), 80)
	for what, err := range map[string]error{
		"a public address":      r.Balance(netip.MustParseAddrPort("203.0.113.7:80"), server),
		"the client's link":     r.Balance(netip.MustParseAddrPort("10.78.1.9:80"), server),
		"no backends":           r.Balance(vip),
		"a backend that nobody": r.Balance(vip, netip.AddrPortFrom(r.Server(1), 80)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
