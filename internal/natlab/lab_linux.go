package natlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The lab's addresses. Those of the servers and of the NAT are reserved for
// documentation (RFC 5737), and no profile takes them for private ones.
var (
	natAddr     = netip.MustParseAddr("203.0.113.1") // routed to the gateway, which does not own it
	gatewayAddr = netip.MustParseAddr("10.78.2.1")   // of what it sends to servers itself
	firstServer = netip.MustParseAddr("198.51.100.1")
	firstClient = netip.MustParseAddr("10.78.1.2")
)

const (
	maxServers = 250
	maxClients = 16
)

// The two cables. Files 3 and 4 are the client's namespace and the server's. The
// kernel is in no hurry to switch on a cable whose two ends have the same index:
// it may take a second. Hence other ones.
const (
	gatewayLinks = `
link set lo up
link add name inside index 101 type veth peer name eth0 netns /proc/self/fd/3
link add name outside index 102 type veth peer name eth0 netns /proc/self/fd/4
addr add 10.78.1.1/24 dev inside
addr add 10.78.2.1/24 dev outside
link set inside up
link set outside up
route add 198.51.100.0/24 via 10.78.2.2
`
	clientLinks = `
link set lo up
link set eth0 up
route add default via 10.78.1.1
`
	serverLinks = `
link set lo up
addr add 10.78.2.2/24 dev eth0
link set eth0 up
route add 203.0.113.0/24 via 10.78.2.1
route add 10.78.1.0/24 via 10.78.2.1
`
)

// A Lab is a client, a NAT and servers. It may be used by many goroutines.
// Whoever makes it ends it with Close.
type Lab struct {
	client, gateway, server namespace

	servers, clients int
	reuse, perSource bool
	words            map[string]string // what the rules' words stand for
	table            *table

	changes   sync.Mutex // one change of the rules at a time; held while nft runs
	accounts  atomic.Pointer[[]account]
	balancers atomic.Pointer[[]netip.AddrPort] // in the order of their numbers, from 1
}

// New builds a lab.
func New(cfg Config) (*Lab, error) {
	words, err := words(cfg)
	if err != nil {
		return nil, err
	}
	l := &Lab{
		servers: max(1, cfg.Servers), clients: max(1, cfg.Clients),
		reuse: cfg.Reuse, perSource: cfg.PerSource, words: words,
	}
	l.accounts.Store(new([]account))
	l.balancers.Store(new([]netip.AddrPort))
	if l.servers > maxServers {
		return nil, fmt.Errorf("natlab: %d servers, at most %d", l.servers, maxServers)
	}
	if l.clients > maxClients {
		return nil, fmt.Errorf("natlab: %d clients, at most %d", l.clients, maxClients)
	}
	if err := l.build(cfg); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(cfg Config) (err error) {
	for _, tool := range []string{"ip", "nft"} {
		if _, err := command(context.Background(), tool); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	for _, n := range []*namespace{&l.client, &l.gateway, &l.server} {
		if *n, err = newNamespace(); err != nil {
			return err
		}
	}
	if err := l.connect(); err != nil {
		return err
	}
	if err := l.nft(expand(gatewayRules, l.words, nil) + l.detours()); err != nil {
		return err
	}
	if err := l.tune(conntrack(cfg)); err != nil {
		return err
	}
	return l.gateway.do(func() error {
		l.table, err = openTable(cfg.Path.Effective().Hold.Idle > 0)
		return err
	})
}

// connect lays the cables and gives everybody an address.
func (l *Lab) connect() error {
	var servers, clients strings.Builder
	for i := range l.servers {
		fmt.Fprintf(&servers, "addr add %s/32 dev lo\n", l.Server(i))
	}
	for i := range l.clients {
		fmt.Fprintf(&clients, "addr add %s/24 dev eth0\n", l.Client(i))
	}
	peers := []namespace{l.client, l.server}
	if err := l.gateway.script(gatewayLinks, peers, "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := l.client.script(clients.String()+clientLinks, nil, "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := l.server.script(serverLinks+servers.String(), nil, "ip", "-batch", "-"); err != nil {
		return err
	}
	return errors.Join(l.client.running("eth0"), l.gateway.running("inside", "outside"), l.server.running("eth0"))
}

// A memory is how long conntrack knows a flow, in seconds.
type memory struct{ open, syn, fin, rst string }

func conntrack(cfg Config) memory {
	path := cfg.Path.Effective()
	if cfg.Reuse {
		// A port number is free when conntrack has forgotten its flow: neither
		// sooner nor later than the account.
		return memory{
			open: seconds(orElse(path.Idle, never)), syn: seconds(path.Hold.SYN),
			fin: seconds(path.Hold.FIN), rst: seconds(path.Hold.RST),
		}
	}
	// The accounts decide how long a flow lives, so conntrack must not; but what
	// it keeps for long counts against a limit of the whole machine.
	ended := seconds(time.Minute + 2*max(path.Hold.FIN, path.Hold.RST, path.Hold.SYN))
	return memory{open: seconds(never), syn: ended, fin: ended, rst: ended}
}

// seconds writes a duration as conntrack reads it, rounded up. Zero would kill
// every flow at once.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int((d+time.Second-1)/time.Second)))
}

// tune sets the kernel's parameters. Those of conntrack are there only after
// the rules, which load it.
func (l *Lab) tune(m memory) error {
	const all, in, out, tcp = "ipv4/conf/all/", "ipv4/conf/inside/", "ipv4/conf/outside/", "netfilter/nf_conntrack_tcp_"
	return errors.Join(
		l.client.set("1024 65535", "ipv4/ip_local_port_range"),
		l.gateway.set("1", "ipv4/ip_forward", tcp+"be_liberal"),
		l.gateway.set("0", all+"rp_filter", in+"rp_filter", out+"rp_filter"),
		l.gateway.set("0", all+"send_redirects", in+"send_redirects", out+"send_redirects"),
		l.gateway.set("0", tcp+"loose"), // a flow that conntrack meets in the middle is nobody's
		l.gateway.set(m.open, tcp+"timeout_established", tcp+"timeout_unacknowledged", tcp+"timeout_max_retrans"),
		l.gateway.set(m.syn, tcp+"timeout_syn_sent", tcp+"timeout_syn_recv"),
		l.gateway.set(m.fin, tcp+"timeout_fin_wait", tcp+"timeout_close_wait", tcp+"timeout_last_ack", tcp+"timeout_time_wait"),
		l.gateway.set(m.rst, tcp+"timeout_close"),
	)
}

// Close ends the lab. Connections and listeners that are still open are cut
// off; their namespaces go when they are closed. A second Close does nothing.
func (l *Lab) Close() error {
	var errs []error
	if l.table != nil {
		errs = append(errs, l.table.close())
	}
	for _, n := range []namespace{l.client, l.gateway, l.server} {
		if n.File == nil {
			continue
		}
		if err := n.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Server is the i-th address of the server, from zero. Nobody is at those
// beyond Config.Servers, which answer nothing.
func (l *Lab) Server(i int) netip.Addr {
	if i < 0 || i >= maxServers {
		panic(fmt.Sprintf("natlab: server %d, want 0 to %d", i, maxServers-1))
	}
	a := firstServer.As4()
	a[3] += byte(i)
	return netip.AddrFrom4(a)
}

// Client is the i-th address of the client, from zero. It has as many as
// Config.Clients says, and dials from the first if it does not choose.
func (l *Lab) Client(i int) netip.Addr {
	if i < 0 || i >= maxClients {
		panic(fmt.Sprintf("natlab: client %d, want 0 to %d", i, maxClients-1))
	}
	a := firstClient.As4()
	a[3] += byte(i)
	return netip.AddrFrom4(a)
}

// Dial opens a TCP connection from the client's namespace. The address is an IP
// and a port: there are no names here. The kernel's keepalive is off.
func (l *Lab) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return l.dialFrom(ctx, nil, network, address)
}

// dialFrom is Dial from an address and port of the client. Nil: the kernel
// chooses.
func (l *Lab) dialFrom(ctx context.Context, from net.Addr, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("natlab: dial: %w", err)
	}
	return dial(ctx, l.client, from, network, address)
}

func dial(ctx context.Context, n namespace, from net.Addr, network, address string) (net.Conn, error) {
	v, err := n.enter()
	if err != nil {
		return nil, err
	}
	d := net.Dialer{
		LocalAddr: from,
		KeepAlive: -1,
		// The socket is made and stays where it is. Waiting for the answer needs
		// no thread of ours.
		Control: func(string, string, syscall.RawConn) error { return v.leave() },
	}
	c, err := d.DialContext(ctx, network, address)
	if away := v.leave(); away != nil { // for where Control was never reached
		if c != nil {
			c.Close()
		}
		return nil, errors.Join(err, away)
	}
	return c, err
}

// Listen listens for TCP connections in the server's namespace and opens the
// account of its address, or of that port on every server if it has none. The
// kernel's keepalive is off: a server's probes would keep every flow known.
func (l *Lab) Listen(address string) (net.Listener, error) {
	ln, err := listen(l.server, address)
	if err != nil {
		return nil, err
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	dests := []netip.AddrPort{at}
	if at.Addr().IsUnspecified() {
		dests = nil
		for i := range l.servers {
			dests = append(dests, netip.AddrPortFrom(l.Server(i), at.Port()))
		}
	}
	for _, dst := range dests {
		if err := l.Count(dst); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
	}
	return ln, nil
}

// ListenClient listens in the client's namespace. It opens no account.
func (l *Lab) ListenClient(address string) (net.Listener, error) {
	return listen(l.client, address)
}

func listen(n namespace, address string) (ln net.Listener, err error) {
	cfg := net.ListenConfig{KeepAlive: -1}
	cfg.SetMultipathTCP(false) // a peer that nobody need know anything about
	err = n.do(func() error {
		ln, err = cfg.Listen(context.Background(), "tcp4", address)
		return err
	})
	return ln, err
}

// Inside calls f in a namespace, "client", "gateway" or "server". The sockets
// that f opens and the processes that it starts, on its own goroutine, stay
// there.
func (l *Lab) Inside(ns string, f func() error) error {
	n, err := l.namespace(ns)
	if err != nil {
		return err
	}
	return n.do(f)
}

// Exec runs a command in a namespace, "client", "gateway" or "server", until it
// ends or ctx does, and returns what it wrote. It dies with this process.
func (l *Lab) Exec(ctx context.Context, ns, name string, args ...string) (string, error) {
	n, err := l.namespace(ns)
	if err != nil {
		return "", err
	}
	cmd, err := command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	return n.run(cmd)
}

func (l *Lab) namespace(ns string) (namespace, error) {
	n, ok := map[string]namespace{"client": l.client, "gateway": l.gateway, "server": l.server}[ns]
	if !ok {
		return n, fmt.Errorf("natlab: namespace %q, want client, gateway or server", ns)
	}
	return n, nil
}
