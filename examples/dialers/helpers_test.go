package dialers_test

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/keepalive/netpath"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// patience is how long a test waits for what should come soon.
const patience = 10 * time.Second

// until asks again and again whether something is so.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for tooLong := time.After(patience); !done(); {
		select {
		case <-tooLong:
			t.Fatalf("after %v still not: %s", patience, what)
		case <-time.After(time.Millisecond):
		}
	}
}

// behindNAT returns a Dialer that stands behind a NAT with so many ports, which counts
// connections to loopback too.
func behindNAT(ports int) *dialer.Dialer {
	path := netpath.AzureLoadBalancer(ports)
	path.Exempt = netpath.NoExempt()
	return &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1, MaxWait: patience}}
}

// account is what d's ledger has booked for an address, nothing if it is not there.
func account(d *dialer.Dialer, addr string) dialer.Account {
	for _, a := range d.Ledger.Accounts() {
		if a.Key.Dest == netip.MustParseAddrPort(addr) {
			return a
		}
	}
	return dialer.Account{}
}

// cooling is how many of the account's ports are held by connections that have ended.
func cooling(a dialer.Account) (n int) {
	for _, ended := range a.Cooling {
		n += ended
	}
	return n
}

// A gate is a listener that can end all connections that it has accepted, as a server does
// that crashes.
type gate struct {
	net.Listener

	mu    sync.Mutex // guards the field below
	conns []net.Conn
}

func listen(t *testing.T) *gate {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: ln}
	t.Cleanup(g.crash)
	return g
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err == nil {
		g.mu.Lock()
		g.conns = append(g.conns, c)
		g.mu.Unlock()
	}
	return c, err
}

// addr is where it listens.
func (g *gate) addr() string { return g.Addr().String() }

// hangUp ends what it has accepted.
func (g *gate) hangUp() {
	g.mu.Lock()
	conns := g.conns
	g.conns = nil
	g.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// crash is the end of the listener too.
func (g *gate) crash() {
	g.Close()
	g.hangUp()
}
