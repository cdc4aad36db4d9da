package natlab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

const (
	late = 400 * time.Millisecond // how much later a busy machine may see something

	// freed is how much later it may see a port free, which the kernel collects when it
	// has time: less than what tells one hold from another.
	freed = 900 * time.Millisecond
	tick  = 10 * time.Millisecond // how much earlier the kernel's clock may
)

// A room is a lab with a server whose connections the test holds.
type room struct {
	*natlab.Lab
	t        *testing.T
	dst      netip.AddrPort
	accepted chan net.Conn
}

// newRoom is a lab with a limit of n, a short memory and short holds, except
// where edit says otherwise.
func newRoom(t *testing.T, n int, edit func(*natlab.Config)) *room {
	t.Parallel()
	cfg := natlab.Config{Path: netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: n}},
		Idle:   10 * time.Second,
		Hold: netpath.Hold{
			FIN: 2 * time.Second, RST: time.Second, SYN: 1500 * time.Millisecond, Idle: netpath.None,
		},
	}}
	if edit != nil {
		edit(&cfg)
	}
	lab := natlab.Need(t, cfg)
	r := &room{Lab: lab, t: t, dst: netip.AddrPortFrom(lab.Server(0), 443), accepted: make(chan net.Conn, 256)}
	r.serve(":443")
	return r
}

// serve hands what is accepted to the test.
func (r *room) serve(address string) {
	ln, err := r.Listen(address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.t.Cleanup(func() { c.Close() })
			r.accepted <- c
		}
	}()
}

// try dials for as long as a test can wait for a SYN that is dropped.
func (r *room) try(dst netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), late)
	defer cancel()
	c, err := r.Dial(ctx, "tcp", dst.String())
	if err == nil {
		r.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// open dials the server and returns both ends.
func (r *room) open() (client, server *net.TCPConn) {
	r.t.Helper()
	c, err := r.try(r.dst)
	if err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.TCPConn), (<-r.accepted).(*net.TCPConn)
}

// flow finds a client's connection in the gateway's table.
func (r *room) flow(c net.Conn) (natlab.Flow, bool) {
	r.t.Helper()
	for _, f := range r.flows() {
		if f.Source.String() == c.LocalAddr().String() && f.Dest.String() == c.RemoteAddr().String() {
			return f, true
		}
	}
	return natlab.Flow{}, false
}

func (r *room) flows() []natlab.Flow {
	r.t.Helper()
	flows, err := r.Flows(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return flows
}

func (r *room) held() int {
	r.t.Helper()
	n, err := r.Held(r.dst)
	if errors.Is(err, errors.ErrUnsupported) {
		r.t.Skip(err)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *room) counts() natlab.Counts {
	r.t.Helper()
	counts, err := r.Counts()
	if err != nil {
		r.t.Fatal(err)
	}
	return counts
}

// until waits for something to become true and returns how long that took.
func (r *room) until(what string, within time.Duration, done func() bool) time.Duration {
	r.t.Helper()
	start := time.Now()
	for !done() {
		if time.Since(start) > within {
			r.t.Fatalf("after %v still not: %s", within, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// free waits for the gateway to give up all ports, and wants that to happen
// when it should.
func (r *room) free(since time.Time, should time.Duration) {
	r.t.Helper()
	r.until("all ports free", should+freed, func() bool { return len(r.flows()) == 0 })
	if took := time.Since(since); took < should-tick || took > should+freed {
		r.t.Errorf("the ports were free after %v, want %v", took, should)
	}
}

// passes says whether a byte gets from one end to the other.
func passes(from, to net.Conn) error {
	if _, err := from.Write([]byte{'a'}); err != nil {
		return err
	}
	to.SetReadDeadline(time.Now().Add(late))
	_, err := io.ReadFull(to, make([]byte, 1))
	return err
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
