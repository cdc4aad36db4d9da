package conns_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

var errNo = errors.New("the server says no")

// A work is what is to be done with a connection.
type work = func(ctx context.Context, c *conns.Conn) error

// doing are the ways to have something done.
var doing = map[string]func(p *conns.Pool, ctx context.Context, f work) error{
	"Do":    func(p *conns.Pool, ctx context.Context, f work) error { return p.Do(ctx, "tcp", here, f) },
	"Hedge": func(p *conns.Pool, ctx context.Context, f work) error { return p.Hedge(ctx, "tcp", here, f) },
}

func TestDoPutsBackWhatIsCleanAndClosesTheRest(t *testing.T) {
	for way, do := range doing {
		for name, test := range map[string]struct {
			f    func(c *conns.Conn) error
			err  error
			idle bool
		}{
			"done":                {func(c *conns.Conn) error { return talk(c, "hello") }, nil, true},
			"a clean no":          {func(c *conns.Conn) error { talk(c, "hello"); return pool.Clean(errNo) }, errNo, true},
			"an error":            {func(c *conns.Conn) error { return errNo }, errNo, false},
			"done, after a fault": {func(c *conns.Conn) error { c.SetDeadline(time.Unix(1, 0)); talk(c, "x"); return nil }, nil, false},
			"closed":              {func(c *conns.Conn) error { c.Close(); return nil }, nil, false},
			"put back":            {func(c *conns.Conn) error { c.Put(); return errNo }, errNo, true},
		} {
			t.Run(way+", "+name, func(t *testing.T) {
				onStage(t, 4, func(t *testing.T, s *stage) {
					s.start(conns.Config{})
					err := do(s.pool, lasting(t, time.Minute), func(_ context.Context, c *conns.Conn) error { return test.f(c) })
					if err != test.err { // itself, not wrapped
						t.Errorf("got %v, want %v", err, test.err)
					}
					if got := s.stats(); got.InUse != 0 || got.Idle == 1 != test.idle {
						t.Errorf("got %+v", got)
					}
					if !test.idle {
						s.wantClosed(pool.Discarded, 1)
					}
				})
			})
		}
	}
}

func TestAPanicAndGoexitEndTheConnection(t *testing.T) {
	for way, do := range doing {
		for name, end := range map[string]func(){"panic": func() { panic("out of luck") }, "Goexit": runtime.Goexit} {
			t.Run(way+", "+name, func(t *testing.T) {
				onStage(t, 4, func(t *testing.T, s *stage) {
					s.start(conns.Config{})
					over := make(chan any)
					go func() {
						defer func() { over <- recover() }()
						do(s.pool, t.Context(), func(context.Context, *conns.Conn) error { end(); return nil })
					}()
					if got := <-over; name == "panic" && got != "out of luck" {
						t.Errorf("recovered %v", got)
					}
					s.wantClosed(pool.Discarded, 1)
				})
			})
		}
	}
}

func TestWhatIsDoneEndsWithItsContext(t *testing.T) {
	errLate := errors.New("somebody else was faster")
	for way, do := range doing {
		for name, with := range map[string]struct {
			ctx func(t *testing.T) context.Context
			is  error
		}{
			"a deadline": {func(t *testing.T) context.Context { return lasting(t, time.Second) }, context.DeadlineExceeded},
			"a cause": {func(t *testing.T) context.Context {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(errLate) })
				return ctx
			}, errLate},
		} {
			t.Run(way+", "+name, func(t *testing.T) {
				onStage(t, 4, func(t *testing.T, s *stage) {
					s.serve = nil
					s.start(conns.Config{})
					start := time.Now()
					err := do(s.pool, with.ctx(t), func(_ context.Context, c *conns.Conn) error { return talk(c, "hello") })
					if !errors.Is(err, with.is) || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
						t.Errorf("got %v after %v", err, time.Since(start))
					}
					s.wantClosed(pool.Discarded, 1)
				})
			})
		}
	}
}

func TestAContextThatEndsLaterReachesNobodyElse(t *testing.T) {
	for way, do := range doing {
		t.Run(way, func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				s.start(conns.Config{})
				var f net.Conn
				if err := do(s.pool, lasting(t, time.Second), func(_ context.Context, c *conns.Conn) error {
					f = flow(c)
					c.Put()
					time.Sleep(2 * time.Second) // too long, with what is not his any more
					return nil
				}); err != nil {
					t.Error(err)
				}
				second := s.get()
				if net.Conn(flow(second)) != f {
					t.Error("another one was dialed")
				}
				exchange(t, second, "hello")
				second.Put()
			})
		})
	}
}

func TestNothingIsDoneWithoutAConnection(t *testing.T) {
	for way, do := range doing {
		onStage(t, 1, func(t *testing.T, s *stage) {
			s.start(conns.Config{})
			c := s.get()
			err := do(s.pool, lasting(t, time.Second), func(context.Context, *conns.Conn) error {
				t.Error("called")
				return nil
			})
			if !errors.Is(err, pool.ErrWait) || !strings.Contains(err.Error(), here) {
				t.Errorf("%s: got %v", way, err)
			}
			c.Put()
		})
	}
}

// A hedged is a stage with an idle connection, and one of which the first run of
// some work makes a black hole.
type hedged struct {
	*stage
	first, idle *conns.Conn // the latter was put back a while ago

	runs   atomic.Int32
	causes chan error // of the contexts of runs that failed
}

func hedge(t *testing.T, f func(h *hedged)) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.wired()
		s.start(conns.Config{})
		h := &hedged{stage: s, causes: make(chan error, 2)}
		h.idle, h.first = s.get(), s.get()
		exchange(t, h.idle, "hello")
		h.idle.Put()
		time.Sleep(time.Second)
		h.first.Put()
		f(h)
	})
}

// ask asks, into a black hole the first time.
func (h *hedged) ask(ctx context.Context, c *conns.Conn) error {
	if h.runs.Add(1) == 1 {
		if flow(c) != flow(h.first) {
			h.Error("not the warmest")
		}
		below(c).swallow()
	}
	err := talk(c, "hello")
	if err != nil {
		h.causes <- context.Cause(ctx)
	}
	return err
}

// prove has the idle connection answer once more, after d.
func (h *hedged) prove(d time.Duration) {
	time.AfterFunc(d, func() {
		if err := h.pool.Do(h.Context(), "tcp", here, func(_ context.Context, c *conns.Conn) error {
			if flow(c) != flow(h.idle) {
				h.Error("that is another one")
			}
			return talk(c, "hello")
		}); err != nil {
			h.Error(err)
		}
	})
}

func TestAHedgeRunsOnceWhereTheAnswerComes(t *testing.T) {
	hedge(t, func(h *hedged) {
		for range 3 {
			if err := h.pool.Hedge(h.Context(), "tcp", here, func(_ context.Context, c *conns.Conn) error {
				h.runs.Add(1)
				time.Sleep(time.Second)
				return talk(c, "hello")
			}); err != nil {
				h.Error(err)
			}
		}
		if n := h.runs.Load(); n != 3 {
			h.Errorf("%d runs", n)
		}
		h.wantOpened(2)
		h.wantClosed(pool.Discarded, 0)
	})
}

func TestASilentExchangeIsHedgedOnAConnectionWithFreshProof(t *testing.T) {
	hedge(t, func(h *hedged) {
		h.prove(300 * time.Millisecond) // while the first is silent
		start := time.Now()
		if err := h.pool.Hedge(h.Context(), "tcp", here, h.ask); err != nil {
			h.Error(err)
		}
		if took := time.Since(start); took < 600*time.Millisecond || took > 700*time.Millisecond {
			h.Errorf("that took %v, want three retransmission timeouts", took)
		}
		if n := h.runs.Load(); n != 2 {
			h.Errorf("%d runs", n)
		}
		if cause := <-h.causes; cause == nil || !strings.Contains(cause.Error(), "the other run was first") {
			h.Errorf("the first was called off by %v", cause)
		}
		h.wantOpened(2)
		h.wantClosed(pool.Discarded, 1)
		if a := h.account(); !flow(h.first).Closed() || a.Idle != 1 || a.Cooling[keepalive.RSTByUs] != 1 {
			h.Errorf("the silent one was not reset: %v", a)
		}
	})
}

func TestAHedgeRunsOnAConnectionThatComesBackWhileTheFirstIsSilent(t *testing.T) {
	hedge(t, func(h *hedged) {
		time.AfterFunc(500*time.Millisecond, func() {
			c := h.get() // lent when the first becomes suspect
			time.Sleep(300 * time.Millisecond)
			exchange(h, c, "hello")
			c.Put()
		})
		start := time.Now()
		err := h.pool.Hedge(h.Context(), "tcp", here, h.ask)
		if took := time.Since(start); err != nil || took < 800*time.Millisecond || took > 900*time.Millisecond {
			h.Errorf("got %v after %v", err, took)
		}
		h.wantOpened(2)
	})
}

func TestTheSecondRunIsWaitedForIfTheFirstFails(t *testing.T) {
	hedge(t, func(h *hedged) {
		h.prove(300 * time.Millisecond)
		start := time.Now()
		err := h.pool.Hedge(h.Context(), "tcp", here, func(ctx context.Context, c *conns.Conn) error {
			if flow(c) != flow(h.first) {
				time.Sleep(10 * time.Second)
				return talk(c, "hello")
			}
			return h.ask(ctx, c)
		})
		if took := time.Since(start); err != nil || took < 10*time.Second {
			h.Errorf("got %v after %v", err, took)
		}
		if cause := <-h.causes; cause != nil {
			h.Errorf("the first was called off by %v", cause)
		}
	})
}

func TestWithoutFreshProofNothingIsHedged(t *testing.T) {
	for name, prepare := range map[string]func(h *hedged){
		"the idle one proved itself before": func(*hedged) {},
		"it was put back unused": func(h *hedged) {
			time.Sleep(300 * time.Millisecond)
			h.get().Put()
		},
		"there is none": func(h *hedged) {
			time.Sleep(300 * time.Millisecond)
			c := h.get()
			time.Sleep(time.Second)
			c.Put()
		},
	} {
		t.Run(name, func(t *testing.T) {
			hedge(t, func(h *hedged) {
				go prepare(h)
				start := time.Now()
				err := h.pool.Hedge(h.Context(), "tcp", here, h.ask)
				if !isBlackhole(err) || time.Since(start) > 5*time.Second {
					h.Errorf("got %v after %v", err, time.Since(start))
				}
				if n := h.runs.Load(); n != 1 {
					h.Errorf("%d runs", n)
				}
				h.wantOpened(2)
			})
		})
	}
}

func TestTheFirstRunMayWinAfterAll(t *testing.T) {
	hedge(t, func(h *hedged) {
		h.prove(300 * time.Millisecond)
		time.AfterFunc(time.Second, func() { below(h.first).heal() })
		start := time.Now()
		err := h.pool.Hedge(h.Context(), "tcp", here, func(ctx context.Context, c *conns.Conn) error {
			if flow(c) == flow(h.first) {
				return h.ask(ctx, c)
			}
			h.runs.Add(1)
			_, err := io.ReadFull(c, make([]byte, 1)) // which never comes
			time.Sleep(time.Second)                   // and it is slow to heed its end
			return err
		})
		if took := time.Since(start); err != nil || took != 2*time.Second {
			h.Errorf("got %v after %v", err, took)
		}
		if n := h.runs.Load(); n != 2 {
			h.Errorf("%d runs", n)
		}
		if flow(h.first).Closed() || !flow(h.idle).Closed() {
			h.Error("not the one that was too late was closed")
		}
	})
}

func TestIfBothFailBothErrorsAreTold(t *testing.T) {
	hedge(t, func(h *hedged) {
		h.prove(300 * time.Millisecond)
		err := h.pool.Hedge(h.Context(), "tcp", here, func(ctx context.Context, c *conns.Conn) error {
			if flow(c) == flow(h.first) {
				return h.ask(ctx, c)
			}
			return errNo
		})
		if !errors.Is(err, errNo) || !isBlackhole(err) || !strings.HasPrefix(err.Error(), errNo.Error()) {
			h.Errorf("got %v", err)
		}
		h.wantClosed(pool.Discarded, 2)
	})
}

func TestAnAnswerThatSaysNoWins(t *testing.T) {
	hedge(t, func(h *hedged) {
		h.prove(300 * time.Millisecond)
		err := h.pool.Hedge(h.Context(), "tcp", here, func(ctx context.Context, c *conns.Conn) error {
			if flow(c) == flow(h.first) {
				return h.ask(ctx, c)
			}
			return pool.Clean(errNo)
		})
		if err != errNo {
			h.Errorf("got %v", err)
		}
		if !flow(h.first).Closed() || flow(h.idle).Closed() {
			h.Error("not the silent one was closed")
		}
	})
}

func TestAPanicWaitsForTheOtherRun(t *testing.T) {
	hedge(t, func(h *hedged) {
		h.prove(300 * time.Millisecond)
		over := false
		defer func() {
			if got := recover(); got != "out of luck" || !over {
				h.Errorf("recovered %v; the other run was over: %t", got, over)
			}
		}()
		h.pool.Hedge(h.Context(), "tcp", here, func(ctx context.Context, c *conns.Conn) error {
			if flow(c) == flow(h.first) {
				below(c).swallow()
				c.Write([]byte("hello"))
				time.Sleep(time.Second)
				panic("out of luck")
			}
			_, err := c.Read(make([]byte, 1))
			over = true
			return err
		})
	})
}

// What becomes suspect once more is hedged if that was in vain the first time, and
// nobody hears of the next user's trouble.
func TestAHedgeIsTriedAtEachSuspicionAndNotLater(t *testing.T) {
	hedge(t, func(h *hedged) {
		time.AfterFunc(time.Second, func() { below(h.first).heal() })
		h.prove(2400 * time.Millisecond)
		err := h.pool.Hedge(h.Context(), "tcp", here, func(ctx context.Context, c *conns.Conn) error {
			if flow(c) != flow(h.first) {
				return talk(c, "hello")
			}
			if err := h.ask(ctx, c); err != nil {
				return err
			}
			time.Sleep(time.Second)
			h.runs.Store(0)
			return h.ask(ctx, c)
		})
		if err != nil || !flow(h.first).Closed() {
			h.Errorf("got %v", err)
		}
	})
	hedge(t, func(h *hedged) {
		if err := h.pool.Hedge(h.Context(), "tcp", here, func(_ context.Context, c *conns.Conn) error {
			h.runs.Add(1)
			return talk(c, "hello")
		}); err != nil {
			h.Error(err)
		}
		c := h.get()
		below(c).swallow()
		h.prove(300 * time.Millisecond)
		talk(c, "hello")
		c.Close()
		if n := h.runs.Load(); n != 1 {
			h.Errorf("%d runs", n)
		}
	})
}

func TestHedgesInAStorm(t *testing.T) {
	onStage(t, 64, func(t *testing.T, s *stage) {
		s.wired()
		s.start(conns.Config{})
		var all sync.WaitGroup
		var failed atomic.Int32
		for i := range 8 {
			all.Go(func() {
				for n := range 300 {
					var holed atomic.Bool
					err := s.pool.Hedge(t.Context(), "tcp", here, func(_ context.Context, c *conns.Conn) error {
						if n%100 == 12*i && !holed.Swap(true) {
							below(c).swallow()
						}
						return talk(c, "hello")
					})
					time.Sleep(rand.N(100 * time.Millisecond))
					if err != nil && !isBlackhole(err) {
						t.Error(err)
					} else if err != nil {
						failed.Add(1)
					}
				}
			})
		}
		all.Wait()
		if n := failed.Load(); n > 4 { // of 24: almost always another one has just answered
			t.Errorf("%d failed", n)
		}
		synctest.Wait()
		if got := s.stats(); got.InUse != 0 {
			t.Errorf("got %+v", got)
		}
	})
}
