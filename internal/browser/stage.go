package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool/conns"
)

// A stage is a ledger with something in it: flows through a NAT, to servers with
// public addresses that are one server on loopback. Whoever makes one closes it.
type stage struct {
	ledger *dialer.Ledger
	dialer *dialer.Dialer
	pool   *conns.Pool
	nat    *fauxnat.NAT

	server net.Listener
	ctx    context.Context // ends all that waits, by close
	end    context.CancelFunc
	live   sync.WaitGroup // goroutines of the stage's

	mu     sync.Mutex // guards the fields below; never held while a connection is used
	names  map[string]netip.Addr
	silent map[netip.AddrPort]bool // answer no SYN
	fails  map[netip.AddrPort]error
	held   map[string][]*conns.Conn
	served []net.Conn
}

// newStage builds the empty stage on a path.
func newStage(path netpath.Profile) (*stage, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &stage{
		ledger: &dialer.Ledger{Path: path, Ramp: -1, MaxWait: -1},
		names:  make(map[string]netip.Addr),
		silent: make(map[netip.AddrPort]bool),
		fails:  make(map[netip.AddrPort]error),
		server: ln,
		held:   make(map[string][]*conns.Conn),
	}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.nat = &fauxnat.NAT{Path: path, Dial: s.dial}
	s.dialer = &dialer.Dialer{Ledger: s.ledger, Dial: s.nat.DialContext, Resolver: s, Timeout: -1}
	s.pool = conns.New(s.dialer, conns.Config{OpenTimeout: time.Hour})
	s.live.Go(s.serve)
	return s, nil
}

// dial is what lies behind the NAT.
func (s *stage) dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	silent, failed := s.silent[to], s.fails[to]
	s.mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var d net.Dialer
	return d.DialContext(ctx, network, s.server.Addr().String())
}

// What a client may say to the server.
const (
	hello = "hello\n" // is answered by hello
	reset = "reset\n" // is answered by a RST
)

func (s *stage) serve() {
	for {
		c, err := s.server.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.served = append(s.served, c)
		s.mu.Unlock()
		s.live.Go(func() { answer(c) })
	}
}

func answer(c net.Conn) {
	defer c.Close()
	for lines := bufio.NewReader(c); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if line == reset {
			c.(*net.TCPConn).SetLinger(0)
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// LookupNetIP knows the names of the stage.
func (s *stage) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.names[host]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// name has a host resolve to an address, and returns host:port.
func (s *stage) name(host string, at netip.AddrPort) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[host] = at.Addr()
	return fmt.Sprint(host, ":", at.Port())
}

// silence has an address answer no SYN from now on.
func (s *stage) silence(at netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[at] = true
}

// fail has every connect to an address fail with err from now on.
func (s *stage) fail(at netip.AddrPort, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[at] = err
}

// heal has it answer again.
func (s *stage) heal(at netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.silent, at)
}

// try dials once, with a timeout as dialer.Dialer has it, and closes what it gets.
func (s *stage) try(address string, timeout time.Duration) error {
	d := *s.dialer
	d.Timeout = timeout
	c, err := d.DialContext(s.ctx, "tcp", address)
	if err == nil {
		err = c.Close()
	}
	return err
}

// get has n connections to address at the same time, each after an exchange.
func (s *stage) get(address string, n int) ([]*conns.Conn, error) {
	var got []*conns.Conn
	for range n {
		c, err := s.pool.Get(s.ctx, "tcp", address)
		if err != nil {
			return nil, errors.Join(err, closeAll(got))
		}
		got = append(got, c)
		if err := exchange(c); err != nil {
			return nil, errors.Join(err, closeAll(got))
		}
	}
	return got, nil
}

func exchange(c net.Conn) error {
	if _, err := io.WriteString(c, hello); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len(hello)))
	return err
}

func closeAll(cs []*conns.Conn) error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// use keeps n connections to address in use.
func (s *stage) use(address string, n int) error {
	got, err := s.get(address, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[address] = append(s.held[address], got...)
	return err
}

// rest has n more connections to address idle than there were.
func (s *stage) rest(address string, n int) error {
	got, err := s.get(address, n)
	for _, c := range got {
		c.Put()
	}
	return err
}

// putBack has n of the connections in use idle.
func (s *stage) putBack(address string, n int) {
	s.mu.Lock()
	of := s.held[address]
	n = min(n, len(of))
	back := of[len(of)-n:]
	s.held[address] = of[:len(of)-n]
	s.mu.Unlock()
	for _, c := range back {
		c.Put()
	}
}

// finish has n ports cool down after a FIN of ours.
func (s *stage) finish(address string, n int) error {
	got, err := s.get(address, n)
	if err != nil {
		return err
	}
	return closeAll(got)
}

// abort has n ports cool down after a RST of the server's.
func (s *stage) abort(address string, n int) error {
	got, err := s.get(address, n)
	for _, c := range got {
		io.WriteString(c, reset)
		c.Read(make([]byte, 1)) // returns when the RST is there
		c.Close()
	}
	return err
}

// ask has n requests more want a connection to address, which nobody may get: it is
// told on the way out, if it was not the end of the stage that stopped them.
func (s *stage) ask(address string, n int) {
	for range n {
		s.live.Go(func() {
			if c, err := s.pool.Get(s.ctx, "tcp", address); err == nil {
				<-s.ctx.Done()
				c.Close()
			}
		})
	}
}

// wait has n dials, of nobody's pool, wait for a port to address.
func (s *stage) wait(address string, n int) {
	for range n {
		s.live.Go(func() {
			if c, err := s.dialer.DialContext(s.ctx, "tcp", address); err == nil {
				<-s.ctx.Done()
				c.Close()
			}
		})
	}
}

// close ends everything and returns when it has ended.
func (s *stage) close() {
	s.end()
	for _, of := range s.held {
		closeAll(of)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.pool.Close(ctx)
	s.server.Close()
	for _, c := range s.served {
		c.Close()
	}
	s.live.Wait()
}
