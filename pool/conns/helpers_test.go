package conns_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

const here, elsewhere = "20.1.2.3:443", "20.1.2.4:443" // public: not exempt

// A stage is a pool in virtual time, with a server behind a NAT and a ledger
// that knows the NAT's path.
type stage struct {
	*testing.T
	net    memnet.Network
	nat    *fauxnat.NAT
	ledger *dialer.Ledger
	dialer *dialer.Dialer
	pool   *conns.Pool

	serve func(c net.Conn) // what the server does with a connection; nil: nothing

	mu     sync.Mutex // guards the fields below
	fars   []far      // the server's ends, in the order of the dials
	opened int
	closed [pool.Reasons]int
}

// A far is what a server's end can do.
type far interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// onStage runs f in virtual time, with n ports behind an App Service's NAT and
// an echo server. In the end the pool is closed, and every port must have come
// free.
func onStage(t *testing.T, n int, f func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path := netpath.AzureAppService()
		path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
		s := &stage{T: t, serve: repeat}
		s.nat = &fauxnat.NAT{Path: path, Dial: s.net.DialContext}
		s.ledger = &dialer.Ledger{Path: path, Ramp: -1}
		s.dialer = s.stranger()
		s.listen(here)
		s.listen(elsewhere)
		f(t, s)
		if s.pool != nil {
			if err := s.pool.Close(lasting(t, time.Minute)); err != nil {
				t.Errorf("the pool does not close: %v", err)
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, a := range s.ledger.Accounts() {
			t.Errorf("left behind: %v", a)
		}
		if stats := s.nat.Stats(); stats.Held > 0 || stats.Opened == 0 {
			t.Errorf("the NAT holds %d ports in the end, of %d flows", stats.Held, stats.Opened)
		}
	})
}

// stranger returns a dialer that shares the ledger with the pool's, and nothing
// else.
func (s *stage) stranger() *dialer.Dialer {
	return &dialer.Dialer{Ledger: s.ledger, Dial: s.nat.DialContext}
}

// start makes the pool. What it tells is counted here: its own figures are
// forgotten with the last connection to an address.
func (s *stage) start(cfg conns.Config) *conns.Pool {
	observe := cfg.Observe
	cfg.Observe = func(address string, e pool.Event) {
		s.mu.Lock()
		switch e.Kind {
		case pool.Opened:
			s.opened++
		case pool.Closed:
			s.closed[e.Reason]++
		}
		s.mu.Unlock()
		if observe != nil {
			observe(address, e)
		}
	}
	s.pool = conns.New(s.dialer, cfg)
	return s.pool
}

func (s *stage) listen(address string) {
	ln, err := s.net.Listen(address)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.Cleanup(func() { c.Close() })
			s.mu.Lock()
			s.fars = append(s.fars, c.(far))
			s.mu.Unlock()
			if s.serve != nil {
				go s.serve(c)
			}
		}
	}()
}

// repeat sends back what it gets.
func repeat(c net.Conn) {
	io.Copy(c, c)
	c.Close()
}

// far returns the server's end of the i-th connection, counted from zero.
func (s *stage) far(i int) far {
	s.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= len(s.fars) {
		s.Fatalf("there are %d connections", len(s.fars))
	}
	return s.fars[i]
}

// get returns a connection that must be there.
func (s *stage) get() *conns.Conn {
	s.Helper()
	c, err := s.pool.Get(s.Context(), "tcp", here)
	if err != nil {
		s.Fatal(err)
	}
	return c
}

// account is what the ledger knows of here.
func (s *stage) account() dialer.Account {
	synctest.Wait()
	for _, a := range s.ledger.Accounts() {
		if a.Key.Dest == netip.MustParseAddrPort(here) {
			return a
		}
	}
	return dialer.Account{}
}

// stats are the pool's, of here.
func (s *stage) stats() pool.Stats {
	synctest.Wait()
	for address, stats := range s.pool.Stats() {
		if address == here {
			return stats
		}
	}
	return pool.Stats{}
}

// wantOpened compares how many connections there were.
func (s *stage) wantOpened(n int) {
	s.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != n {
		s.Errorf("%d connections were opened, want %d", s.opened, n)
	}
}

// wantClosed compares how many were closed, and for which reason.
func (s *stage) wantClosed(reason pool.Reason, n int) {
	s.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed[reason] != n {
		s.Errorf("closed %v, want %d: %v", s.closed, n, reason)
	}
}

// exchange says what on c and wants to hear it.
func exchange(t testing.TB, c net.Conn, what string) {
	t.Helper()
	if err := talk(c, what); err != nil {
		t.Error(err)
	}
}

func talk(c net.Conn, what string) error {
	if _, err := io.WriteString(c, what); err != nil {
		return err
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != what {
		return errors.New("said " + what + ", heard " + string(got))
	}
	return nil
}

// flow returns what is at the bottom of c.
func flow(c net.Conn) *dialer.Conn {
	f, ok := dialer.Unwrap(c)
	if !ok {
		panic("no flow")
	}
	return f
}

// timedOut reads until a deadline that is soon.
func timedOut(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
}

func lasting(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// A ground is the kernel's loopback, with a TLS server and a ledger that counts it.
type ground struct {
	testing.TB
	address string
	dialer  *dialer.Dialer
	fars    chan net.Conn // the server's ends, *vault with TLS
}

func onGround(t testing.TB, secure bool, serve func(net.Conn)) (*ground, conns.Config) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	g := &ground{t, ln.Addr().String(), &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}}, make(chan net.Conn, 64)}
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	t.Cleanup(func() { ln.Close() })
	client, server := certified()
	served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if secure {
				c = &vault{Conn: tls.Server(c, server), raw: c.(far)}
			}
			g.fars <- c
			served.Go(func() { serve(c) })
		}
	})
	if !secure {
		return g, conns.Config{}
	}
	client.ServerName = "example.com"
	return g, conns.Config{TLS: client}
}

// pool returns a pool that is closed in the end.
func (g *ground) pool(cfg conns.Config) *conns.Pool {
	p := conns.New(g.dialer, cfg)
	g.Cleanup(func() {
		if err := p.Close(lasting(g, 10*time.Second)); err != nil {
			g.Error(err)
		}
	})
	return p
}

func (g *ground) get(p *conns.Pool) *conns.Conn {
	g.Helper()
	c, err := p.Get(g.Context(), "tcp", g.address)
	if err != nil {
		g.Fatal(err)
	}
	return c
}

// came waits until something has come to an idle connection.
func (g *ground) came(c *conns.Conn) {
	g.Helper()
	if runtime.GOOS == "windows" {
		g.Skip("nobody can look at a socket")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if n, err := flow(c).Peek(); n > 0 || err != nil {
			return
		}
		if time.Now().After(deadline) {
			g.Fatal("nothing came")
		}
	}
}
