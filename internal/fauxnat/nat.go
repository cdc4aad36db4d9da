package fauxnat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A NAT keeps a table of the flows that are dialed through it. Path is all that
// it needs; it may be used by many goroutines, and must not be copied. Its
// fields are set before the first dial.
type NAT struct {
	Path netpath.Profile // what it imitates, Sharers included

	// Dial is what lies behind it. Nil: the kernel, by a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Source is where its clients dial from, for limits that count sources.
	// Zero: 127.0.0.1.
	Source netip.Addr

	// Hosts are names that it knows by itself, as /etc/hosts does. Others are
	// asked of net.DefaultResolver, which is no thing for virtual time.
	Hosts map[string]netip.Addr

	once sync.Once
	path netpath.Profile // Path, once and for all, with nothing unknown

	mu       sync.Mutex // guards the fields below, flows and conns; no I/O under it
	accounts map[netpath.Key]*account
	total    account
	flows    map[*flow]struct{}
	schedule schedule // the flows that time will change
}

// Counts tells about one account, or about all flows together.
type Counts struct {
	Held        int // flows now, live or closing
	Live        int // flows now that can carry data, or are being dialed
	Peak        int // the most that were held at a time
	Opened      int // flows, counted from their SYN
	RefusedSYNs int // SYNs dropped for want of a port, each retransmission too
	Astray      int // conns that the client has open now and that lead nowhere: their flow is forgotten, dark or lied to
	Strayed     int // conns that came to that
}

// Stats is a snapshot of a NAT.
type Stats struct {
	Counts   // of all flows; one that owes several accounts is one flow
	Accounts map[netpath.Key]Counts
}

// A Flow is a line of the NAT's table.
type Flow struct {
	Source  netip.AddrPort // zero while it is dialed, and if the dial failed
	Dest    netip.AddrPort
	Asked   bool      // the last byte was the client's: it waits for an answer
	Closing bool      // its port is only held
	Until   time.Time // when the port comes free, or a silent flow is forgotten; zero: never
}

// DialContext connects through the NAT. Its SYN is dropped while an account of
// the destination is full, and sent again as Linux does; so a dial waits for a
// port until ctx ends, or for 127 s. What is not TCP passes uncounted.
func (n *NAT) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.once.Do(n.start)
	dial := n.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if !strings.HasPrefix(network, "tcp") {
		return dial(ctx, network, address)
	}
	dst, err := n.resolve(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	keys := n.path.Keys(nil, n.source(), dst, network)
	if len(keys) == 0 { // exempt
		return dial(ctx, network, dst.String())
	}
	f, err := n.knock(ctx, keys, dst)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	start := time.Now()
	inner, err := dial(ctx, network, dst.String())
	if err != nil {
		n.failed(f, start, err)
		return nil, err
	}
	return n.opened(f, inner), nil
}

// Stats returns what is held now, and the counters.
func (n *NAT) Stats() Stats {
	n.once.Do(n.start)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked()
	s := Stats{n.total.Counts, make(map[netpath.Key]Counts, len(n.accounts))}
	for key, a := range n.accounts {
		s.Accounts[key] = a.Counts
	}
	return s
}

// ResetStats lets the counters start from zero and the peaks from what is held.
func (n *NAT) ResetStats() {
	n.once.Do(n.start)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked()
	reset := func(c *Counts) { *c = Counts{Held: c.Held, Live: c.Live, Peak: c.Held, Astray: c.Astray} }
	reset(&n.total.Counts)
	for _, a := range n.accounts {
		reset(&a.Counts)
	}
}

// Flows returns the table, by source.
func (n *NAT) Flows() []Flow {
	n.once.Do(n.start)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked()
	flows := make([]Flow, 0, len(n.flows))
	for f := range n.flows {
		flows = append(flows, Flow{f.src, f.dst, f.asked, f.state == closing, n.untilLocked(f)})
	}
	slices.SortFunc(flows, func(a, b Flow) int {
		return cmp.Or(a.Source.Compare(b.Source), a.Dest.Compare(b.Dest), a.Until.Compare(b.Until))
	})
	return flows
}

func (n *NAT) start() {
	n.path = n.Path.Effective()
	n.accounts = make(map[netpath.Key]*account)
	n.flows = make(map[*flow]struct{})
}

func (n *NAT) source() netip.Addr {
	if n.Source.IsValid() {
		return n.Source
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func (n *NAT) resolve(ctx context.Context, network, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip, known := n.Hosts[host]
	if !known {
		ip, err = netip.ParseAddr(host)
	}
	if err != nil {
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return netip.AddrPort{}, err
		}
		ip = ips[0]
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// knock sends SYNs until one passes, and books its flow.
func (n *NAT) knock(ctx context.Context, keys []netpath.Key, dst netip.AddrPort) (*flow, error) {
	if ctx.Err() != nil {
		return nil, &cutShort{ctx.Err(), context.Cause(ctx)}
	}
	again := time.NewTimer(0)
	defer again.Stop()
	for try := range len(syns) {
		if f := n.syn(keys, dst); f != nil {
			return f, nil
		}
		again.Reset(syns[try])
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, &cutShort{ctx.Err(), context.Cause(ctx)}
		}
	}
	return nil, syscall.ETIMEDOUT
}

// syns is how long Linux waits after each SYN: those with tcp_syn_retries 6,
// and before 6.5 made the first few linear (tcp_syn_linear_timeouts).
var syns = [...]time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second,
	16 * time.Second, 32 * time.Second, 64 * time.Second}

// syn books a flow if every account has room for it; nil: it was dropped.
func (n *NAT) syn(keys []netpath.Key, dst netip.AddrPort) *flow {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked()
	f := &flow{nat: n, dst: dst, ports: []*account{&n.total}, index: -1}
	for _, key := range keys {
		a := n.accounts[key]
		if a == nil {
			a = &account{limit: n.path.Limit(key.Scope())}
			n.accounts[key] = a
		}
		if key.Scope() == netpath.Sockets {
			f.sockets = append(f.sockets, a)
		} else {
			f.ports = append(f.ports, a)
		}
	}
	if !n.bookLocked(f, slices.Concat(f.ports, f.sockets)) {
		return nil
	}
	return f
}

// failed books the end of a dial that began at start.
func (n *NAT) failed(f *flow, start time.Time, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.expireLocked()
	n.closeSocketLocked(f)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		n.endLocked(f, now, n.path.Hold.RST)
		return
	}
	last := start
	for _, wait := range syns[:len(syns)-1] {
		if last.Add(wait).After(now) {
			break
		}
		last = last.Add(wait)
	}
	n.endLocked(f, last, n.path.Hold.SYN)
}

// opened books that a flow is established, and wraps its conn.
func (n *NAT) opened(f *flow, inner net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &conn{inner: inner, flow: f, cond: sync.NewCond(&n.mu)}
	f.conn = c
	f.src = addrPort(inner.LocalAddr())
	n.liveLocked(f)
	if raw, ok := inner.(syscall.Conn); ok {
		return struct {
			*conn
			syscall.Conn
		}{c, raw}
	}
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// cutShort is why a dial ended early. Both the context's error and its cause
// are found in it, and Timeout is the kernel's.
type cutShort struct{ err, cause error }

func (e *cutShort) Error() string   { return e.cause.Error() }
func (e *cutShort) Unwrap() []error { return []error{e.err, e.cause} }
func (e *cutShort) Timeout() bool   { return errors.Is(e.err, context.DeadlineExceeded) }

// Scale returns p with its timers divided by `by`, for labs that cannot wait
// for them; None stays None. The name says so.
func Scale(p netpath.Profile, by int) netpath.Profile {
	if by < 1 {
		panic(fmt.Sprintf("fauxnat: Scale by %d", by))
	}
	p = p.Effective()
	for _, d := range []*time.Duration{&p.Idle, &p.Hold.FIN, &p.Hold.RST, &p.Hold.SYN, &p.Hold.Idle, &p.Drain} {
		if *d > 0 {
			*d = max(1, *d/time.Duration(by)) // zero would be unknown again
		}
	}
	if by > 1 {
		p.Name = fmt.Sprintf("%s, %d times as fast", p.Name, by)
	}
	return p
}
