package pool_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// Each of these was a fault once.

// many leases n values and puts them back.
func many(t *testing.T, p *pool.Pool[int], n int) {
	t.Helper()
	leases := make([]pool.Lease[int], n)
	for i := range leases {
		var err error
		if leases[i], err = p.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range leases {
		l.Put()
	}
}

func TestAForgottenPoolOpensNothing(t *testing.T) {
	for _, up := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var opened, open atomic.Int32
			g := pool.Group[string, int]{New: func(string) pool.Config[int] {
				return pool.Config[int]{MinIdle: 1, Max: 1, Open: func(context.Context) (int, error) {
					opened.Add(1)
					if !up {
						return 0, errRefused
					}
					open.Add(1)
					return 0, nil
				}, Close: func(int, error) { open.Add(-1) }}
			}}
			for range 20 {
				if l, err := g.Get(t.Context(), "a"); err == nil {
					l.Discard(nil)
				}
				synctest.Wait()
				g.Reclaim()
				g.Reset(nil)
				time.Sleep(time.Second)
			}
			if n := open.Load(); n > 1 {
				t.Errorf("%d values are open, at most one may", n)
			}
			if err := g.Close(t.Context()); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			before := opened.Load()
			time.Sleep(time.Hour)
			if n := opened.Load() - before; n > 0 || open.Load() != 0 {
				t.Errorf("up: %t: after Close %d openings, and %d are open", up, n, open.Load())
			}
		})
	}
}

func TestResetsDoNotAddUpOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		p := pool.New(pool.Config[int]{Open: func(ctx context.Context) (int, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done() // a server that is gone
			return 0, ctx.Err()
		}})
		for range 10 {
			go func() {
				for errors.Is(func() error { _, err := p.Get(t.Context()); return err }(), pool.ErrReset) {
				}
			}()
		}
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			p.Reset(nil)
		}
		if n := most.Load(); n > 20 { // ten of this generation, and ten that are just ending
			t.Errorf("%d openings at once for ten who wait", n)
		}
		p.Close(t.Context())
	})
}

func TestAnEndlessOpenTimeoutIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New(pool.Config[int]{OpenTimeout: math.MaxInt64, Open: func(context.Context) (int, error) {
			time.Sleep(time.Hour)
			return 1, nil
		}})
		if l, err := p.Get(t.Context()); err != nil {
			t.Error(err)
		} else {
			l.Put()
		}
		p.Close(t.Context())
	})
}

func TestHalfTheValuesDeadIsNoStormOfBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		var dead atomic.Bool
		var opened, beats atomic.Int32
		p := pool.New(pool.Config[int]{
			Open: func(context.Context) (int, error) { return int(opened.Add(1)), nil },
			Beat: func(_ context.Context, v int) error {
				beats.Add(1)
				time.Sleep(time.Millisecond)
				if dead.Load() && v > n/2 {
					return errRefused
				}
				return nil
			}, BeatEvery: time.Minute})
		many(t, p, n)
		dead.Store(true)
		time.Sleep(90 * time.Second)
		if b := beats.Load(); b > 2*n {
			t.Errorf("%d values, of which half have died, were beaten %d times", n, b)
		}
		if s := p.Stats(); s.Idle != n/2 || s.Closed[pool.Failed] != n/2 {
			t.Errorf("got %+v", s)
		}
		p.Close(t.Context())
	})
}

func TestACheckDoesNotEndADoubtThatABeatHasRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var opened atomic.Int32
		p := pool.New(pool.Config[int]{
			Open:  func(context.Context) (int, error) { return int(opened.Add(1)), nil },
			Check: func(context.Context, int) error { return nil }, // a look at this end
			Beat: func(ctx context.Context, _ int) error {
				if down.Load() {
					<-ctx.Done() // a black hole
				}
				return ctx.Err()
			}, BeatEvery: time.Minute})
		many(t, p, 20)
		down.Store(true)
		for p.Stats().Closed[pool.Failed] == 0 {
			time.Sleep(time.Second)
		}
		l, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v := l.Value(); v <= 20 {
			t.Errorf("value %d was lent, and no Beat has found it good since", v)
		}
		l.Put()
		p.Close(t.Context())
	})
}

func TestABeatThatSaysAReasonRaisesNoDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var beats, opened atomic.Int32
		p := pool.New(pool.Config[int]{
			Open: func(context.Context) (int, error) { return int(opened.Add(1)), nil },
			Beat: func(_ context.Context, v int) error {
				if beats.Add(1); v == 1 {
					return errors.Join(errors.New("its port was needed"), pool.Reclaimed)
				}
				return nil
			}, BeatEvery: time.Minute})
		many(t, p, 20)
		time.Sleep(time.Minute)
		if s := p.Stats(); s.Closed[pool.Reclaimed] != 1 || s.Closed[pool.Failed] != 0 || beats.Load() != 20 {
			t.Errorf("%d beats, %+v", beats.Load(), s)
		}
		p.Close(t.Context())
	})
}

// A granted is a permission that always opens.
type granted struct{}

func (granted) Open(context.Context) (int, error) { return 1, nil }
func (granted) Release()                          {}

func TestNobodyAsksForMinIdleWhenAValueIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asks atomic.Int32
		p := pool.New(pool.Config[int]{MinIdle: 1, Ask: func(ctx context.Context) (pool.Permit[int], error) {
			if asks.Add(1) == 1 {
				return granted{}, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		l, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if s := p.Stats(); s.Asking != 1 {
			t.Errorf("nothing is idle: %+v", s)
		}
		l.Put()
		synctest.Wait()
		if s := p.Stats(); s.Asking != 0 || s.Idle != 1 {
			t.Errorf("one is idle: %+v", s)
		}
		p.Close(t.Context())
	})
}

func TestAValueThatTakesNoMoreLeasesDoesNotHideAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var capacity, opened atomic.Int32
		capacity.Store(1)
		var changed func(error)
		p := pool.New(pool.Config[int]{
			Open: func(context.Context) (int, error) {
				if opened.Add(1) > 1 {
					return 0, errRefused
				}
				return 1, nil
			},
			Capacity: func(int) int { return int(capacity.Load()) },
			Watch:    func(_ int, c func(error)) { changed = c },
		})
		long, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		capacity.Store(0)
		changed(nil) // it says goodbye, but what it carries goes on
		if _, err := p.Get(within(t, time.Minute)); err != errRefused {
			t.Errorf("got %v", err)
		}
		long.Put()
		p.Close(t.Context())
	})
}

func TestWaitedOnlyGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		p := pool.New(pool.Config[int]{Max: 1,
			Open: func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil },
			Check: func(context.Context, int) error {
				time.Sleep(time.Second)
				if bad.Load() {
					return errRefused
				}
				return nil
			},
		})
		l, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bad.Store(true)
		go func() {
			if l, err := p.Get(t.Context()); err == nil {
				l.Put()
			}
		}()
		time.Sleep(time.Second)
		l.Put()
		for last, i := uint64(0), 0; i < 100; i++ {
			time.Sleep(50 * time.Millisecond)
			if w := p.Stats().Waited; w < last {
				t.Errorf("it went from %d to %d", last, w)
			} else {
				last = w
			}
		}
		p.Close(t.Context())
	})
}

func TestWhatWasTakenAwayIsNotOpenedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened atomic.Int32
		p := pool.New(pool.Config[int]{MinIdle: 2, Open: func(context.Context) (int, error) { return int(opened.Add(1)), nil }})
		many(t, p, 1)
		time.Sleep(time.Second)
		for range 60 { // somebody else needs the room all the time
			p.Reclaim()
			time.Sleep(time.Second)
		}
		if n := opened.Load(); n > 2+2*12 {
			t.Errorf("%d were opened in a minute in which nobody used one", n)
		}
		time.Sleep(6 * time.Second)
		if s := p.Stats(); s.Idle != 2 {
			t.Errorf("got %+v", s)
		}
		p.Close(t.Context())
	})
}

// The pool's clock may be older than the date of a Check.
func TestAValueIsCheckedBeforeEachLoanHoweverFastTheyFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := 0
		p := pool.New(pool.Config[int]{
			Open:  func(context.Context) (int, error) { return 1, nil },
			Check: func(context.Context, int) error { checks++; return nil },
		})
		many(t, p, 1)
		for range 20 {
			time.Sleep(7 * time.Millisecond)
			many(t, p, 1)
		}
		if checks != 20 {
			t.Errorf("%d checks before 20 loans", checks)
		}
		p.Close(t.Context())
	})
}
