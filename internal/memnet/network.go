// Package memnet is a TCP-like network in memory, for tests in virtual time.
//
// Inside a testing/synctest bubble a test may wait 240 s in no time, but only
// while every goroutine waits for something of the bubble. A real socket is
// not, and net.Pipe is no TCP: it has no buffer, no FIN, no RST, no port.
// memnet has those, on channels, conditions and timers only, without a
// goroutine of its own:
//
//	var n memnet.Network
//	l, err := n.Listen("20.1.2.3:443")
//	...
//	c, err := n.DialContext(ctx, "tcp", "20.1.2.3:443")
//
// It resolves no names, loses and reorders nothing (black holes aside), and
// has no TIME_WAIT, no keepalive probes and no user timeout.
package memnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Network connects its own listeners and dialers, and nobody else. The zero
// Network is ready to use, by many goroutines. It must not be copied, and its
// fields are set before the first use.
type Network struct {
	Latency  time.Duration // of each segment, one way
	ClientIP netip.Addr    // where dials come from; zero: 127.0.0.1

	mu    sync.Mutex // guards the fields below and every conn; nothing blocks under it but cond.Wait
	hosts map[netip.AddrPort]*host
	open  map[tuple]*conn // both ends of each connection, until they are closed
	port  uint16          // the last that was given to a dial or listener
}

// A host is one address and port, with or without somebody listening.
type host struct {
	listener *listener     // nil: dials are refused
	hole     chan struct{} // not nil: a black hole; closed when it heals
}

// A tuple is one end of a connection, as that end sees it.
type tuple struct{ local, remote netip.AddrPort }

// The ports that Linux gives to dials (net.ipv4.ip_local_port_range).
const firstPort, lastPort = 32768, 60999

// Listen returns a listener on an IP address and port; port 0 picks a free one.
func (n *Network) Listen(address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = n.freePortLocked(at.Addr(), func(a netip.AddrPort) bool { return n.hostLocked(a).listener == nil })
	}
	h := n.hostLocked(at)
	if at.Port() == 0 || h.listener != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(at), Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	h.listener = &listener{net: n, host: h, addr: at, cond: sync.NewCond(&n.mu)}
	return h.listener, nil
}

// DialContext connects to an IP address and port. It is refused where nobody
// listens, and hangs until ctx ends or the address heals where a black hole is.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		op := &net.OpError{Op: "dial", Net: network, Err: err}
		if at, err := netip.ParseAddrPort(address); err == nil {
			op.Addr = net.TCPAddrFromAddrPort(at)
		}
		return nil, op
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fail(err)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if err := n.travel(ctx, at); err != nil {
		return fail(err)
	}
	c, refused := n.connect(at)
	if err := n.travel(ctx, at); err != nil {
		if c != nil {
			c.SetLinger(0)
			c.Close()
		}
		return fail(err)
	}
	if refused != nil {
		return fail(os.NewSyscallError("connect", refused))
	}
	return c, nil
}

// BlackHole swallows everything to and from an address until Heal. Nobody is
// told.
func (n *Network) BlackHole(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hostLocked(netip.MustParseAddrPort(address)); h.hole == nil {
		h.hole = make(chan struct{})
	}
}

// Heal ends a black hole. What was sent meanwhile arrives, as TCP would have
// sent it again; only a RST is lost for good.
func (n *Network) Heal(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hostLocked(netip.MustParseAddrPort(address))
	if h.hole == nil {
		return
	}
	close(h.hole)
	h.hole = nil
	for _, c := range n.open {
		if c.host == h {
			c.arriveLocked()
			c.peer.arriveLocked() // it may be closed, and owe a RST
		}
	}
}

// travel takes as long as a segment of a handshake to or from at.
func (n *Network) travel(ctx context.Context, at netip.AddrPort) error {
	arrival := time.NewTimer(n.Latency)
	defer arrival.Stop()
	for ctx.Err() == nil {
		n.mu.Lock()
		hole := n.hostLocked(at).hole
		n.mu.Unlock()
		timer := arrival.C
		if hole != nil {
			timer = nil
		}
		select {
		case <-ctx.Done():
		case <-hole:
		case <-timer:
			return nil
		}
	}
	return &cutShort{ctx.Err(), context.Cause(ctx)}
}

// connect makes both ends and queues the far one for Accept.
func (n *Network) connect(at netip.AddrPort) (*conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hostLocked(at)
	if h.listener == nil {
		return nil, syscall.ECONNREFUSED
	}
	from := n.ClientIP
	if !from.IsValid() {
		from = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	local := n.freePortLocked(from, func(a netip.AddrPort) bool { return n.open[tuple{a, at}] == nil })
	if local.Port() == 0 {
		return nil, syscall.EADDRNOTAVAIL
	}
	near := &conn{net: n, host: h, id: tuple{local, at}, cond: sync.NewCond(&n.mu)}
	far := &conn{net: n, host: h, id: tuple{at, local}, cond: sync.NewCond(&n.mu), peer: near}
	near.peer = far
	if n.open == nil {
		n.open = make(map[tuple]*conn)
	}
	n.open[near.id], n.open[far.id] = near, far
	h.listener.backlog = append(h.listener.backlog, far)
	h.listener.cond.Signal()
	return near, nil
}

func (n *Network) hostLocked(at netip.AddrPort) *host {
	h := n.hosts[at]
	if h == nil {
		if n.hosts == nil {
			n.hosts = make(map[netip.AddrPort]*host)
		}
		h = new(host)
		n.hosts[at] = h
	}
	return h
}

// freePortLocked returns the next port that is free, as far as possible from
// its last use; port 0 if none is.
func (n *Network) freePortLocked(ip netip.Addr, free func(netip.AddrPort) bool) netip.AddrPort {
	for range lastPort - firstPort + 1 {
		if n.port++; n.port < firstPort || n.port > lastPort {
			n.port = firstPort
		}
		if a := netip.AddrPortFrom(ip, n.port); free(a) {
			return a
		}
	}
	return netip.AddrPortFrom(ip, 0)
}

// cutShort is why a dial ended early. Both the context's error and its cause
// are found in it, and Timeout is the kernel's.
type cutShort struct{ err, cause error }

func (e *cutShort) Error() string   { return e.cause.Error() }
func (e *cutShort) Unwrap() []error { return []error{e.err, e.cause} }
func (e *cutShort) Timeout() bool   { return errors.Is(e.err, context.DeadlineExceeded) }

// A listener accepts what was dialed to its address.
type listener struct {
	net  *Network
	host *host
	addr netip.AddrPort
	cond *sync.Cond // on net.mu, for the fields below

	backlog []*conn
	closed  bool
}

var _ net.Listener = (*listener)(nil)

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (l *listener) Accept() (net.Conn, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for len(l.backlog) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	c := l.backlog[0]
	l.backlog = l.backlog[1:]
	return c, nil
}

// Close frees the address and resets what nobody has accepted.
func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.closed, l.host.listener = true, nil
	for _, c := range l.backlog {
		c.closeLocked(true)
	}
	l.backlog = nil
	l.cond.Broadcast()
	return nil
}
