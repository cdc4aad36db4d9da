package dialer_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A lab is a network in virtual time with a NAT in front of it, and a ledger
// that knows the NAT's path. Every dial of the lab goes through the NAT.
type lab struct {
	*testing.T
	net    memnet.Network
	nat    *fauxnat.NAT
	ledger *dialer.Ledger
}

// inLab runs f in virtual time with n ports behind an App Service's NAT. In the
// end, everything must have come free again.
func inLab(t *testing.T, n int, f func(t *testing.T, lab *lab)) {
	t.Helper()
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
	onPath(t, path, f)
}

func onPath(t *testing.T, path netpath.Profile, f func(t *testing.T, lab *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{T: t}
		l.nat = &fauxnat.NAT{Path: path, Dial: l.net.DialContext}
		l.ledger = &dialer.Ledger{Path: path, Ramp: -1}
		f(t, l)
		time.Sleep(time.Hour)
		synctest.Wait()
		l.wantEmpty()
	})
}

// dialer returns a new owner of flows.
func (l *lab) dialer() *dialer.Dialer {
	return &dialer.Dialer{Ledger: l.ledger, Dial: l.nat.DialContext}
}

const server = "20.1.2.3:443" // public: not exempt

// serve listens and closes what it accepted when the client has closed.
func (l *lab) serve(addresses ...string) {
	for _, a := range addresses {
		ln, err := l.net.Listen(a)
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				l.Cleanup(func() { c.Close() }) // whose client's RST a black hole took
				go func() {
					io.Copy(io.Discard, c)
					c.Close()
				}()
			}
		}()
	}
}

func (l *lab) dial(d *dialer.Dialer, address string) *dialer.Conn {
	l.Helper()
	c, err := d.DialContext(l.Context(), "tcp", address)
	if err != nil {
		l.Fatal(err)
	}
	return c.(*dialer.Conn)
}

// account returns the one of an address, zero where there is none.
func (l *lab) account(address string) dialer.Account {
	for _, a := range l.ledger.Accounts() {
		if a.Key.Dest == netip.MustParseAddrPort(address) {
			return a
		}
	}
	return dialer.Account{}
}

func (l *lab) wantEmpty() {
	l.Helper()
	for _, a := range l.ledger.Accounts() {
		if a.Taken() > 0 || a.Exceeded == 0 { // which is kept
			l.Errorf("left behind: %v", a)
		}
	}
	if held := l.nat.Stats().Held; held > 0 {
		l.Errorf("the NAT holds %d ports in the end: the lab is wrong", held)
	}
}

// fits fails the test if the NAT holds what the ledger does not.
func (l *lab) fits() {
	l.Helper()
	taken := 0
	for _, a := range l.ledger.Accounts() {
		taken += a.Taken()
	}
	if held := l.nat.Stats().Held; held > taken {
		l.Errorf("the NAT holds %d ports, the ledger knows of %d", held, taken)
	}
}

// names is a resolver.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return n[host], nil
}

func addrs(ss ...string) (as []netip.Addr) {
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func park(t *testing.T, c *dialer.Conn) {
	t.Helper()
	if !c.Park(c.Turn()) {
		t.Fatal("not parked")
	}
}

func waited(since time.Time) time.Duration { return time.Since(since) }

var _ net.Conn = (*dialer.Conn)(nil)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }
