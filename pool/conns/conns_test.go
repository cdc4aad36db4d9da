package conns_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
	"golang.org/x/net/nettest"
)

func TestAConnectionThatWasPutBackIsLentAgain(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		first := s.get()
		exchange(t, first, "hello")
		first.Put()
		second := s.get()
		if flow(second) != flow(first) {
			t.Error("another one was dialed")
		}
		exchange(t, second, "again")
		second.Put()
		s.wantOpened(1)
		if got := s.stats(); got.Reused != 1 || got.Idle != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestTheWarmestIsLentFirst(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		a, b, c := s.get(), s.get(), s.get()
		b.Put()
		c.Put()
		a.Put()
		for _, want := range []*conns.Conn{a, c, b} {
			if got := s.get(); flow(got) != flow(want) {
				t.Errorf("got %v, want %v", got.LocalAddr(), want.LocalAddr())
			} else {
				defer got.Put()
			}
		}
	})
}

// late is what somebody may still do to a connection that is not his any more.
func late(c *conns.Conn) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		_, read := c.Read(make([]byte, 9))
		_, write := c.Write([]byte("late"))
		_, from := c.ReadFrom(strings.NewReader("late"))
		_, to := c.WriteTo(io.Discard)
		_, raw := c.SyscallConn()
		for name, err := range map[string]error{
			"Read": read, "Write": write, "ReadFrom": from, "WriteTo": to, "CloseWrite": c.CloseWrite(),
			"SetDeadline": c.SetDeadline(time.Unix(1, 0)), "SetReadDeadline": c.SetReadDeadline(time.Unix(1, 0)),
			"SetWriteDeadline": c.SetWriteDeadline(time.Unix(1, 0)), "SyscallConn": raw, "Close": c.Close(),
		} {
			if !yield(name, err) {
				return
			}
		}
		c.Put()
	}
}

func TestALateUserTouchesNothing(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		first := s.get()
		first.Put()
		second := s.get()
		for name, err := range late(first) {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("a late %s: %v", name, err)
			}
		}
		exchange(t, second, "undisturbed")
		if got, a := s.stats(), s.account(); got.InUse != 1 || got.Size != 1 || a.Active != 1 {
			t.Errorf("got %+v, %v", got, a)
		}
		second.Put()
		second.Put()
		second.Close()
		if got := s.stats(); got.Idle != 1 || got.Size != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestLateUsersInAStorm(t *testing.T) {
	onStage(t, 2, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					c, err := s.pool.Get(t.Context(), "tcp", here)
					if err != nil {
						t.Error(err)
						return
					}
					if err := talk(c, "mine only"); err != nil {
						t.Error(err)
					}
					c.Put()
					all.Go(func() {
						for name, err := range late(c) {
							if !errors.Is(err, net.ErrClosed) {
								t.Errorf("a late %s: %v", name, err)
							}
						}
					})
				}
			})
		}
		all.Wait()
	})
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("no more") }

func TestAConnectionGoesBackOnlyByPutAndOnlyClean(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, s *stage, c *conns.Conn){
		"closed":  func(t *testing.T, s *stage, c *conns.Conn) { c.Close() },
		"a FIN":   func(t *testing.T, s *stage, c *conns.Conn) { s.far(0).Close(); c.Read(make([]byte, 1)) },
		"a RST":   func(t *testing.T, s *stage, c *conns.Conn) { reset(s.far(0)); c.Write([]byte("x")) },
		"silence": func(t *testing.T, s *stage, c *conns.Conn) { timedOut(t, c) },
		"an answer that came after a silence": func(t *testing.T, s *stage, c *conns.Conn) {
			timedOut(t, c)
			c.SetDeadline(time.Time{})
			exchange(t, c, "late")
		},
		"a window that filled": func(t *testing.T, s *stage, c *conns.Conn) {
			s.net.BlackHole(here)
			c.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := c.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write: %v", err)
			}
			s.net.Heal(here)
		},
		"CloseWrite": func(t *testing.T, s *stage, c *conns.Conn) {
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		},
		"WriteTo": func(t *testing.T, s *stage, c *conns.Conn) {
			s.far(0).Write([]byte("the rest"))
			s.far(0).CloseWrite()
			var b strings.Builder
			if _, err := io.Copy(&b, c); b.String() != "the rest" || err != nil {
				t.Errorf("WriteTo: %q, %v", b.String(), err)
			}
		},
		"ReadFrom": func(t *testing.T, s *stage, c *conns.Conn) {
			if _, err := io.Copy(c, failingReader{}); err == nil {
				t.Error("ReadFrom did not fail")
			}
		},
		"closed underneath": func(t *testing.T, s *stage, c *conns.Conn) { c.NetConn().Close() },
		"closed underneath, with a deadline": func(t *testing.T, s *stage, c *conns.Conn) {
			c.SetDeadline(time.Now().Add(time.Hour))
			c.NetConn().Close()
		},
		"unread": func(t *testing.T, s *stage, c *conns.Conn) { s.far(0).Write([]byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				s.start(conns.Config{})
				first := s.get()
				use(t, s, first)
				first.Put()
				second := s.get()
				if flow(second) == flow(first) {
					t.Error("it was lent again")
				}
				exchange(t, second, "fresh")
				second.Put()
				if name == "unread" {
					s.wantClosed(pool.Failed, 1)
				} else {
					s.wantClosed(pool.Discarded, 1)
				}
				if !flow(first).Closed() {
					t.Error("its flow is still open")
				}
			})
		})
	}
}

func reset(c far) {
	c.SetLinger(0)
	c.Close()
}

func TestWhatWasSentWholeGoesBack(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		first := s.get()
		if n, err := io.Copy(first, strings.NewReader("copied")); n != 6 || err != nil {
			t.Fatal(n, err)
		}
		var b strings.Builder
		if n, err := io.CopyN(&b, first, 6); n != 6 || err != nil || b.String() != "copied" {
			t.Errorf("got %q, %v", b.String(), err)
		}
		first.Put()
		second := s.get()
		if flow(second) != flow(first) {
			t.Error("it was not lent again")
		}
		second.Put()
	})
}

func TestPutWhileItIsUsedEndsIt(t *testing.T) {
	for name, block := range map[string]func(c *conns.Conn) error{
		"read":    func(c *conns.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"written": func(c *conns.Conn) error { _, err := c.Write(make([]byte, 1<<20)); return err },
		"copied":  func(c *conns.Conn) error { _, err := io.Copy(io.Discard, c); return err },
	} {
		for way, end := range map[string]func(*conns.Conn){"Put": (*conns.Conn).Put, "Close": func(c *conns.Conn) { c.Close() }} {
			t.Run(name+", "+way, func(t *testing.T) {
				onStage(t, 4, func(t *testing.T, s *stage) {
					s.serve = nil
					s.start(conns.Config{})
					c := s.get()
					woken := make(chan error)
					go func() { woken <- block(c) }()
					synctest.Wait()
					end(c)
					if err := <-woken; !errors.Is(err, net.ErrClosed) {
						t.Errorf("it ended with %v", err)
					}
					s.wantClosed(pool.Discarded, 1)
				})
			})
		}
	}
}

func TestADeadlineDoesNotReachTheNextUser(t *testing.T) {
	for name, set := range map[string]func(c *conns.Conn, at time.Time) error{
		"SetDeadline":      (*conns.Conn).SetDeadline,
		"SetReadDeadline":  (*conns.Conn).SetReadDeadline,
		"SetWriteDeadline": (*conns.Conn).SetWriteDeadline,
	} {
		for _, at := range []time.Duration{-time.Second, time.Second} {
			t.Run(name+" "+at.String(), func(t *testing.T) {
				onStage(t, 4, func(t *testing.T, s *stage) {
					s.start(conns.Config{})
					first := s.get()
					if err := set(first, time.Now().Add(at)); err != nil {
						t.Error(err)
					}
					first.Put()
					second := s.get()
					time.Sleep(2 * time.Second)
					if flow(second) != flow(first) {
						t.Error("it was not lent again")
					}
					exchange(t, second, "in time")
					second.Put()
				})
			})
		}
	}
}

// arrivals are what may come while a connection is idle.
var arrivals = map[string]func(c far){
	"FIN":       func(c far) { c.Close() },
	"half FIN":  func(c far) { c.CloseWrite() },
	"RST":       func(c far) { reset(c) },
	"data":      func(c far) { c.Write([]byte("by the way")) },
	"data, FIN": func(c far) { c.Write([]byte("goodbye")); c.Close() },
	"data, RST": func(c far) { c.Write([]byte("goodbye")); reset(c) },
}

func TestWhatHasEndedOrSpokenIsNotLent(t *testing.T) {
	for name, come := range arrivals {
		t.Run(name, func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				s.start(conns.Config{})
				good, bad := s.get(), s.get()
				good.Put()
				bad.Put() // the warmest
				come(s.far(1))
				second := s.get()
				if flow(second) != flow(good) {
					t.Error("the one that is in order was not lent")
				}
				exchange(t, second, "in order")
				third := s.get()
				if flow(third) == flow(bad) {
					t.Error("the other one was lent")
				}
				exchange(t, third, "fresh")
				third.Put()
				second.Put()
				s.wantClosed(pool.Failed, 1)
				s.wantOpened(3)
			})
		})
	}
}

// All idle connections of a server that was restarted have ended.
func TestARestartedServerCostsNoExchange(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		var idle []*conns.Conn
		for range 4 {
			idle = append(idle, s.get())
		}
		for i, c := range idle {
			c.Put()
			s.far(i).Close()
		}
		c := s.get()
		exchange(t, c, "hello")
		c.Put()
		s.wantClosed(pool.Failed, 4)
	})
}

func TestALookIsTakenAtWhatAWaiterIsGiven(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		s.ledger.MaxWait = -1
		first := s.get()
		got := make(chan *conns.Conn)
		go func() { got <- s.get() }()
		synctest.Wait()
		s.far(0).Close()
		first.Put()
		second := <-got
		if flow(second) == flow(first) {
			t.Error("the waiter got what had ended")
		}
		exchange(t, second, "fresh")
		second.Put()
	})
}

func TestTheLedgerKnowsWhatIsIdle(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		c := s.get()
		if a := s.account(); a.Active != 1 || a.Idle != 0 {
			t.Errorf("while it is lent: %v", a)
		}
		c.Put()
		if a := s.account(); a.Active != 0 || a.Idle != 1 {
			t.Errorf("while it is idle: %v", a)
		}
		time.Sleep(time.Minute) // it is looked at
		if a := s.account(); a.Active != 0 || a.Idle != 1 {
			t.Errorf("later: %v", a)
		}
		c = s.get()
		if a := s.account(); a.Active != 1 || a.Idle != 0 {
			t.Errorf("when it is lent again: %v", a)
		}
		c.Close()
		if a := s.account(); a.Active != 0 || a.Idle != 0 {
			t.Errorf("in the end: %v", a)
		}
	})
}

func TestSomebodyElseMayHaveThePortOfAnIdleConnection(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.ledger.MaxWait = -1
		s.start(conns.Config{})
		first := s.get()
		first.Put()
		start := time.Now()
		other, err := s.stranger().DialContext(t.Context(), "tcp", here)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 20*time.Second { // a second of patience, and the hold after a RST
			t.Errorf("that took %v", took)
		}
		if !flow(first).Closed() {
			t.Error("the idle one is still there")
		}
		time.AfterFunc(time.Second, func() { other.Close() })
		second := s.get()
		exchange(t, second, "fresh")
		second.Put()
		s.wantOpened(2)
		s.wantClosed(pool.Spent, 1)
	})
}

func TestWhatIsOnlyBeatenIsIdleAllTheSame(t *testing.T) {
	onStage(t, 2, func(t *testing.T, s *stage) {
		s.ledger.MaxWait = -1
		s.start(conns.Config{Beat: func(_ context.Context, c net.Conn) error { return talk(c, "PING") }, BeatEvery: 5 * time.Second})
		idle := s.get()
		idle.Put()
		other := s.stranger()
		start := time.Now()
		for range 2 {
			c, err := other.DialContext(lasting(t, 10*time.Minute), "tcp", here)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if took := time.Since(start); took > time.Minute || !flow(idle).Closed() {
			t.Errorf("the second dial took %v, and the idle one is closed: %t", took, flow(idle).Closed())
		}
	})
}

func TestAGetAfterARetirementFindsAnother(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		a, b := s.get(), s.get()
		a.Put()
		b.Put()
		if !flow(b).Retire() {
			t.Fatal("not retired")
		}
		flow(b).Close()
		c := s.get()
		if flow(c) != flow(a) {
			t.Error("another one was dialed")
		}
		exchange(t, c, "hello")
		c.Put()
	})
}

// A greedy budget wants back the first grants that it gives, from the beginning.
type greedy struct{ left atomic.Int32 }

type grant struct{ revoked bool }

func (g *greedy) Take(netpath.Key) (budget.Grant, bool) { return &grant{g.left.Add(-1) >= 0}, true }
func (g *greedy) Notify(chan<- struct{})                {}
func (g *grant) Release()                               {}
func (g *grant) Revoked() bool                          { return g.revoked }

func TestAConnectionThatTheBudgetWantsBackIsLentOnceAllTheSame(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		b := new(greedy)
		b.left.Store(2)
		s.ledger.Budget = b
		s.start(conns.Config{})
		for range 3 {
			c := s.get()
			exchange(t, c, "hello")
			c.Put()
		}
		s.wantOpened(3)
		s.wantClosed(pool.Spent, 2)
	})
}

func TestARetirementThatMeetsAGetDisturbsNobody(t *testing.T) {
	onStage(t, 1000, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		var all sync.WaitGroup
		for range 500 {
			c := s.get()
			exchange(t, c, "hello")
			f := flow(c)
			c.Put()
			all.Go(func() {
				if f.Retire() {
					f.Close()
				}
			})
		}
		all.Wait()
	})
}

// A server may go while Hello talks to it.
func TestAFreshConnectionThatHasEndedIsTriedOnceMore(t *testing.T) {
	for _, test := range []struct {
		hangsUp int32
		opened  int
		works   bool
	}{{0, 1, true}, {1, 2, true}, {9, 2, false}} { // one that hangs up on everybody is for the caller to see
		onStage(t, 16, func(t *testing.T, s *stage) {
			var served atomic.Int32
			s.serve = func(c net.Conn) {
				if served.Add(1) <= test.hangsUp {
					c.Close()
					return
				}
				repeat(c)
			}
			s.start(conns.Config{Hello: func(_ context.Context, c net.Conn) (net.Conn, error) {
				time.Sleep(time.Second)
				return c, nil
			}})
			c := s.get()
			if err := talk(c, "hello"); (err == nil) != test.works {
				t.Errorf("after %d were hung up on: %v", test.hangsUp, err)
			}
			c.Put()
			s.wantOpened(test.opened)
		})
	}
}

// Two pools live on three ports. Nobody's exchange fails, though
// idle connections are ended by the ledger and by the server.
func TestNoExchangeFailsInAStorm(t *testing.T) {
	for name, cfg := range map[string]conns.Config{
		"looked at": {},
		"asked":     {Beat: func(_ context.Context, c net.Conn) error { return talk(c, "PING") }, BeatEvery: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, 3, func(t *testing.T, s *stage) {
				s.ledger.MaxWait = -1
				s.serve = func(c net.Conn) {
					// Between two milliseconds nobody asks anything.
					c.SetReadDeadline(time.Now().Add(time.Duration(rand.N(2000))*time.Millisecond + 500*time.Microsecond))
					repeat(c)
				}
				pools := []*conns.Pool{s.start(cfg), conns.New(s.stranger(), cfg)}
				defer pools[1].Close(t.Context())
				var all sync.WaitGroup
				for i := range 6 {
					all.Go(func() {
						for range 30 {
							time.Sleep(time.Duration(rand.N(400)) * time.Millisecond)
							c, err := pools[i%2].Get(t.Context(), "tcp", here)
							if err != nil {
								t.Error(err)
								return
							}
							if err := talk(c, "exchange "+string(rune('a'+i))); err != nil {
								t.Error(err)
							}
							c.Put()
						}
					})
				}
				all.Wait()
				if peak := s.nat.Stats().Peak; peak > 3 {
					t.Errorf("%d ports were held", peak)
				}
			})
		})
	}
}

func TestWhatThePathMayHaveForgottenIsNotLent(t *testing.T) {
	for _, test := range []struct {
		idle time.Duration
		lent bool
	}{{229 * time.Second, true}, {231 * time.Second, false}, {time.Hour, false}} {
		t.Run(test.idle.String(), func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				s.dialer.Plan.Idle = -1 // no probes
				s.start(conns.Config{})
				first := s.get()
				exchange(t, first, "hello")
				first.Put()
				time.Sleep(test.idle)
				second := s.get()
				if lent := flow(second) == flow(first); lent != test.lent {
					t.Errorf("lent again: %t", lent)
				}
				exchange(t, second, "remembered")
				second.Put()
			})
		})
	}
}

func TestABeatKeepsAConnectionKnown(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.dialer.Plan.Idle = -1
		s.start(conns.Config{Beat: func(_ context.Context, c net.Conn) error { return talk(c, "PING") }, BeatEvery: time.Minute})
		first := s.get()
		first.Put()
		time.Sleep(time.Hour)
		second := s.get()
		if flow(second) != flow(first) {
			t.Error("another one was dialed")
		}
		exchange(t, second, "remembered")
		second.Put()
	})
}

func TestThereAreAsManyAsThereArePorts(t *testing.T) {
	onStage(t, 2, func(t *testing.T, s *stage) {
		s.ledger.MaxWait = -1
		s.start(conns.Config{})
		order := make(chan int, 8)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				c := s.get()
				order <- i
				exchange(t, c, "hello")
				time.Sleep(time.Second)
				c.Put()
			})
			time.Sleep(time.Millisecond)
		}
		if a := s.account(); a.Active != 2 || a.Waiting != 1 { // the pool asks once
			t.Errorf("got %v", a)
		}
		all.Wait()
		for i := range 8 {
			if got := <-order; got != i {
				t.Errorf("turn %d was that of %d", i, got)
			}
		}
		if got := s.nat.Stats(); got.Opened != 2 || got.RefusedSYNs != 0 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestThePortIsNotWaitedForWhenAPutServesTheWaiter(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.ledger.MaxWait = -1
		s.start(conns.Config{})
		first := s.get()
		got := make(chan *conns.Conn)
		go func() { got <- s.get() }()
		if a := s.account(); a.Waiting != 1 {
			t.Errorf("while somebody waits: %v", a)
		}
		first.Put()
		second := <-got
		if flow(second) != flow(first) {
			t.Error("another one was dialed")
		}
		if a, stats := s.account(), s.stats(); a.Waiting != 0 || a.Asked != 0 || stats.Asking != 0 || stats.Size != 1 {
			t.Errorf("nobody waits any more: %v, %+v", a, stats)
		}
		second.Put()
	})
}

func TestAGetInVainSaysWhereAndWhy(t *testing.T) {
	mine := func(s *stage) io.Closer { return s.get() }
	theirs := func(s *stage) io.Closer {
		c, err := s.stranger().DialContext(s.Context(), "tcp", here)
		if err != nil {
			s.Fatal(err)
		}
		return c
	}
	cancel := errors.New("changed my mind")
	for _, test := range []struct {
		name    string
		taken   func(s *stage) io.Closer // the only port; nil: by nobody
		address string
		patient time.Duration // zero: without a deadline
		cancel  bool
		want    []error
		not     error
	}{
		{name: "all are lent", taken: mine, patient: time.Second, want: []error{pool.ErrWait, context.DeadlineExceeded, dialer.ErrBudget}},
		{name: "all are lent, for longer than MaxWait", taken: mine, patient: time.Minute,
			want: []error{pool.ErrWait, context.DeadlineExceeded, dialer.ErrBudget}},
		{name: "somebody else has the port", taken: theirs, patient: time.Second,
			want: []error{pool.ErrWait, context.DeadlineExceeded, dialer.ErrBudget}},
		{name: "somebody else keeps the port", taken: theirs, want: []error{dialer.ErrBudget}, not: pool.ErrWait},
		{name: "called off", taken: mine, patient: time.Second, cancel: true, want: []error{cancel}, not: pool.ErrWait},
		{name: "called off, which needs no reason", taken: mine, patient: time.Second, cancel: true, want: []error{cancel}, not: dialer.ErrBudget},
		{name: "nobody there", address: "20.1.2.3:9", not: pool.ErrWait},
	} {
		t.Run(test.name, func(t *testing.T) {
			onStage(t, 1, func(t *testing.T, s *stage) {
				s.start(conns.Config{})
				if test.taken != nil {
					defer test.taken(s).Close()
				}
				ctx := t.Context()
				if test.patient > 0 {
					ctx = lasting(t, test.patient)
				}
				if test.cancel {
					var stop context.CancelCauseFunc
					ctx, stop = context.WithCancelCause(ctx)
					time.AfterFunc(time.Millisecond, func() { stop(cancel) })
				}
				address := test.address
				if address == "" {
					address = here
				}
				c, err := s.pool.Get(ctx, "tcp", address)
				if err == nil {
					c.Close()
					t.Fatal("got one")
				}
				for _, want := range test.want {
					if !errors.Is(err, want) {
						t.Errorf("%q is not %q", err, want)
					}
				}
				if test.not != nil && errors.Is(err, test.not) {
					t.Errorf("%q is %q", err, test.not)
				}
				if !strings.Contains(err.Error(), address) {
					t.Errorf("%q does not name %s", err, address)
				}
				var b *dialer.BudgetError
				if errors.As(err, &b) && (b.Account.Key.Dest != netip.MustParseAddrPort(here) || b.Account.Active != 1) {
					t.Errorf("it names %v", b.Account)
				}
				if !dialer.SafeToRetry(err) {
					t.Errorf("%q is not safe to retry", err)
				}
			})
		})
	}
}

func TestAGetInVainNamesTheAccountThatItsOwnAddressWaitsFor(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		defer s.get().Close()
		there, err := s.pool.Get(t.Context(), "tcp", elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		var all sync.WaitGroup
		for _, address := range []string{here, elsewhere} {
			all.Go(func() {
				_, err := s.pool.Get(lasting(t, time.Second), "tcp", address)
				var b *dialer.BudgetError
				if !errors.As(err, &b) || b.Account.Key.Dest.String() != address {
					t.Errorf("%s: %v", address, err)
				}
			})
		}
		all.Wait()
	})
}

func TestPoolsOfOneDialerAreOneOwnerOfAnAddress(t *testing.T) {
	onStage(t, 20, func(t *testing.T, s *stage) {
		s.ledger.MaxWait = time.Second
		s.start(conns.Config{})
		other := conns.New(s.dialer, conns.Config{})
		for range 19 {
			defer s.get().Close()
		}
		for _, network := range []string{"tcp", "tcp4"} {
			// The last port is a newcomer's, which the other pool is not.
			if c, err := other.Get(t.Context(), network, here); !errors.Is(err, dialer.ErrBudget) {
				t.Fatalf("%s: the other pool got %v, %v", network, c, err)
			}
		}
		c, err := s.stranger().DialContext(t.Context(), "tcp", here)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := other.Close(lasting(t, time.Second)); err != nil {
			t.Error(err)
		}
	})
}

func TestASecondAddressIsTheSameOwners(t *testing.T) {
	onStage(t, 20, func(t *testing.T, s *stage) {
		s.ledger.MaxWait = time.Second
		s.dialer.Resolver = resolver{"20.1.2.5", "20.1.2.3"} // nobody is at the first
		s.start(conns.Config{})
		get := func() (*conns.Conn, error) { return s.pool.Get(lasting(t, time.Minute), "tcp", "db.example:443") }
		for range 19 {
			c, err := get()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if c, err := get(); err == nil {
			t.Error("it has the port of a newcomer")
			c.Close()
		}
	})
}

// A resolver knows one name.
type resolver []string

func (r resolver) LookupNetIP(context.Context, string, string) (all []netip.Addr, err error) {
	for _, s := range r {
		all = append(all, netip.MustParseAddr(s))
	}
	return all, nil
}

func TestHelloRunsOnceAConnection(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var greeted atomic.Int32
		s.start(conns.Config{Hello: func(_ context.Context, c net.Conn) (net.Conn, error) {
			greeted.Add(1)
			c.SetDeadline(time.Now().Add(time.Second)) // which ends with Hello
			return c, talk(c, "AUTH secret")
		}})
		for range 3 {
			c := s.get()
			time.Sleep(2 * time.Second)
			exchange(t, c, "hello")
			c.Put()
		}
		if n := greeted.Load(); n != 1 {
			t.Errorf("it ran %d times", n)
		}
	})
}

// A shouter is a protocol of its own on top of a connection.
type shouter struct{ net.Conn }

func (s shouter) NetConn() net.Conn { return s.Conn }
func (s shouter) Write(b []byte) (int, error) {
	return s.Conn.Write([]byte(strings.ToUpper(string(b))))
}

func TestHelloMayWrapTheConnection(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{Hello: func(_ context.Context, c net.Conn) (net.Conn, error) { return shouter{c}, nil }})
		first := s.get()
		first.Write([]byte("hello"))
		b := make([]byte, 5)
		if _, err := io.ReadFull(first, b); err != nil || string(b) != "HELLO" {
			t.Errorf("got %q, %v", b, err)
		}
		if _, ok := first.NetConn().(shouter); !ok {
			t.Errorf("NetConn is a %T", first.NetConn())
		}
		if err := first.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("CloseWrite: %v", err)
		}
		first.Put()
		second := s.get()
		if flow(second) != flow(first) {
			t.Error("another one was dialed")
		}
		second.Put()
		s.far(0).Write([]byte("unasked"))
		third := s.get()
		if flow(third) == flow(first) {
			t.Error("it was lent after the server had spoken")
		}
		third.Put()
	})
}

// A stutterer returns nothing at first, which a Reader may.
type stutterer struct {
	shouter
	silent atomic.Bool
}

func (s *stutterer) Read(b []byte) (int, error) {
	if s.silent.CompareAndSwap(true, false) {
		_, err := s.Conn.Read(b[:1])
		return 0, err
	}
	return s.Conn.Read(b)
}

func TestALookLeavesNoDeadlineBehind(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		w := new(stutterer)
		s.start(conns.Config{Hello: func(_ context.Context, c net.Conn) (net.Conn, error) {
			w.Conn = c
			return w, nil
		}})
		first := s.get()
		first.Put()
		w.silent.Store(true)
		s.far(0).Write([]byte("x")) // which w swallows
		second := s.get()
		if flow(second) != flow(first) {
			t.Fatal("another one was dialed: the test shows nothing")
		}
		time.Sleep(time.Second)
		exchange(t, second, "IN TIME")
		second.Put()
	})
}

func TestAHelloThatFailsFailsTheGetAndClosesTheFlow(t *testing.T) {
	denied := errors.New("denied")
	near, other := net.Pipe()
	defer near.Close()
	defer other.Close()
	for _, test := range []struct {
		name  string
		hello func(ctx context.Context, c net.Conn) (net.Conn, error)
		says  string
		is    error
		took  time.Duration
	}{
		{"denied", func(context.Context, net.Conn) (net.Conn, error) { return nil, denied }, "denied", denied, 0},
		{"deaf to its context", func(_ context.Context, c net.Conn) (net.Conn, error) {
			_, err := c.Read(make([]byte, 1)) // which never comes
			return c, err
		}, "timeout", os.ErrDeadlineExceeded, 3 * time.Second},
		{"that moves its deadline", func(ctx context.Context, c net.Conn) (net.Conn, error) {
			c.SetDeadline(time.Now().Add(time.Hour))
			_, err := c.Read(make([]byte, 1))
			return c, err
		}, "timeout", os.ErrDeadlineExceeded, 3 * time.Second},
		{"deaf and late", func(ctx context.Context, c net.Conn) (net.Conn, error) {
			<-ctx.Done()
			return c, nil
		}, "deadline", context.DeadlineExceeded, 3 * time.Second},
		{"nothing", func(context.Context, net.Conn) (net.Conn, error) { return nil, nil }, "<nil>", nil, 0},
		{"another", func(context.Context, net.Conn) (net.Conn, error) { return near, nil }, "*net.pipe", nil, 0},
		{"hidden", func(_ context.Context, c net.Conn) (net.Conn, error) { return struct{ net.Conn }{c}, nil }, "struct", nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			onStage(t, 1, func(t *testing.T, s *stage) {
				s.start(conns.Config{Hello: test.hello, OpenTimeout: 3 * time.Second})
				start := time.Now()
				c, err := s.pool.Get(t.Context(), "tcp", here)
				if err == nil {
					c.Close()
					t.Fatal("got one")
				}
				if !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), here) || test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("got %q", err)
				}
				if !dialer.SafeToRetry(err) {
					t.Errorf("%q is not safe to retry", err)
				}
				if took := time.Since(start); took != test.took {
					t.Errorf("that took %v", took)
				}
				if a := s.account(); a.Active+a.Idle != 0 || a.Taken() != 1 {
					t.Errorf("the port is not cooling: %v", a)
				}
			})
		})
	}
}

func TestHelloMayNotReturnAnotherFlow(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.start(conns.Config{Hello: func(ctx context.Context, _ net.Conn) (net.Conn, error) {
			other, err := s.dialer.DialContext(ctx, "tcp", elsewhere)
			if err == nil {
				defer other.Close()
			}
			return other, err
		}})
		if _, err := s.pool.Get(t.Context(), "tcp", here); err == nil || !strings.Contains(err.Error(), "*dialer.Conn") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseEndsAHello(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.start(conns.Config{Hello: func(_ context.Context, c net.Conn) (net.Conn, error) {
			_, err := c.Read(make([]byte, 1)) // which never comes
			return c, err
		}})
		got := make(chan error)
		go func() {
			_, err := s.pool.Get(t.Context(), "tcp", here)
			got <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := s.pool.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, pool.ErrClosed) || !strings.Contains(err.Error(), here) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("that took %v", took)
		}
	})
}

func TestARetirementIsKnownAtOnce(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		c := s.get()
		c.Put()
		flow(c).Retire()
		flow(c).Close()
		synctest.Wait()
		s.wantClosed(pool.Spent, 1)
	})
}

func TestABeatThatIsNotAnsweredEndsTheConnection(t *testing.T) {
	for name, beat := range map[string]func(ctx context.Context, c net.Conn) error{
		"deaf to its context": func(_ context.Context, c net.Conn) error { return talk(c, "PING") },
		"that moves its deadline": func(_ context.Context, c net.Conn) error {
			c.SetDeadline(time.Now().Add(time.Hour))
			return talk(c, "PING")
		},
		"that fails":             func(context.Context, net.Conn) error { return errors.New("LOADING") },
		"that leaves its answer": func(_ context.Context, c net.Conn) error { c.Write([]byte("PING")); synctest.Wait(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				if strings.Contains(name, "dea") {
					s.serve = nil
				}
				s.start(conns.Config{Beat: beat, BeatEvery: 10 * time.Second, ProbeTimeout: 2 * time.Second})
				c := s.get()
				c.Put()
				time.Sleep(8 * time.Second)
				if got := s.stats(); got.Idle != 1 {
					t.Errorf("too early: %+v", got)
				}
				time.Sleep(5 * time.Second)
				s.wantClosed(pool.Failed, 1)
				if a := s.account(); a.Active+a.Idle != 0 {
					t.Errorf("got %v", a)
				}
			})
		})
	}
}

func TestProbeTimeoutBoundsABeat(t *testing.T) {
	for _, test := range []struct{ timeout, want time.Duration }{
		{0, 5 * time.Second}, {2 * time.Second, 2 * time.Second}, {-1, time.Hour}, // when the pool is closed
	} {
		t.Run(test.timeout.String(), func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				s.serve = nil
				began, took := make(chan time.Time, 1), make(chan time.Duration, 1)
				s.start(conns.Config{BeatEvery: time.Minute, ProbeTimeout: test.timeout, Beat: func(_ context.Context, c net.Conn) error {
					start := time.Now()
					began <- start
					defer func() { took <- time.Since(start) }()
					return talk(c, "PING")
				}})
				s.get().Put()
				time.Sleep(time.Until((<-began).Add(time.Hour)))
				if err := s.pool.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if got := <-took; got != test.want {
					t.Errorf("it took %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestAConnectionIsNotBeatenWhileItIsLent(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var beats atomic.Int32
		s.start(conns.Config{BeatEvery: time.Minute, Beat: func(_ context.Context, c net.Conn) error {
			if a := s.ledger.Accounts()[0]; a.Active != 1 {
				t.Errorf("while it is asked: %v", a)
			}
			beats.Add(1)
			return talk(c, "PING")
		}})
		c := s.get()
		for range 60 {
			time.Sleep(time.Minute)
			exchange(t, c, "hello")
		}
		if n := beats.Load(); n != 0 {
			t.Errorf("beaten %d times", n)
		}
		c.Put()
		time.Sleep(time.Hour)
		if n := beats.Load(); n < 60 || n > 67 { // each interval is shortened by up to a tenth
			t.Errorf("beaten %d times in an hour", n)
		}
		if a := s.account(); a.Idle != 1 || a.Active != 0 {
			t.Errorf("afterwards: %v", a)
		}
		c = s.get()
		time.Sleep(10 * time.Second) // the deadline of a Beat is over
		exchange(t, c, "hello")
		c.Put()
		s.wantClosed(pool.Failed, 0)
	})
}

// Nobody gets or puts anything meanwhile.
func TestAnIdleConnectionThatHasEndedGivesItsPortBack(t *testing.T) {
	for name, end := range map[string]struct {
		far  func(far)
		hold time.Duration
	}{"FIN": {func(c far) { c.Close() }, 240 * time.Second}, "RST": {reset, 15 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			onStage(t, 4, func(t *testing.T, s *stage) {
				s.start(conns.Config{})
				s.get().Put()
				end.far(s.far(0))
				time.Sleep(10 * time.Second)
				s.wantClosed(pool.Failed, 1)
				if a := s.account(); a.Idle != 0 || a.Taken() != 1 {
					t.Errorf("after 10 s: %v", a)
				}
				time.Sleep(end.hold + time.Second)
				if a := s.account(); a.Taken() != 0 {
					t.Errorf("after the hold: %v", a)
				}
			})
		})
	}
}

func TestTheBoundsArePassedOn(t *testing.T) {
	for _, test := range []struct {
		name   string
		cfg    conns.Config
		after  time.Duration
		idle   int
		reason pool.Reason
		closed int
	}{
		{"MaxIdle, before", conns.Config{MaxIdle: time.Minute}, 59 * time.Second, 2, pool.Idled, 0},
		{"MaxIdle", conns.Config{MaxIdle: time.Minute}, time.Minute, 0, pool.Idled, 2},
		{"MaxIdle and MinIdle", conns.Config{MaxIdle: time.Minute, MinIdle: 1}, 2 * time.Minute, 1, pool.Idled, 1},
		{"MaxLife, before", conns.Config{MaxLife: time.Minute}, 44 * time.Second, 2, pool.Aged, 0},
		{"MaxLife", conns.Config{MaxLife: time.Minute}, time.Minute, 0, pool.Aged, 2},
		{"MinIdle", conns.Config{MinIdle: 3}, time.Minute, 3, pool.Idled, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			onStage(t, 8, func(t *testing.T, s *stage) {
				s.start(test.cfg)
				a, b := s.get(), s.get()
				a.Put()
				b.Put()
				time.Sleep(test.after)
				if got := s.stats(); got.Idle != test.idle {
					t.Errorf("got %+v", got)
				}
				if test.idle > 0 {
					s.wantClosed(test.reason, test.closed)
				}
				if a := s.account(); a.Idle != test.idle {
					t.Errorf("got %v", a)
				}
			})
		})
	}
}

func TestMaxBoundsAnAddress(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.start(conns.Config{Max: 1})
		first := s.get()
		_, err := s.pool.Get(lasting(t, time.Second), "tcp", here)
		if !errors.Is(err, pool.ErrWait) || !strings.Contains(err.Error(), "at most 1") {
			t.Errorf("got %v", err)
		}
		other, err := s.pool.Get(t.Context(), "tcp", elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		other.Put()
		first.Put()
	})
}

func TestTheLongestIdleEndsSoonestWherePortsAreScarce(t *testing.T) {
	for _, test := range []struct {
		ports int
		want  keepalive.How
	}{{2, keepalive.RSTByUs}, {10, keepalive.FINByUs}} {
		t.Run(test.want.String(), func(t *testing.T) {
			onStage(t, test.ports, func(t *testing.T, s *stage) {
				s.start(conns.Config{})
				a, b := s.get(), s.get()
				exchange(t, a, "hello")
				a.Put()
				b.Put()
				if !s.pool.Reclaim() {
					t.Error("nothing was reclaimed")
				}
				if got := s.account(); got.Cooling[test.want] != 1 || got.Idle != 1 {
					t.Errorf("got %v, %v", got, got.Cooling)
				}
				if !flow(a).Closed() || flow(b).Closed() {
					t.Error("not the one that was idle for longest")
				}
				s.wantClosed(pool.Reclaimed, 1)
				if !s.pool.Reclaim() || s.pool.Reclaim() {
					t.Error("not exactly one more")
				}
			})
		})
	}
}

func TestAConnectionThatItsUserClosesEndsByFIN(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.serve = func(c net.Conn) { io.Copy(io.Discard, c); c.Close() } // what is unread would make it a RST
		s.start(conns.Config{})
		c := s.get()
		io.WriteString(c, "the last words")
		c.Close()
		if got := s.account(); got.Cooling[keepalive.RSTByUs] != 0 || got.Taken() != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestResetEndsWaitsAndWhatIsLentWhenItIsPutBack(t *testing.T) {
	onStage(t, 1, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		lent := s.get()
		other, err := s.pool.Get(t.Context(), "tcp", elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		other.Put()
		waits := make(chan error)
		go func() {
			_, err := s.pool.Get(t.Context(), "tcp", here)
			waits <- err
		}()
		synctest.Wait()
		gone := errors.New("the primary has gone")
		s.pool.Reset("tcp", here, gone)
		if err := <-waits; !errors.Is(err, pool.ErrReset) || !errors.Is(err, gone) || !dialer.SafeToRetry(err) || !strings.Contains(err.Error(), here) {
			t.Errorf("who waited got %v", err)
		}
		exchange(t, lent, "undisturbed")
		lent.Put()
		s.wantClosed(pool.Purged, 1)
		if !flow(lent).Closed() || flow(other).Closed() {
			t.Error("it is still there, or another address was reset too")
		}
	})
}

func TestResetClosesWhatIsIdleAtOnce(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		a, b := s.get(), s.get()
		a.Put()
		s.pool.Reset("tcp4", here, nil) // nobody's
		if a := s.account(); a.Idle != 1 {
			t.Errorf("somebody else's Reset: %v", a)
		}
		s.pool.Reset("tcp", here, nil)
		if a := s.account(); a.Idle != 0 || a.Active != 1 {
			t.Errorf("got %v", a)
		}
		b.Put()
		s.wantClosed(pool.Purged, 2)
		if a := s.account(); a.Idle+a.Active != 0 {
			t.Errorf("got %v", a)
		}
	})
}

func TestStatsAreByAddress(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		for range s.pool.Stats() {
			t.Error("before the first Get there is something")
		}
		a := s.get()
		b, err := s.pool.Get(t.Context(), "tcp", elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		b.Put()
		got := make(map[string]int)
		for address, stats := range s.pool.Stats() {
			got[address] = stats.InUse
		}
		if len(got) != 2 || got[here] != 1 || got[elsewhere] != 0 {
			t.Errorf("got %v", got)
		}
		n := 0
		for range s.pool.Stats() {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%d after a break", n)
		}
		a.Put()
	})
}

func TestCloseWaitsForWhatIsLent(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.start(conns.Config{})
		lent, idle := s.get(), s.get()
		idle.Put()
		if err := s.pool.Close(lasting(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close, while one is lent: %v", err)
		}
		if !flow(idle).Closed() {
			t.Error("the idle one is still there")
		}
		exchange(t, lent, "undisturbed")
		time.AfterFunc(time.Second, lent.Put)
		start := time.Now()
		if err := s.pool.Close(t.Context()); err != nil || time.Since(start) != time.Second {
			t.Errorf("Close: %v, after %v", err, time.Since(start))
		}
		for _, address := range []string{here, elsewhere} {
			_, err := s.pool.Get(t.Context(), "tcp", address)
			if !errors.Is(err, pool.ErrClosed) || !strings.Contains(err.Error(), address) || !dialer.SafeToRetry(err) {
				t.Errorf("Get: %v", err)
			}
		}
		if s.pool.Reclaim() {
			t.Error("something was reclaimed")
		}
	})
}

func TestObserveIsToldTheAddress(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var mu sync.Mutex // guards got
		got := make(map[string][]pool.EventKind)
		s.start(conns.Config{Observe: func(address string, e pool.Event) {
			mu.Lock()
			defer mu.Unlock()
			got[address] = append(got[address], e.Kind)
		}})
		c := s.get()
		c.Close()
		s.pool.Get(t.Context(), "tcp", "20.1.2.3:9")
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for address, want := range map[string][]pool.EventKind{
			here:         {pool.Waited, pool.Opened, pool.Closed},
			"20.1.2.3:9": {pool.Waited, pool.OpenFailed},
		} {
			if slices.Sort(got[address]); !slices.Equal(got[address], want) {
				t.Errorf("%s: got %v, want %v", address, got[address], want)
			}
		}
	})
}

func TestALeakIsReported(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var place atomic.Value
		s.start(conns.Config{LeakAfter: time.Minute, Observe: func(_ string, e pool.Event) {
			if e.Kind == pool.Leaked {
				place.Store(e.Place)
			}
		}})
		c := s.get()
		time.Sleep(2 * time.Minute)
		if at, _ := place.Load().(string); !strings.Contains(at, "conns") {
			t.Errorf("taken in %q", at)
		}
		c.Put()
	})
}

func TestPatienceOutlastsAServerThatIsAway(t *testing.T) {
	onStage(t, 32, func(t *testing.T, s *stage) {
		s.start(conns.Config{Patience: time.Minute})
		const later = "20.1.2.5:443"
		time.AfterFunc(5*time.Second, func() { s.listen(later) })
		c, err := s.pool.Get(t.Context(), "tcp", later)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "at last")
		c.Put()
	})
}

func TestWhatIsWrongWithAConfigIsNamed(t *testing.T) {
	beat := func(context.Context, net.Conn) error { return nil }
	for field, cfg := range map[string]conns.Config{
		"Config.Max is -1":                         {Max: -1},
		"Config.MinIdle is -1":                     {MinIdle: -1},
		"Config.MinIdle is 3, more than Max, 2":    {MinIdle: 3, Max: 2},
		"Config.MaxIdle is -1s":                    {MaxIdle: -time.Second},
		"Config.MaxLife is -1s":                    {MaxLife: -time.Second},
		"Config.LeakAfter is -1s":                  {LeakAfter: -time.Second},
		"Config.BeatEvery is -1s":                  {Beat: beat, BeatEvery: -time.Second},
		"Config.BeatEvery is 0s, and Beat is set":  {Beat: beat},
		"Config.BeatEvery is 1s, and Beat is set":  {BeatEvery: time.Second},
		"Config.BeatEvery is -2s, and Beat is set": {BeatEvery: -2 * time.Second},
	} {
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %s", err, field)
			continue
		}
		func() {
			defer func() {
				if got := recover(); got != err.Error() {
					t.Errorf("New panicked with %v, want %v", got, err)
				}
			}()
			conns.New(nil, cfg)
		}()
	}
	for _, cfg := range []conns.Config{
		{}, {Beat: beat, BeatEvery: time.Second}, {OpenTimeout: -1, ProbeTimeout: -1},
	} {
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatCannotBeDialedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := conns.New(&dialer.Dialer{Ledger: new(dialer.Ledger)}, conns.Config{})
		defer p.Close(t.Context())
		for _, bad := range [][2]string{{"udp", here}, {"unix", "/tmp/s"}, {"", here}, {"tcp", ""}, {"tcp", "20.1.2.3"}, {"tcp", "20.1.2.3:99999"}} {
			_, err := p.Get(t.Context(), bad[0], bad[1])
			if d, ok := errors.AsType[*dialer.DialError](err); !ok || d.Network != bad[0] || d.Address != bad[1] || !dialer.SafeToRetry(err) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		time.Sleep(time.Minute)
		for address := range p.Stats() {
			t.Errorf("%s is still known", address)
		}
	})
}

// Through TLS it is as good a one as a *tls.Conn, which a Write that timed out
// ends.
func TestAPooledConnectionIsANetConn(t *testing.T) {
	g, cfg := onGround(t, false, func(net.Conn) {})
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		p := conns.New(g.dialer, cfg)
		c1, err = p.Get(t.Context(), "tcp", g.address)
		if err != nil {
			return nil, nil, nil, err
		}
		c2 = <-g.fars
		return c1, c2, func() {
			c2.Close()
			c1.Close()
			if err := p.Close(lasting(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
		}, nil
	})
}

// A looker notes what its ReadFrom is given.
type looker struct {
	*net.TCPConn
	got io.Reader
}

func (l *looker) ReadFrom(r io.Reader) (int64, error) {
	l.got = r
	return l.TCPConn.ReadFrom(r)
}

// That TCPConn.ReadFrom then uses sendfile is shown in package keepalive.
func TestAFileReachesTheSocket(t *testing.T) {
	g, cfg := onGround(t, false, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() })
	var socket *looker
	g.dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		socket = &looker{TCPConn: c.(*net.TCPConn)}
		return socket, nil
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	p := g.pool(cfg)
	first := g.get(p)
	if n, err := io.Copy(first, f); n != 1<<16 || err != nil {
		t.Errorf("sent %d, %v", n, err)
	}
	if _, ok := socket.got.(syscall.Conn); !ok {
		t.Errorf("the socket was given %T, which is no file", socket.got)
	}
	first.Put()
	second := g.get(p)
	if flow(second) != flow(first) {
		t.Error("another one was dialed")
	}
	second.Put()
}

func TestTheSocketCanBeReachedWhileItIsLent(t *testing.T) {
	g, cfg := onGround(t, false, repeat)
	p := g.pool(cfg)
	c := g.get(p)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(uintptr) {}); err != nil {
		t.Error(err)
	}
	c.Put()
	if _, err := c.SyscallConn(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Put: %v", err)
	}
}

// Nobody gets or puts anything meanwhile.
func TestAnIdleSocketThatHasEndedIsClosed(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			g, cfg := onGround(t, secure, repeat)
			c := g.get(g.pool(cfg))
			exchange(t, c, "hello")
			c.Put()
			(<-g.fars).Close()
			for deadline := time.Now().Add(12 * time.Second); !flow(c).Closed(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it is still there")
				}
			}
			for _, a := range g.dialer.Ledger.Accounts() {
				if a.Active+a.Idle != 0 {
					t.Errorf("got %v", a)
				}
			}
		})
	}
}

// benched returns what gets and puts a connection that is there.
func benched(t testing.TB, secure bool) (getPut func()) {
	g, cfg := onGround(t, secure, repeat)
	p := g.pool(cfg)
	c := g.get(p)
	exchange(t, c, "tickets are read")
	c.Put()
	return func() { g.get(p).Put() }
}

func TestAHitAllocatesOnlyWhatItHandsOut(t *testing.T) {
	for name, test := range map[string]struct {
		secure bool
		want   float64
	}{
		"plain": {false, 1},
		"TLS":   {true, 4}, // three for the error of a Read that finds nothing
	} {
		t.Run(name, func(t *testing.T) {
			if n := testing.AllocsPerRun(1000, benched(t, test.secure)); n > test.want {
				t.Errorf("%v allocations, want %v", n, test.want)
			}
		})
	}
}

func BenchmarkGetPut(b *testing.B) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		b.Run(name, func(b *testing.B) {
			getPut := benched(b, secure)
			b.ReportAllocs()
			for b.Loop() {
				getPut()
			}
		})
	}
}
