package dialer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

const believed = 8 * time.Second

// A hall is an echo server behind the kernel's NAT, and a dialer that knows the
// path and notes what happens.
type hall struct {
	*testing.T
	lab    *natlab.Lab
	server netip.AddrPort
	dialer *dialer.Dialer

	mu     sync.Mutex
	events []dialer.Event
}

// newHall has a path that remembers for idle, while the dialer believes in another.
func newHall(t *testing.T, idle time.Duration) *hall {
	t.Parallel()
	path := netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: 32}},
		Idle:   idle,
		Hold:   netpath.Hold{FIN: 20 * time.Second, RST: 2 * time.Second, SYN: 5 * time.Second, Idle: netpath.None},
	}
	h := &hall{T: t, lab: natlab.Need(t, natlab.Config{Path: path})}
	path.Idle = believed
	ln, err := h.lab.Listen(":443")
	if err != nil {
		t.Fatal(err)
	}
	h.server = netip.AddrPortFrom(h.lab.Server(0), 443)
	var echoes sync.WaitGroup
	echoes.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			echoes.Go(func() {
				io.Copy(c, c)
				c.Close()
			})
			t.Cleanup(func() { c.Close() })
		}
	})
	t.Cleanup(echoes.Wait)
	t.Cleanup(func() { ln.Close() })
	h.dialer = &dialer.Dialer{
		Ledger:  &dialer.Ledger{Path: path, Ramp: -1},
		Dial:    h.lab.Dial,
		Observe: func(e dialer.Event) { h.mu.Lock(); h.events = append(h.events, e); h.mu.Unlock() },
	}
	return h
}

// dial returns a connection over which a byte has gone there and back.
func (h *hall) dial() *dialer.Conn {
	h.Helper()
	c, err := h.dialer.DialContext(h.Context(), "tcp", h.server.String())
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	if err := ask(c); err != nil {
		h.Fatal(err)
	}
	return c.(*dialer.Conn)
}

func ask(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// busy returns a connection on which something goes there and back all the time.
func (h *hall) busy() *dialer.Conn {
	c := h.dial()
	var asking sync.WaitGroup
	asking.Go(func() {
		for ask(c) == nil {
			time.Sleep(50 * time.Millisecond)
		}
	})
	h.Cleanup(asking.Wait)
	h.Cleanup(func() { c.Close() })
	return c
}

func (h *hall) dark(on bool) {
	h.Helper()
	if err := h.lab.Blackhole(h.server, on); err != nil {
		h.Fatal(err)
	}
}

// happened counts the events of a kind.
func (h *hall) happened(kind dialer.EventKind) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func TestAFlowThatTheNATForgotIsDeadByEvidence(t *testing.T) {
	for name, others := range map[string]bool{"others live": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			h := newHall(t, believed)
			c := h.dial()
			if others {
				h.busy()
			}
			if err := h.lab.ForgetFlow(c); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			err := ask(c)
			if took := time.Since(start); took > 3*time.Second || !errors.Is(err, keepalive.ErrBlackhole) {
				t.Errorf("after %v: %v", took, err)
			}
			if n := h.happened(dialer.Suspected); n != 1 {
				t.Errorf("suspected %d times", n)
			}
			dialed := h.happened(dialer.Opened) - 1
			if want := 1; dialed != want {
				t.Errorf("%d further connections were opened, want %d", dialed, want)
			}
		})
	}
}

func TestAPathThatIsDownKeepsItsConnections(t *testing.T) {
	h := newHall(t, believed)
	c := h.dial()
	h.dark(true)
	answered := make(chan error, 1)
	go func() { answered <- ask(c) }()
	select {
	case err := <-answered:
		t.Fatalf("the path is down, and yet: %v", err)
	case <-time.After(6 * time.Second):
	}
	if !c.Suspect() {
		t.Error("what is not acknowledged for 6 s is not suspect")
	}
	if err := h.dialer.Trouble(t.Context(), "tcp", h.server.String()); err == nil {
		t.Error("nothing speaks against one more connection")
	}
	h.dark(false)
	healed := time.Now()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if took := time.Since(healed); took > 1500*time.Millisecond {
		t.Errorf("the answer came %v after the path had healed", took)
	}
	if failed := h.happened(dialer.Failed); failed == 0 || failed > 3 {
		t.Errorf("%d control connections were tried in 6 s", failed)
	}
}

func TestAPathThatForgetsSoonerThanItSaysIsLearnedAtOnce(t *testing.T) {
	h := newHall(t, 1500*time.Millisecond) // the first probe is sent after 2 s
	other := h.busy()
	for range 2 {
		c := h.dial()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, keepalive.ErrBlackhole) {
			t.Errorf("a connection that was forgotten ended with %v", err)
		}
		c.Close()
	}
	until(t, "a shorter plan", func() bool { return probeAfter(t, other) == 1 })
	fresh := h.dial()
	if got := probeAfter(t, fresh); got != 1 {
		t.Errorf("a fresh connection probes after %d s, want 1", got)
	}
	select {
	case <-time.After(2500 * time.Millisecond):
	case <-t.Context().Done():
	}
	if err := ask(fresh); err != nil {
		t.Errorf("idle for longer than the path remembers, with probes in time: %v", err)
	}
}

// teach has a connection of its own teach, and returns what is known then.
func (h *hall) teach() keepalive.Lesson {
	h.Helper()
	c := h.dial()
	c.Park(c.Turn())
	c.Teach(h.Context(), func(ctx context.Context) error {
		deadline, _ := ctx.Deadline()
		c.SetDeadline(deadline)
		return ask(c)
	}, func(ctx context.Context) error {
		another, err := h.dialer.DialContext(ctx, "tcp", h.server.String())
		if err != nil {
			return err
		}
		defer another.Close()
		return ask(another)
	})
	lessons := h.dialer.Learner.Lessons()
	if len(lessons) != 1 {
		h.Fatalf("lessons: %+v", lessons)
	}
	return lessons[0]
}

func TestAConnectionThatSurvivesASilenceTeachesThat(t *testing.T) {
	h := newHall(t, time.Minute)
	h.dialer.Learner = new(keepalive.Learner)
	want := keepalive.For(h.dialer.Path()).MaxSilence()
	if lesson := h.teach(); lesson.Lo < want || lesson.Lo > want+time.Second || lesson.Votes > 0 {
		t.Errorf("learned %+v, want to have survived %v", lesson, want)
	}
	start := time.Now()
	if h.teach(); time.Since(start) > time.Second {
		t.Error("it was taught again what it knows")
	}
}

func TestAConnectionThatDoesNotSurviveASilenceIsOneVote(t *testing.T) {
	h := newHall(t, 3*time.Second)
	h.dialer.Learner = new(keepalive.Learner)
	if lesson := h.teach(); lesson.Lo != 0 || lesson.Hi != 0 || lesson.Votes != 1 {
		t.Errorf("learned %+v, want one vote", lesson)
	}
}

func TestAnOutageTeachesNothing(t *testing.T) {
	h := newHall(t, time.Minute)
	h.dialer.Learner = new(keepalive.Learner)
	h.dialer.Timeout = time.Second
	c := h.dial()
	asked, another := 0, 0
	c.Teach(t.Context(), func(context.Context) error {
		if asked++; asked == 1 {
			return ask(c)
		}
		h.dark(true)
		return errors.New("no answer")
	}, func(ctx context.Context) error {
		another++
		_, err := h.dialer.DialContext(ctx, "tcp", h.server.String())
		return err
	})
	h.dark(false)
	if asked != 2 || another != 1 {
		t.Errorf("asked %d times, and another connection %d times", asked, another)
	}
	if lessons := h.dialer.Learner.Lessons(); len(lessons) != 0 {
		t.Errorf("learned %+v", lessons)
	}
}

func TestThoseThatMayHaveBeenForgottenWithOneAreAskedAtOnce(t *testing.T) {
	h := newHall(t, believed)
	h.dialer.Plan.Idle = time.Minute // their own probes would find out later
	lost, waits, idle, lives := h.dial(), h.dial(), h.dial(), h.dial()
	h.busy() // proves that the path is up
	until(t, "silence for longer than a probe's first second", func() bool {
		info, err := lives.Info() // the last one that has spoken
		return err == nil && info.LastAck > 1100*time.Millisecond
	})
	for _, c := range []*dialer.Conn{lost, waits, idle} {
		if err := h.lab.ForgetFlow(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(lost); !errors.Is(err, keepalive.ErrBlackhole) {
		t.Fatalf("got %v", err)
	}
	lost.Close()
	start := time.Now()
	for _, c := range []*dialer.Conn{waits, idle} {
		c.SetReadDeadline(start.Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, keepalive.ErrBlackhole) {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
	if err := ask(lives); err != nil {
		t.Errorf("the one that lives: %v", err)
	}
}

func TestTwoLostProbesInARowKillNothing(t *testing.T) {
	h := newHall(t, time.Minute)
	c := h.dial()
	acknowledged(t, c)
	before, err := c.Info()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.lab.DropNext(h.server, 2); err != nil {
		t.Fatal(err)
	}
	until(t, "two probes lost and the third answered", func() bool {
		i, err := c.Info()
		if err != nil {
			t.Fatal(err)
		}
		return i.SegmentsOut >= before.SegmentsOut+3 && i.Probes == 0
	})
	if err := ask(c); err != nil {
		t.Error(err)
	}
}

func TestAPeerThatDoesNotReadIsSlowAndNotSuspect(t *testing.T) {
	h := newHall(t, time.Minute)
	c := h.dial()
	const size = 256 << 20 // more than the buffers of both ends hold
	written := make(chan error, 1)
	go func() { // the far end echoes, and reads no more when nobody takes it
		_, err := c.Write(make([]byte, size))
		written <- err
	}()
	until(t, "a window that is closed", func() bool {
		i, err := c.Info()
		return err == nil && i.PeerWindow == 0
	})
	select {
	case err := <-written:
		t.Fatalf("the write ended: %v", err)
	case <-time.After(5 * time.Second):
	}
	if n := h.happened(dialer.Suspected); n > 0 {
		t.Errorf("it was suspected %d times", n)
	}
	if n, err := io.CopyN(io.Discard, c, size); err != nil {
		t.Errorf("%d of %d bytes came back: %v", n, size, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestAnAnswerThatIsLateOrNegativeIsNoDeath(t *testing.T) {
	for name, answer := range map[string]func(ctx context.Context, c net.Conn) error{
		"late": func(ctx context.Context, c net.Conn) error { // the far end has it, and takes its time
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
		"negative": func(_ context.Context, c net.Conn) error { return errors.Join(ask(c), errors.New("-ERR loading")) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHall(t, time.Minute)
			h.dialer.Learner = new(keepalive.Learner)
			h.dialer.Ledger.Path.Idle = 2 * time.Second // 1.5 s of silence are allowed
			c, asked := h.dial(), 0
			c.Teach(t.Context(), func(ctx context.Context) error {
				if asked++; asked == 1 {
					return ask(c)
				}
				return answer(ctx, c)
			}, func(context.Context) error { return nil })
			for _, l := range h.dialer.Learner.Lessons() {
				if l.Votes > 0 {
					t.Errorf("learned %+v", l)
				}
			}
			if asked != 2 || c.Closed() {
				t.Errorf("asked %d times, ended: %t", asked, c.Closed())
			}
		})
	}
}
