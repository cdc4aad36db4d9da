package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

func TestWhoWaitsTakesWhateverComesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 2
		w.opening = func(ctx context.Context, n int) error { return pause(ctx, time.Duration(n-1)*10*time.Second) }
		p := w.start()
		first := obtain(t, p)
		second := begin(t.Context(), p) // and with it an opening that takes 10 s
		time.Sleep(time.Second)
		first.Put()
		if v := second.value(t); v.n != 1 || second.took != time.Second {
			t.Errorf("it got value %d after %v", v.n, second.took)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if s := p.Stats(); s.Idle != 1 || s.InUse != 1 || s.Opened != 2 {
			t.Errorf("the value being opened was not parked: %+v", s)
		}
		second.lease.Put()
	})
}

func TestWhoHasWaitedLongestIsServedFirst(t *testing.T) {
	const n = 5
	broken := errors.New("broken")
	for _, test := range []struct {
		by    string
		end   func(pool.Lease[*item])
		opens int
	}{
		{"by a Put", pool.Lease[*item].Put, n},
		{"by a Discard that makes room", func(l pool.Lease[*item]) { l.Discard(broken) }, 2 * n},
		{"by an opening", nil, n},
	} {
		t.Run(test.by, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *works) {
				var leases []pool.Lease[*item]
				if w.Max = n; test.end == nil { // the last that is begun is the first that is there
					w.opening = func(ctx context.Context, i int) error {
						return pause(ctx, time.Duration(n+1-i)*time.Second)
					}
				}
				p := w.start()
				for range n {
					if test.end != nil {
						leases = append(leases, obtain(t, p))
					}
				}
				var line []*getting
				for range n {
					line = append(line, begin(t.Context(), p))
				}
				for _, l := range leases {
					time.Sleep(time.Second)
					test.end(l)
				}
				for i, g := range line {
					g.value(t)
					if want := time.Duration(i+1) * time.Second; g.took != want {
						t.Errorf("number %d waited for %v, want %v", i+1, g.took, want)
					}
				}
				for _, g := range line {
					g.lease.Put()
				}
				if got := w.opened(); got != test.opens {
					t.Errorf("%d openings, want %d", got, test.opens)
				}
			})
		})
	}
}

func TestANewcomerOvertakesNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		l := obtain(t, p)
		old := begin(t.Context(), p)
		l.Put()
		if _, err := p.Get(within(t, time.Second)); !errors.Is(err, pool.ErrWait) {
			t.Errorf("the newcomer got %v", err)
		}
		old.value(t)
		old.lease.Put()
	})
}

func TestAGetWhoseValueFailsItsCheckKeepsItsPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.CheckAfter = time.Minute
		w.Check = func(ctx context.Context, v *item) error {
			pause(ctx, time.Second)
			return errors.New("stale")
		}
		w.opening = func(ctx context.Context, n int) error { return pause(ctx, time.Second) }
		p := w.start()
		obtain(t, p).Put()
		time.Sleep(time.Hour)
		first := begin(t.Context(), p) // and its check
		second := begin(t.Context(), p)
		if v := first.value(t); v.n != 2 || first.took != 2*time.Second || !second.waits() {
			t.Errorf("the first got value %d after %v; the second waits: %t", v.n, first.took, second.waits())
		}
		first.lease.Put()
		second.value(t)
		second.lease.Put()
	})
}

func TestTheWaitBeforeAFailedCheckCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.CheckAfter = time.Minute
		w.Check = func(ctx context.Context, v *item) error {
			pause(ctx, 3*time.Second)
			return errors.New("stale")
		}
		w.opening = func(ctx context.Context, n int) error { return pause(ctx, time.Duration(n-1)*time.Minute) }
		w.OpenTimeout = -1
		p := w.start()
		obtain(t, p).Put()
		time.Sleep(time.Hour)
		_, err := p.Get(within(t, 5*time.Second))
		if e := waitError(t, err); e.Waited != 5*time.Second {
			t.Errorf("it waited for %v in all, want 5s", e.Waited)
		}
	})
}

func TestACanceledWaiterLeavesNoTrace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		l := obtain(t, p)
		before := p.Stats()
		ctx, cancel := context.WithCancelCause(t.Context())
		g := begin(ctx, p)
		why := errors.New("the user went away")
		cancel(why)
		if err := g.failure(t); err != why {
			t.Errorf("got %v, want the cause and nothing else", err)
		}
		before.Waited++
		if s := p.Stats(); s != before {
			t.Errorf("got %+v, want %+v", s, before)
		}
		l.Put()
		if s := p.Stats(); s.Idle != 1 || s.InUse != 0 {
			t.Errorf("after the Put: %+v", s)
		}
	})
}

// An ending is a context that ends while the pool looks at it.
type ending struct {
	context.Context
	look func() // what happens after the next look; nil: nothing
	err  error  // what the looks see afterwards; nil: what Context says
}

func (e *ending) Err() error {
	err := e.Context.Err()
	if e.err != nil {
		err = e.err
	}
	if look := e.look; look != nil {
		e.look = nil
		look()
	}
	return err
}

func TestAnExpiredWaiterIsPassedOver(t *testing.T) { // vitess#20310
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		l := obtain(t, p)
		ctx := &ending{Context: t.Context()}
		expired, next := begin(ctx, p), begin(t.Context(), p)
		ctx.err = context.DeadlineExceeded // and its goroutine does not know yet
		l.Put()
		next.value(t)
		if e := waitError(t, expired.failure(t)); e.Stats.Waiting != 1 {
			t.Errorf("it says that %d more are waiting, want 1: %v", e.Stats.Waiting, e)
		}
		next.lease.Put()
	})
}

func TestAValueHandedToWhoHasJustGoneGoesToTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		passed := 0
		for range 64 { // each time the select throws a coin
			l := obtain(t, p)
			inner, cancel := context.WithCancel(t.Context())
			ctx := &ending{Context: inner}
			gone, next := begin(ctx, p), begin(t.Context(), p)
			ctx.look = cancel // when the Put finds it alive
			l.Put()
			if <-gone.done; gone.err == nil {
				gone.lease.Put()
			} else if passed++; gone.err != context.Canceled {
				t.Errorf("got %v", gone.err)
			}
			next.value(t)
			next.lease.Put()
		}
		if passed == 0 {
			t.Error("none was passed on")
		}
		if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 || s.Idle != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAValueHandedOverAtTheDeadlineStillGivesAWaitError(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		for range 64 {
			l := obtain(t, p)
			inner, cancel := context.WithCancelCause(t.Context())
			ctx := &ending{Context: inner}
			late := begin(ctx, p)
			ctx.look = func() {
				ctx.err = context.DeadlineExceeded
				cancel(ctx.err)
			}
			l.Put()
			if <-late.done; late.err == nil {
				late.lease.Put()
			} else {
				waitError(t, late.err)
			}
		}
	})
}

func TestAStormOfCancelsLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		l := obtain(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 20_000 {
			all.Go(func() {
				if _, err := p.Get(ctx); err != context.Canceled {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		if s := p.Stats(); s.Waiting != 20_000 {
			t.Fatalf("%d are waiting", s.Waiting)
		}
		cancel()
		all.Wait()
		if s := p.Stats(); s.Waiting != 0 || s.Waited != 20_001 || s.InUse != 1 || s.Size != 1 {
			t.Errorf("got %+v", s)
		}
		l.Put()
	})
}

func TestReturnsThatRaceWithQueueingLoseNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		no := errors.New("no")
		w.Max = 8
		w.opening = func(_ context.Context, n int) error {
			if runtime.Gosched(); n%10 == 0 {
				return no
			}
			return nil
		}
		p := w.start()
		var mu sync.Mutex
		lent := make(map[*item]bool)
		turn := func(v *item, begins bool) {
			mu.Lock()
			defer mu.Unlock()
			if lent[v] == begins {
				t.Errorf("value %d has two owners", v.n)
			}
			lent[v] = begins
		}
		var served atomic.Int64
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for range 2000 {
					ctx, cancel := context.WithCancel(t.Context())
					if rand.N(8) == 0 {
						go cancel()
					}
					l, err := p.Get(ctx)
					cancel()
					if err != nil {
						if err != context.Canceled && err != no {
							t.Error(err)
						}
						continue
					}
					served.Add(1)
					turn(l.Value(), true)
					runtime.Gosched()
					turn(l.Value(), false)
					if rand.N(20) == 0 {
						l.Discard(nil)
					} else {
						l.Put()
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if s := p.Stats(); s.InUse+s.Waiting+s.Connecting+s.Closing != 0 || s.Idle != s.Size {
			t.Errorf("got %+v", s)
		}
		if n := served.Load(); n < 64*1000 {
			t.Errorf("only %d Gets were served", n)
		}
	})
}

// waitError returns the *WaitError that err must be.
func waitError(t *testing.T, err error) *pool.WaitError {
	t.Helper()
	var e *pool.WaitError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *WaitError", err)
	}
	return e
}

func TestAWaitErrorNamesTheFigures(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 3
		w.opening = func(ctx context.Context, n int) error { return pause(ctx, time.Duration(n/3)*time.Minute) }
		w.closing = func(*item) { time.Sleep(time.Minute) }
		p := w.start()
		l := obtain(t, p)
		go obtain(t, p).Discard(nil)
		synctest.Wait()
		g := begin(within(t, 5*time.Second), p)
		other := begin(t.Context(), p)
		err := g.failure(t)
		const want = "pool: no value came in time, in 5s: 1 leases are out, 0 values idle, 0 asked for, 1 being opened, " +
			"1 being closed, at most 3, 1 more waiting: context deadline exceeded"
		if err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		e := waitError(t, err)
		if !errors.Is(err, pool.ErrWait) || !errors.Is(err, context.DeadlineExceeded) || !e.Timeout() || !e.SafeToRetry() {
			t.Errorf("it is not what it says: %#v", e)
		}
		l.Put()
		other.value(t)
		other.lease.Put()
	})
}

func TestAWaitErrorCarriesTheLastOpeningsFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Patience = time.Hour
		refused := errors.New("connection refused")
		w.opening = func(context.Context, int) error { return refused }
		p := w.start()
		_, err := p.Get(within(t, time.Second))
		waitError(t, err)
		if !errors.Is(err, refused) || !strings.Contains(err.Error(), "the last opening failed: connection refused") {
			t.Errorf("got %v", err)
		}
	})
}

func TestADeadlineWithACauseIsStillADeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		defer obtain(t, p).Put()
		why := errors.New("the request took too long")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		_, err := p.Get(ctx)
		if e := waitError(t, err); !errors.Is(err, why) || !errors.Is(err, context.DeadlineExceeded) || !e.Timeout() {
			t.Errorf("it matches the cause: %t, a deadline: %t, is a timeout: %t",
				errors.Is(err, why), errors.Is(err, context.DeadlineExceeded), e.Timeout())
		}
	})
}

func TestAContextThatIsOverGetsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		why := errors.New("over")
		over, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		get := func(when string, opened int) {
			t.Helper()
			if _, err := p.Get(over); err != why || w.opened() != opened {
				t.Errorf("%s: %v, and %d openings", when, err, w.opened())
			}
		}
		get("in an empty pool", 0)
		obtain(t, p).Put()
		get("beside an idle value", 1)
		if s := p.Stats(); s.Idle != 1 || s.Reused != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestMaxWaitEndsAWaitWithoutADeadline(t *testing.T) {
	for _, test := range []struct {
		maxWait, deadline, want time.Duration
	}{
		{maxWait: 5 * time.Second, want: 5 * time.Second},
		{maxWait: 5 * time.Second, deadline: time.Second, want: time.Second},
		{maxWait: 5 * time.Second, deadline: time.Hour, want: time.Hour},
		{deadline: time.Hour, want: time.Hour},
	} {
		inBubble(t, func(t *testing.T, w *works) {
			w.Max, w.MaxWait = 1, test.maxWait
			p := w.start()
			l := obtain(t, p)
			ctx := t.Context()
			if test.deadline > 0 {
				ctx = within(t, test.deadline)
			}
			g := begin(ctx, p)
			err := g.failure(t)
			if e := waitError(t, err); g.took != test.want || e.Waited != test.want || !errors.Is(err, context.DeadlineExceeded) || !e.Timeout() {
				t.Errorf("%+v: after %v: %v", test, g.took, err)
			}
			if byMaxWait := strings.HasSuffix(err.Error(), "MaxWait is over"); byMaxWait != (test.deadline == 0) {
				t.Errorf("%+v: it says %v", test, err)
			}
			if s := p.Stats(); s.Waiting != 0 || s.InUse != 1 {
				t.Errorf("%+v: left behind: %+v", test, s)
			}
			l.Put()
		})
	}
}

func TestWithoutMaxWaitAGetWaitsAsLongAsItTakes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		p := w.start()
		time.AfterFunc(1000*time.Hour, obtain(t, p).Put)
		obtain(t, p).Put()
	})
}

func TestACancellationDuringMaxWaitIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max, w.MaxWait = 1, time.Minute
		p := w.start()
		defer obtain(t, p).Put()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("the user went away")
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, err := p.Get(ctx); err != why {
			t.Errorf("got %v", err)
		}
	})
}

func TestMaxWaitIsForTheWholeGet(t *testing.T) {
	for name, check := range map[string]time.Duration{"a check that fails": 3 * time.Second, "a check that takes longer": time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *works) {
				w.MaxWait, w.CheckAfter, w.ProbeTimeout = 5*time.Second, time.Minute, time.Hour
				w.Check = func(ctx context.Context, v *item) error {
					pause(ctx, check)
					return errors.New("stale")
				}
				w.opening = func(ctx context.Context, n int) error { return pause(ctx, time.Duration(n-1)*time.Minute) }
				w.OpenTimeout = -1
				p := w.start()
				obtain(t, p).Put()
				time.Sleep(time.Hour)
				g := begin(t.Context(), p)
				if e := waitError(t, g.failure(t)); g.took != 5*time.Second || e.Waited != g.took {
					t.Errorf("it took %v, and says %v", g.took, e.Waited)
				}
				if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 || check > w.MaxWait && s.Opened+uint64(s.Connecting) != 1 {
					t.Errorf("got %+v", s)
				}
			})
		})
	}
}

func TestAValueThatComesAsMaxWaitIsOverIsLostToNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max, w.MaxWait = 1, time.Second
		p := w.start()
		for range 200 { // each time the two race
			time.AfterFunc(time.Second, obtain(t, p).Put)
			if l, err := p.Get(t.Context()); err == nil {
				l.Put()
			} else {
				waitError(t, err)
			}
			synctest.Wait()
			if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 || s.Idle != 1 {
				t.Fatalf("got %+v", s)
			}
		}
	})
}

func TestAGetInVainSaysWhatTheAskWaitsFor(t *testing.T) {
	taken := errors.New("128 of 128 ports taken")
	for _, by := range []string{"the deadline", "MaxWait"} {
		t.Run("by "+by, func(t *testing.T) {
			atDesk(t, func(t *testing.T, w *works, d *desk) {
				ctx := t.Context()
				if by == "MaxWait" {
					w.MaxWait = time.Second
				} else {
					ctx = within(t, time.Second)
				}
				asked := 0
				w.Obstacle = func() error {
					asked++
					if s := w.pool.Stats(); s.Asking != 1 || s.Waiting != 1 { // Stats would wait for ever for the lock
						t.Errorf("asked too late: %+v", s)
					}
					return taken
				}
				p := w.start()
				err := begin(ctx, p).failure(t)
				if e := waitError(t, err); e.Obstacle != taken || !errors.Is(err, taken) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %#v", e)
				}
				if !strings.Contains(err.Error(), "0 more waiting; the next one waits: 128 of 128 ports taken: ") {
					t.Errorf("it says %v", err)
				}
				if synctest.Wait(); asked != 1 || p.Stats().Asking != 0 {
					t.Errorf("asked %d times, and %d still ask for permission", asked, p.Stats().Asking)
				}
			})
		})
	}
}

func TestNobodyAsksForAnObstacleInVain(t *testing.T) {
	asked := func() error {
		t.Error("asked")
		return nil
	}
	t.Run("when it is called off", func(t *testing.T) {
		atDesk(t, func(t *testing.T, w *works, d *desk) {
			w.Obstacle = asked
			ctx, cancel := context.WithCancel(t.Context())
			g := begin(ctx, w.start())
			cancel()
			if err := g.failure(t); err != context.Canceled {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("when no Ask is under way", func(t *testing.T) {
		atDesk(t, func(t *testing.T, w *works, d *desk) {
			w.Obstacle, w.Max = asked, 1
			p := w.start()
			first := begin(t.Context(), p)
			d.grant <- nil
			first.value(t)
			_, err := p.Get(within(t, time.Second))
			if e := waitError(t, err); e.Obstacle != nil || strings.Contains(err.Error(), "the next one") {
				t.Errorf("got %v", err)
			}
			first.lease.Put()
		})
	})
}

func TestAPanicInObstacleLeavesTheBooksRight(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		w.Obstacle = func() error { panic("a bug in Obstacle") }
		p := w.start()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("Get has swallowed the panic")
				}
			}()
			p.Get(within(t, time.Second))
		}()
		synctest.Wait()
		if s := p.Stats(); s.Waiting != 0 || s.Asking != 0 || s.Size != 0 {
			t.Errorf("got %+v", s)
		}
	})
}
