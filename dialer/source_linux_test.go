package dialer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestASourceIsForWhatItSays(t *testing.T) {
	everywhere, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	_, port, _ := net.SplitHostPort(everywhere.Addr().String())
	from := func(addr string, prefixes ...string) (s dialer.Source) {
		if addr != "" {
			s.Addr = netip.MustParseAddr(addr)
		}
		for _, p := range prefixes {
			s.For = append(s.For, netip.MustParsePrefix(p))
		}
		return s
	}
	for _, test := range []struct {
		name    string
		sources []dialer.Source
		to      map[string]string // where from, by where to
	}{
		{"one for all", []dialer.Source{from("127.0.0.2")}, map[string]string{"127.0.0.1": "127.0.0.2", "127.1.0.1": "127.0.0.2"}},
		{"mapped", []dialer.Source{from("::ffff:127.0.0.2")}, map[string]string{"127.0.0.1": "127.0.0.2"}},
		{"the particular one first",
			[]dialer.Source{from("127.0.0.3"), from("127.0.0.2", "127.1.0.0/16", "127.2.0.0/16")},
			map[string]string{"127.0.0.1": "127.0.0.3", "127.1.0.1": "127.0.0.2", "127.2.0.9": "127.0.0.2", "127.3.0.1": "127.0.0.3"}},
		{"one that is for elsewhere binds nobody", []dialer.Source{from("127.0.0.2", "127.1.0.0/16")},
			map[string]string{"127.0.0.1": "127.0.0.1", "127.1.0.1": "127.0.0.2"}},
		{"nor does one of another family", []dialer.Source{from("2001:db8::1", "2001:db8::/32")},
			map[string]string{"127.0.0.1": "127.0.0.1"}},
		{"the system may choose for some", []dialer.Source{from("127.0.0.2"), from("", "127.1.0.0/16")},
			map[string]string{"127.0.0.1": "127.0.0.2", "127.1.0.1": "127.0.0.1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &dialer.Dialer{Ledger: new(dialer.Ledger), Sources: test.sources}
			for to, want := range test.to {
				c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(to, port))
				if err != nil {
					t.Errorf("to %s: %v", to, err)
					continue
				}
				if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != want {
					t.Errorf("to %s: from %s, want %s", to, got, want)
				}
				c.Close()
			}
		})
	}
}

func TestASourceThatCannotBeIsNamed(t *testing.T) {
	ln := echo(t)
	for _, test := range []struct {
		source dialer.Source
		says   string
	}{
		{dialer.Source{Interface: "no-such-card"}, `"no-such-card"`},
		{dialer.Source{Interface: "no-such-card", Addr: netip.MustParseAddr("127.0.0.1")}, `"no-such-card"`},
		{dialer.Source{Addr: netip.MustParseAddr("192.0.2.1")}, "192.0.2.1"}, // nobody's here
		{dialer.Source{For: make([]netip.Prefix, 1)}, "Sources[0].For"},
	} {
		d := &dialer.Dialer{Ledger: counting(), Sources: []dialer.Source{test.source}}
		_, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v, want %q", test.source, err, test.says)
		}
		if v := dialer.VerdictOf(err); v != dialer.Unknown {
			t.Errorf("%+v: the verdict is %v", test.source, v)
		}
		if as := d.Ledger.Accounts(); len(as) > 0 {
			t.Errorf("%+v: no SYN was sent, and booked is %v", test.source, as)
		}
	}
}

// boundTo is the interface that a connection may use only; empty: any.
func boundTo(t *testing.T, c net.Conn) (device string) {
	t.Helper()
	raw, err := c.(*dialer.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { device, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE) })
	if err != nil {
		t.Error(err)
	}
	return device
}

// Nobody needs to be root for that since Linux 5.7, so the test is the parent of one who is not.
func TestAFlowLeavesByAnInterface(t *testing.T) {
	const child = "DIALER_TEST_NOBODY"
	if os.Getenv(child) == "" && os.Getuid() == 0 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		switch {
		case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EINVAL): // in a user namespace that has nobody else
			t.Log(err)
		case err != nil || !strings.Contains(string(out), "--- PASS"):
			t.Errorf("as nobody: %v\n%s", err, out)
		}
	}
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Logf("%s: %v", at, err)
			continue
		}
		defer ln.Close()
		for _, addr := range []netip.Addr{{}, ln.Addr().(*net.TCPAddr).AddrPort().Addr()} {
			d := &dialer.Dialer{Ledger: counting(), Sources: []dialer.Source{{Interface: "lo", Addr: addr}}}
			c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				continue
			}
			if got := boundTo(t, c); got != "lo" {
				t.Errorf("%s: bound to %q", at, got)
			}
			c.Close()
		}
	}
}

// inside is set in the environment of a test that runs in a lab's client.
const inside = "DIALER_TEST_INSIDE"

// inClient runs the test again, as a process of its own, in the client's namespace.
func inClient(t *testing.T, lab *natlab.Lab) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := lab.Exec(ctx, "client", "env", inside+"=1", self, "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	if err != nil || !strings.Contains(out, "--- PASS") {
		t.Errorf("inside: %v\n%s", err, out)
	}
}

// hold accepts connections and keeps them until the other end closes.
func hold(t *testing.T, ln net.Listener) {
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
}

// What these labs have.
var (
	service = netip.MustParseAddrPort("198.51.100.1:443")
	another = netip.MustParseAddrPort("198.51.100.2:443")
	own     = []netip.Addr{netip.MustParseAddr("10.78.1.2"), netip.MustParseAddr("10.78.1.3")}
)

// dialAll dials until it fails, and returns what stopped it.
func dialAll(t *testing.T, d *dialer.Dialer, to netip.AddrPort, most int) (conns []net.Conn, err error) {
	t.Helper()
	for len(conns) < most {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		var c net.Conn
		c, err = d.DialContext(ctx, "tcp", to.String())
		cancel()
		if err != nil {
			return conns, err
		}
		t.Cleanup(func() {
			c.(*dialer.Conn).Conn.EndSoonest() // by RST: its local port is free at once
			c.Close()
		})
		conns = append(conns, c)
	}
	return conns, nil
}

func TestEachDestinationHasAllLocalPortsOfEachSource(t *testing.T) {
	const ports = 16 // even: connect looks at as many pairs, and so misses one of 17 by chance
	if os.Getenv(inside) == "" {
		t.Parallel()
		lab := natlab.Need(t, natlab.Config{Room: 1024, Servers: 2, Clients: 2})
		ln, err := lab.Listen(":443")
		if err != nil {
			t.Fatal(err)
		}
		hold(t, ln)
		err = lab.Inside("client", func() error {
			return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "40000 %d", 40000+ports-1), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		inClient(t, lab)
		return
	}
	for _, at := range []string{"[::1]:1443", "[::1]:2443"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		hold(t, ln)
	}
	for name, test := range map[string]struct {
		sources []dialer.Source
		to      []netip.AddrPort
		want    int
	}{
		"the system's choice": {nil, []netip.AddrPort{service, another}, ports},
		"one address":         {[]dialer.Source{{Addr: own[1]}}, []netip.AddrPort{service, another}, ports},
		"one interface":       {[]dialer.Source{{Interface: "eth0"}}, []netip.AddrPort{service, another}, ports},
		"two addresses":       {[]dialer.Source{{Addr: own[0]}, {Addr: own[1]}}, []netip.AddrPort{service, another}, 2 * ports},
		"of IPv6": {[]dialer.Source{{Addr: netip.IPv6Loopback()}},
			[]netip.AddrPort{netip.MustParseAddrPort("[::1]:1443"), netip.MustParseAddrPort("[::1]:2443")}, ports},
	} {
		t.Run(name, func(t *testing.T) {
			d := &dialer.Dialer{Ledger: new(dialer.Ledger), Sources: test.sources}
			for _, to := range test.to {
				conns, err := dialAll(t, d, to, 2*ports+1)
				if len(conns) != test.want {
					t.Errorf("%d connections to %v, want %d: %v", len(conns), to, test.want, err)
				}
				if dialer.VerdictOf(err) != dialer.LocalPorts || !strings.Contains(err.Error(), "local-ports (net.ipv4.ip_local_port_range has 16") {
					t.Errorf("the next to %v: %v", to, err)
				}
			}
		})
	}
}

func TestSourcesAreAddedUpWhereTheNATCountsThem(t *testing.T) {
	path := netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.SourceDestination, N: 8}},
		Hold:   netpath.Hold{FIN: 2 * time.Second, RST: 2 * time.Second, SYN: 2 * time.Second, Idle: netpath.None},
	}
	if os.Getenv(inside) == "" {
		t.Parallel()
		lab := natlab.Need(t, natlab.Config{Path: path, PerSource: true, Servers: 2, Clients: 2})
		ln, err := lab.Listen(":443")
		if err != nil {
			t.Fatal(err)
		}
		hold(t, ln)
		inClient(t, lab)
		counts, err := lab.Counts()
		if one, two := counts.By[service], counts.By[another]; err != nil || two.Admitted != 2*one.Admitted || one.Admitted < 6 || counts.Refused != 0 {
			t.Errorf("the gateway counts %+v: %v", counts, err)
		}
		return
	}
	for i, to := range []netip.AddrPort{service, another} {
		d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1, MaxWait: 50 * time.Millisecond}}
		for _, a := range own[:i+1] {
			d.Sources = append(d.Sources, dialer.Source{Addr: a})
		}
		conns, err := dialAll(t, d, to, 100)
		if !errors.Is(err, dialer.ErrBudget) || dialer.VerdictOf(err) != dialer.Exhausted {
			t.Errorf("after %d: %v", len(conns), err)
		}
		from := make(map[string]int)
		for _, c := range conns {
			from[c.LocalAddr().(*net.TCPAddr).IP.String()]++
		}
		if n := from[own[0].String()]; len(from) != i+1 || n*(i+1) != len(conns) {
			t.Errorf("dialed from %v", from)
		}
	}
}

func TestAnInterfaceWithoutAnAddressOfTheFamilyLeadsNowhere(t *testing.T) {
	if os.Getenv(inside) == "" {
		t.Parallel()
		lab := natlab.Need(t, natlab.Config{Room: 1024})
		ln, err := lab.Listen(":443")
		if err != nil {
			t.Fatal(err)
		}
		hold(t, ln)
		inClient(t, lab)
		return
	}
	d := &dialer.Dialer{
		Ledger:   new(dialer.Ledger),
		Sources:  []dialer.Source{{Interface: "eth0"}},
		Resolver: names{"service.example": {netip.MustParseAddr("2001:db8::1"), service.Addr()}},
	}
	if _, err := d.DialContext(t.Context(), "tcp", "[2001:db8::1]:443"); err == nil || !strings.Contains(err.Error(), "Dialer.Sources") {
		t.Errorf("by IPv6: %v", err)
	}
	c, err := d.DialContext(t.Context(), "tcp", "service.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := boundTo(t, c); got != "eth0" || c.LocalAddr().(*net.TCPAddr).AddrPort().Addr() != own[0] {
		t.Errorf("from %v by %q", c.LocalAddr(), got)
	}
}

func TestAMachineWithoutIPv6LacksNoPorts(t *testing.T) {
	if os.Getenv(inside) == "" {
		t.Parallel()
		inClient(t, natlab.Need(t, natlab.Config{}))
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Skip(err)
	}
	d := &dialer.Dialer{Ledger: new(dialer.Ledger)}
	if _, err := d.DialContext(t.Context(), "tcp", "[::1]:443"); dialer.VerdictOf(err) != dialer.Unreachable {
		t.Errorf("got %v", err)
	}
}

// keys is a budget that remembers about what it was asked.
type keys struct{ asked []netpath.Key }

func (b *keys) Take(k netpath.Key) (budget.Grant, bool) {
	b.asked = append(b.asked, k)
	return budget.PerKey(1).Take(k)
}

func (b *keys) Notify(chan<- struct{}) {}

func TestABudgetIsAskedForTheDestinationOfAllSources(t *testing.T) {
	path := netpath.Unknown()
	path.Exempt = netpath.NoExempt()
	path.Limits = []netpath.Limit{{Scope: netpath.SourceDestination, N: 64}, {Scope: netpath.Destination, N: 128}}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	b := new(keys)
	d := &dialer.Dialer{
		Ledger:  &dialer.Ledger{Path: path, Budget: b},
		Sources: []dialer.Source{{Addr: netip.MustParseAddr("127.0.0.2")}},
	}
	c, err := d.DialContext(t.Context(), "tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(b.asked) != 1 || b.asked[0].Scope() != netpath.Destination {
		t.Errorf("it was asked about %v", b.asked)
	}
}
