package conns_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

// inHalls runs f with and without TLS.
func inHalls(t *testing.T, plan keepalive.Plan, f func(t *testing.T, h *hall)) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) { f(t, newHall(t, secure, plan)) })
	}
}

// A hall is a pool of real sockets, with an echo server behind the kernel's NAT.
type hall struct {
	*natlab.Lab
	*testing.T
	server netip.AddrPort
	pool   *conns.Pool
	closed chan pool.Event
	beaten atomic.Int32
}

// newHall adjusts what the pool is made of.
func newHall(t *testing.T, secure bool, plan keepalive.Plan, adjust ...func(*dialer.Dialer, *conns.Config)) *hall {
	t.Parallel()
	path := netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: 32}},
		Idle:   time.Minute,
		Hold:   netpath.Hold{FIN: 20 * time.Second, RST: 2 * time.Second, SYN: 5 * time.Second, Idle: netpath.None},
	}
	h := &hall{T: t, Lab: natlab.Need(t, natlab.Config{Path: path}), closed: make(chan pool.Event, 32)}
	ln, err := h.Listen(":443")
	if err != nil {
		t.Fatal(err)
	}
	h.server = netip.AddrPortFrom(h.Server(0), 443)
	client, server := certified()
	client.ServerName = "example.com"
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			served.Go(func() {
				if secure {
					repeat(tls.Server(c, server))
					return
				}
				repeat(c)
			})
		}
	})
	t.Cleanup(served.Wait)
	t.Cleanup(func() { ln.Close() })
	cfg := conns.Config{
		Beat: func(_ context.Context, c net.Conn) error {
			h.beaten.Add(1)
			return talk(c, "PING")
		},
		BeatEvery:    time.Hour,
		ProbeTimeout: time.Second,
		Observe: func(_ string, e pool.Event) {
			if e.Kind == pool.Closed {
				h.closed <- e
			}
		},
	}
	if secure {
		cfg.TLS = client
	}
	d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}, Dial: h.Dial, Plan: plan}
	for _, a := range adjust {
		a(d, &cfg)
	}
	h.pool = conns.New(d, cfg)
	t.Cleanup(func() { h.pool.Close(lasting(t, 10*time.Second)) })
	return h
}

func (h *hall) get() *conns.Conn {
	h.Helper()
	c, err := h.pool.Get(h.Context(), "tcp", h.server.String())
	if err != nil {
		h.Fatal(err)
	}
	return c
}

// idle returns n connections on which something was said before they were put back.
func (h *hall) idle(n int) (all []*conns.Conn) {
	h.Helper()
	for range n {
		all = append(all, h.get())
	}
	for _, c := range all {
		exchange(h, c, "hello")
		c.Put()
	}
	return all
}

// forget has the gateway forget one flow.
func (h *hall) forget(c net.Conn) {
	h.Helper()
	if err := h.ForgetFlow(c); err != nil {
		h.Fatal(err)
	}
}

// wantClosed waits until so many were closed, and returns what was told of them.
func (h *hall) wantClosed(n int) (events []pool.Event) {
	h.Helper()
	for range n {
		select {
		case e := <-h.closed:
			events = append(events, e)
		case <-time.After(20 * time.Second):
			h.Fatalf("closed were %+v, want %d", events, n)
		}
	}
	return events
}

func TestARealFlowThatTheNATForgotIsHedged(t *testing.T) {
	inHalls(t, keepalive.Plan{}, func(t *testing.T, h *hall) {
		h.idle(2)
		over := make(chan struct{})
		var asking sync.WaitGroup
		asking.Go(func() { // the other one lives
			for {
				select {
				case <-over:
					return
				case <-time.After(20 * time.Millisecond):
				}
				err := h.pool.Do(t.Context(), "tcp", h.server.String(), func(_ context.Context, c *conns.Conn) error { return talk(c, "hello") })
				if err != nil {
					t.Error(err)
				}
			}
		})
		defer asking.Wait()
		defer close(over)

		var runs atomic.Int32
		var start time.Time
		err := h.pool.Hedge(lasting(t, 10*time.Second), "tcp", h.server.String(), func(_ context.Context, c *conns.Conn) error {
			if runs.Add(1) == 1 {
				h.forget(c)
				start = time.Now()
			}
			return talk(c, "which of us?")
		})
		took := time.Since(start)
		t.Logf("answered after %v", took)
		if n := runs.Load(); err != nil || n != 2 || took > 1500*time.Millisecond {
			t.Errorf("after %v and %d runs: %v", took, n, err)
		}
	})
}

func TestARealConnectionThatItsProbesFindDeadMakesTheOthersBeAsked(t *testing.T) {
	inHalls(t, keepalive.Plan{Idle: time.Second, Interval: time.Second, Count: 2}, func(t *testing.T, h *hall) {
		bad := h.idle(3)[0]
		h.forget(bad)
		e := h.wantClosed(1)[0]
		if !errors.Is(e.Err, keepalive.ErrBlackhole) || !errors.Is(e.Err, syscall.ETIMEDOUT) {
			t.Errorf("it was closed for %v", e.Err)
		}
		for deadline := time.Now().Add(5 * time.Second); h.beaten.Load() < 2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of the others were asked", h.beaten.Load())
			}
		}
	})
}

func TestAMiddleboxThatLiesIsFoundOutByAMissingAnswer(t *testing.T) {
	inHalls(t, keepalive.Plan{}, func(t *testing.T, h *hall) {
		proxy, err := h.Proxy(h.server)
		if err != nil {
			t.Fatal(err)
		}
		defer proxy.Close()
		h.idle(4)
		proxy.Lie(true)
		start := time.Now()
		err = h.pool.Do(lasting(t, time.Second), "tcp", h.server.String(), func(_ context.Context, c *conns.Conn) error { return talk(c, "hello") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		proxy.Lie(false)
		for _, e := range h.wantClosed(4) { // the others when they were asked in vain
			if !errors.Is(e.Err, os.ErrDeadlineExceeded) {
				t.Errorf("closed for %v", e.Err)
			}
		}
		if n := h.beaten.Load(); n != 3 {
			t.Errorf("%d were asked", n)
		}
		c := h.get()
		exchange(t, c, "hello")
		c.Put()
		t.Logf("all were replaced after %v", time.Since(start))
	})
}

func TestAConnectionIdleForTooLongTeachesBeforeItIsClosed(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			learned := make(chan keepalive.Lesson, 8)
			learner := &keepalive.Learner{Observe: func(l keepalive.Lesson) { learned <- l }}
			h := newHall(t, secure, keepalive.Plan{}, func(d *dialer.Dialer, cfg *conns.Config) {
				d.Ledger.Path.Idle = 4 * time.Second // 3 s of silence are allowed
				d.Learner = learner
				cfg.MaxIdle = 100 * time.Millisecond
			})
			h.idle(2)
			h.wantClosed(2)
			for l := range learned {
				if l.Lo >= 3*time.Second { // shorter ones were natural
					break
				}
			}
			if lessons := learner.Lessons(); len(lessons) != 1 || lessons[0].Votes > 0 {
				t.Errorf("learned %+v", lessons)
			}
		})
	}
}

func TestCloseDoesNotWaitForLessons(t *testing.T) {
	h := newHall(t, false, keepalive.Plan{}, func(d *dialer.Dialer, cfg *conns.Config) {
		d.Learner = new(keepalive.Learner)
		cfg.MaxIdle = 100 * time.Millisecond
	})
	h.idle(1)
	h.wantClosed(1)
	start := time.Now()
	if err := h.pool.Close(lasting(t, 10*time.Second)); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}
