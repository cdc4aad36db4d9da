package conns_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

// A wire is a connection of the stage's that knows when it heard anything, as the
// kernel does, and that a test can make a black hole of its own.
type wire struct {
	near

	mu    sync.Mutex // guards the fields below
	heard time.Time
	hole  bool
	lost  bytes.Buffer // in the hole
	dead  bool         // the kernel gave up
}

// A near is what fauxnat dials.
type near interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
	Queued() (unread, unsent int)
	Ended() error
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.near.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 {
		w.heard = time.Now()
	}
	if w.dead {
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hole {
		return w.lost.Write(b)
	}
	n, err := w.near.Write(b)
	if _, unsent := w.near.Queued(); unsent == 0 {
		w.heard = time.Now() // an ACK
	}
	return n, err
}

func (w *wire) Queued() (unread, unsent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	unread, unsent = w.near.Queued()
	return unread, unsent + w.lost.Len()
}

func (w *wire) Heard() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.heard)
}

// swallow lets nothing more of what is written arrive.
func (w *wire) swallow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hole = true
}

// giveUp ends it as the kernel does when nothing comes back.
func (w *wire) giveUp() {
	w.mu.Lock()
	w.dead = true
	w.mu.Unlock()
	w.near.SetReadDeadline(time.Unix(1, 0))
}

// heal sends what was swallowed once more.
func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hole, w.heard = false, time.Now()
	w.near.Write(w.lost.Next(w.lost.Len()))
}

// wired makes wires of the connections that the pool dials from now on.
func (s *stage) wired() {
	dial := s.dialer.Dial
	s.dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &wire{near: c.(near), heard: time.Now()}, nil
	}
}

// below returns the wire of c.
func below(c net.Conn) *wire { return flow(c).Conn.NetConn().(*wire) }

// A roll notes who was asked by Beat, and what was closed.
type roll struct {
	mu     sync.Mutex // guards the fields below
	asked  []string   // local addresses
	closed []pool.Event
}

// config is that of a pool which beats no connection of itself.
func (r *roll) config() conns.Config {
	return conns.Config{
		BeatEvery: 24 * time.Hour,
		Beat: func(_ context.Context, c net.Conn) error {
			r.mu.Lock()
			r.asked = append(r.asked, c.LocalAddr().String())
			r.mu.Unlock()
			return talk(c, "PING")
		},
		Observe: func(_ string, e pool.Event) {
			if e.Kind == pool.Closed {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.closed = append(r.closed, e)
			}
		},
	}
}

// want compares who was asked.
func (r *roll) want(t *testing.T, want ...*conns.Conn) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, c := range want {
		all = append(all, c.LocalAddr().String())
	}
	slices.Sort(all)
	slices.Sort(r.asked)
	if !slices.Equal(r.asked, all) {
		t.Errorf("asked were %v, want %v", r.asked, all)
	}
}

// wantCause wants that exactly one connection was closed, for a reason and a cause.
func (r *roll) wantCause(t *testing.T, reason pool.Reason, cause func(error) bool) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.closed) != 1 || r.closed[0].Reason != reason || !cause(r.closed[0].Err) {
		t.Errorf("closed were %+v, want one for %v", r.closed, reason)
	}
}

func isBlackhole(err error) bool { return errors.Is(err, keepalive.ErrBlackhole) }

func TestASuspectConnectionIsNotLent(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.wired()
		r := new(roll)
		cfg := r.config()
		cfg.Beat, cfg.BeatEvery = nil, 0
		s.start(cfg)
		bad := s.get()
		exchange(t, bad, "hello")
		below(bad).swallow()
		io.WriteString(bad, "nobody hears that")
		bad.Put()
		time.Sleep(time.Second)
		good := s.get()
		if flow(good) == flow(bad) {
			t.Error("it was lent")
		}
		exchange(t, good, "hello")
		r.wantCause(t, pool.Failed, func(err error) bool { return strings.Contains(err.Error(), "not acknowledged") })
		good.Put()
	})
}

func TestWhatIsAcknowledgedAfterAllIsLentAgain(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.serve = func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }
		s.wired()
		s.start(new(roll).config())
		first := s.get()
		below(first).swallow()
		io.WriteString(first, "somebody will hear that")
		first.Put()
		time.Sleep(time.Second)
		if !flow(first).Suspect() {
			t.Error("it is not suspect: the test shows nothing")
		}
		below(first).heal()
		time.Sleep(2 * time.Second)
		second := s.get()
		if flow(second) != flow(first) {
			t.Error("another one was dialed")
		}
		second.Put()
	})
}

func TestWhatDiesOnTheWayIsClosedForThatAndThrowsDoubtOnTheOthers(t *testing.T) {
	for name, test := range map[string]struct {
		lent   bool
		reason pool.Reason
	}{"lent": {true, pool.Discarded}, "idle": {false, pool.Spent}} {
		t.Run(name, func(t *testing.T) {
			onStage(t, 8, func(t *testing.T, s *stage) {
				s.wired()
				r := new(roll)
				s.start(r.config())
				bad, good := s.get(), s.get()
				exchange(t, bad, "hello")
				below(bad).swallow()
				io.WriteString(bad, "nobody hears that")
				good.Put()
				if test.lent {
					if _, err := bad.Read(make([]byte, 1)); !isBlackhole(err) {
						t.Errorf("Read: %v", err)
					}
					bad.Close()
				} else {
					bad.Put()
					time.Sleep(10 * time.Second)
				}
				r.wantCause(t, test.reason, isBlackhole)
				r.want(t, good)
				if a := s.account(); a.Idle != 1 || a.Active != 0 {
					t.Errorf("got %v", a)
				}
			})
		})
	}
}

func TestTheKernelsVerdictThrowsDoubtOnTheOthers(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.serve = nil
		s.wired()
		r := new(roll)
		s.start(r.config())
		good, bad := s.get(), s.get()
		good.Put()
		time.AfterFunc(time.Second, below(bad).giveUp)
		if err := talk(bad, "hello"); !isBlackhole(err) || !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("got %v", err)
		}
		bad.Close()
		r.wantCause(t, pool.Discarded, isBlackhole)
		r.want(t, good)
	})
}

func TestWhatTheServerEndedThrowsDoubtOnNobody(t *testing.T) {
	for name, come := range arrivals {
		t.Run(name, func(t *testing.T) {
			onStage(t, 8, func(t *testing.T, s *stage) {
				r := new(roll)
				s.start(r.config())
				good, bad := s.get(), s.get()
				good.Put()
				come(s.far(1))
				bad.Read(make([]byte, 100))
				bad.Close()
				time.Sleep(time.Minute)
				r.want(t)
			})
		})
	}
}

// mute repeats what it gets, except for what contains "?".
func mute(c net.Conn) {
	defer c.Close()
	b := make([]byte, 100)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if !bytes.ContainsRune(b[:n], '?') {
			c.Write(b[:n])
		}
	}
}

func TestAnAnswerThatDoesNotComeThrowsDoubtOnTheOthers(t *testing.T) {
	ask := func(c *conns.Conn, what string) {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, what)
		io.ReadFull(c, make([]byte, len(what)))
	}
	for name, test := range map[string]struct {
		use     func(t *testing.T, s *stage, c *conns.Conn)
		doubted bool
	}{
		"closed":   {func(t *testing.T, s *stage, c *conns.Conn) { ask(c, "why?"); c.Close() }, true},
		"put back": {func(t *testing.T, s *stage, c *conns.Conn) { ask(c, "why?"); c.Put() }, true},
		"copied": {func(t *testing.T, s *stage, c *conns.Conn) {
			io.Copy(c, strings.NewReader("why?"))
			ask(c, "")
			timedOut(t, c)
			c.Close()
		}, true},
		"the second answer": {func(t *testing.T, s *stage, c *conns.Conn) {
			ask(c, "hello")
			ask(c, "why?")
			c.Close()
		}, true},
		"within Do": {func(t *testing.T, s *stage, c *conns.Conn) {
			c.Close()
			err := s.pool.Do(lasting(t, time.Second), "tcp", here, func(_ context.Context, c *conns.Conn) error { return talk(c, "why?") })
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Do: %v", err)
			}
		}, true},

		"nobody waited": {func(t *testing.T, s *stage, c *conns.Conn) { io.WriteString(c, "why?"); c.Close() }, false},
		"nothing asked": {func(t *testing.T, s *stage, c *conns.Conn) { timedOut(t, c); c.Close() }, false},
		"half an answer": {func(t *testing.T, s *stage, c *conns.Conn) {
			io.WriteString(c, "hello")
			io.ReadFull(c, make([]byte, 1))
			io.CopyN(io.Discard, c, 4)
			timedOut(t, c)
			c.Close()
		}, false},
		"late": {func(t *testing.T, s *stage, c *conns.Conn) {
			ask(c, "why?")
			s.far(2).Write([]byte("because"))
			c.Close()
		}, false},
		"not acknowledged": {func(t *testing.T, s *stage, c *conns.Conn) {
			s.net.BlackHole(here)
			ask(c, "hello")
			c.Close()
			time.Sleep(time.Minute)
			s.net.Heal(here)
		}, false},
		"called off": {func(t *testing.T, s *stage, c *conns.Conn) {
			c.Close()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			err := s.pool.Do(ctx, "tcp", here, func(_ context.Context, c *conns.Conn) error { return talk(c, "why?") })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Do: %v", err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, 8, func(t *testing.T, s *stage) {
				s.serve = mute
				s.wired()
				r := new(roll)
				s.start(r.config())
				older, newer, c := s.get(), s.get(), s.get()
				older.Put()
				time.Sleep(time.Second)
				c.Put()
				c = s.get()
				time.Sleep(time.Second)
				newer.Put()
				test.use(t, s, c)
				time.Sleep(time.Second)
				if test.doubted {
					r.want(t, older)
				} else {
					r.want(t)
				}
			})
		})
	}
}
