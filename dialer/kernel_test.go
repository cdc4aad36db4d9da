package dialer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A kernel is a NAT of the kernel's with the ledger that knows its path.
type kernel struct {
	*natlab.Lab
	t      *testing.T
	ln     net.Listener
	ledger *dialer.Ledger
	ended  chan dialer.Event
}

func inKernel(t *testing.T, limit, servers int) *kernel {
	t.Helper()
	t.Parallel()
	path := netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: limit}},
		Idle:   time.Minute,
		Hold:   netpath.Hold{FIN: 2 * time.Second, RST: 1500 * time.Millisecond, SYN: 2 * time.Second, Idle: netpath.None},
	}
	lab := natlab.Need(t, natlab.Config{Path: path, Room: 4 * limit, Servers: servers})
	ln, err := lab.Listen(":443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &kernel{lab, t, ln, &dialer.Ledger{Path: path, Ramp: -1, MaxWait: 100 * time.Millisecond}, make(chan dialer.Event, 64)}
}

func (k *kernel) dialer(resolver names) *dialer.Dialer {
	return &dialer.Dialer{Ledger: k.ledger, Dial: k.Dial, Resolver: resolver, Observe: func(e dialer.Event) {
		if e.Kind == dialer.Ended {
			k.ended <- e
		}
	}}
}

// open returns both ends of a connection.
func (k *kernel) open(d *dialer.Dialer, address string) (near *dialer.Conn, far *net.TCPConn) {
	k.t.Helper()
	c, err := d.DialContext(k.t.Context(), "tcp", address)
	if err != nil {
		k.t.Fatal(err)
	}
	s, err := k.ln.Accept()
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*dialer.Conn), s.(*net.TCPConn)
}

func (k *kernel) flows() []natlab.Flow {
	k.t.Helper()
	flows, err := k.Flows(nil)
	if err != nil {
		k.t.Fatal(err)
	}
	return flows
}

// addresses are the first n of the servers.
func (k *kernel) addresses(n int) (as []netip.Addr) {
	for i := range n {
		as = append(as, k.Server(i))
	}
	return as
}

func TestTheGatewayCountsTwoNamesOnOneAddressTogether(t *testing.T) {
	k := inKernel(t, 8, 1)
	d := k.dialer(names{"a.example": k.addresses(1), "b.example": k.addresses(1)})
	for range 3 {
		k.open(d, "a.example:443")
		k.open(d, "b.example:443")
	}
	flows, accounts := k.flows(), k.ledger.Accounts()
	if len(flows) != 6 || len(accounts) != 1 || accounts[0].Active != 6 {
		t.Errorf("the gateway knows %d flows, the ledger %v", len(flows), accounts)
	}
}

func TestTheGatewayGivesANameWithFourAddressesFourTimesTheFlows(t *testing.T) {
	k := inKernel(t, 5, 4)
	d := k.dialer(names{"api.example": k.addresses(4)})
	for range 20 {
		k.open(d, name)
	}
	if c, err := d.DialContext(t.Context(), "tcp", name); !errors.Is(err, dialer.ErrBudget) {
		if err == nil {
			c.Close()
		}
		t.Errorf("the 21st: %v", err)
	}
	by := make(map[netip.AddrPort]int)
	for _, f := range k.flows() {
		by[f.Dest]++
	}
	for i := range 4 {
		if n := by[netip.AddrPortFrom(k.Server(i), 443)]; n != 5 {
			t.Errorf("the gateway knows %d flows to server %d, want 5", n, i)
		}
	}
	if counts, err := k.Counts(); err != nil || counts.Refused != 0 || counts.Admitted != 20 {
		t.Errorf("the gateway says %+v, %v", counts.Tally, err)
	}
}

func TestExemptDestinationsAreKeptAliveAndNotCounted(t *testing.T) {
	k := inKernel(t, 1, 1)
	k.ledger.Path.Exempt = []netip.Prefix{netip.PrefixFrom(k.Server(0), 32)}
	d := k.dialer(nil)
	for range 3 {
		c, _ := k.open(d, netip.AddrPortFrom(k.Server(0), 443).String())
		wantProbes(t, c, keepalive.For(k.ledger.Path))
	}
	if as := k.ledger.Accounts(); len(as) > 0 {
		t.Errorf("booked: %v", as)
	}
	if n := len(k.flows()); n != 3 {
		t.Errorf("the gateway knows %d flows: the lab shows nothing", n)
	}
}

func TestEndSoonestThroughTLSIsARSTAtTheGateway(t *testing.T) {
	k := inKernel(t, 1, 1) // scarce
	client, server := certified(t)
	near, far := k.open(k.dialer(nil), netip.AddrPortFrom(k.Server(0), 443).String())
	served := make(chan error, 1)
	go func() {
		s := tls.Server(far, server)
		_, err := io.CopyN(s, s, 4)
		served <- err
	}()
	c := tls.Client(near, client)
	c.Write([]byte("ping"))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if got := c.ConnectionState().Version; got != tls.VersionTLS13 {
		t.Fatalf("TLS version %x", got)
	}
	inner, ok := dialer.Unwrap(c)
	if !ok {
		t.Fatal("not found below TLS")
	}
	acknowledged(t, inner)
	inner.EndSoonest()
	c.Close() // writes a goodbye
	e := <-k.ended
	if e.Ending != (keepalive.Ending{How: keepalive.RSTByUs}) {
		t.Errorf("ended as %v %+v", e.Ending.How, e.Ending)
	}
	flows := k.flows() // the RST may still be on its way
	for deadline := time.Now().Add(time.Second); len(flows) == 1 && flows[0].State == natlab.Open && time.Now().Before(deadline); {
		flows = k.flows()
	}
	if len(flows) != 1 || flows[0].State != natlab.Reset {
		t.Errorf("the gateway knows %+v", flows)
	}
	if a := k.ledger.Accounts(); len(a) != 1 || a[0].Cooling[keepalive.RSTByUs] != 1 {
		t.Errorf("the ledger knows %v", a)
	}
}

func TestAPortIsHeldFromTheLaterFIN(t *testing.T) {
	k := inKernel(t, 1, 1)
	k.ledger.MaxWait = -1
	d, at := k.dialer(nil), netip.AddrPortFrom(k.Server(0), 443).String()
	near, far := k.open(d, at)
	local := near.LocalAddr().(*net.TCPAddr).AddrPort()
	near.Close()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	late := time.Second // of the hold's 2 s
	time.AfterFunc(late, func() { far.Close() })
	closed := time.Now()
	reserved := make(chan error, 1)
	go func() {
		r, err := d.Reserve(context.WithoutCancel(t.Context()), "tcp", at)
		if err == nil {
			r.Release()
		}
		reserved <- err
	}()
	// As often as it can be asked, the gateway's table is within the ledger's.
	// The ledger is asked last, and must know what the gateway knew before.
	for {
		flows := k.flows()
		booked := false
		for _, f := range k.ledger.Flows() {
			booked = booked || f.Local == local
		}
		if len(flows) > 0 && !booked {
			t.Fatalf("%v after Close the gateway holds %+v and the ledger does not", time.Since(closed), flows)
		}
		select {
		case err := <-reserved:
			if took := time.Since(closed); err != nil || took < late+2*time.Second {
				t.Errorf("the port came back after %v: %v", took, err)
			}
			if flows := k.flows(); len(flows) > 0 {
				t.Errorf("the gateway still holds %+v", flows)
			}
			return
		case <-time.After(5 * time.Millisecond): // a sample
		}
	}
}
