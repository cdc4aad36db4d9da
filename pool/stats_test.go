package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// A slowPermit is asked for in a second and opens in another.
type slowPermit struct{ *cellar }

func (s slowPermit) Open(ctx context.Context) (*jar, error) {
	time.Sleep(time.Second)
	return s.open(ctx)
}

func (slowPermit) Release() {}

func askSlowly(c *cellar, cfg *pool.Config[*jar]) {
	cfg.Open, cfg.Max = nil, 1
	cfg.Ask = func(context.Context) (pool.Permit[*jar], error) {
		time.Sleep(time.Second)
		return slowPermit{c}, nil
	}
	cfg.Close = func(j *jar, cause error) {
		time.Sleep(time.Second)
		c.close(j, cause)
	}
}

func TestStatsShowEachStageOfALife(t *testing.T) {
	inCellar(t, askSlowly, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		want := pool.Stats{}
		see := func(when string) {
			t.Helper()
			synctest.Wait()
			if got := p.Stats(); got != want {
				t.Errorf("%s:\n got %+v\nwant %+v", when, got, want)
			}
		}
		see("before the first Get")

		leases := make(chan pool.Lease[*jar], 2)
		get := func() { leases <- take(t, p) }
		go get()
		want.Size, want.Asking, want.Waiting, want.Waited = 1, 1, 1, 1
		see("asked for")

		time.Sleep(time.Second)
		want.Asking, want.Connecting, want.OldestWait = 0, 1, time.Second
		see("being opened")

		time.Sleep(time.Second)
		want.Connecting, want.Waiting, want.OldestWait = 0, 0, 0
		want.InUse, want.Opened, want.WaitTime = 1, 1, 2*time.Second
		see("lent")

		(<-leases).Put()
		want.InUse, want.Idle = 0, 1
		see("idle")

		l := take(t, p)
		want.InUse, want.Idle, want.Reused = 1, 0, 1
		see("lent again")

		go get()
		synctest.Wait()
		time.Sleep(time.Second)
		go get()
		want.Waiting, want.Waited, want.OldestWait = 2, 3, time.Second
		see("waited for")

		l.Put()
		want.Waiting, want.OldestWait, want.WaitTime, want.Reused = 1, 0, 3*time.Second, 2
		see("handed over")

		(<-leases).Put()
		want.Waiting, want.Reused = 0, 3
		see("handed over again")

		go (<-leases).Discard(nil)
		want.InUse, want.Closing = 0, 1
		want.Closed[pool.Discarded] = 1
		see("being closed")

		time.Sleep(time.Second)
		want.Size, want.Closing = 0, 0
		see("closed")
	})
}

func TestStatsCountAFailedOpening(t *testing.T) {
	refused := errors.New("refused")
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Open = func(context.Context) (*jar, error) { return nil, refused }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		if _, err := p.Get(t.Context()); err != refused {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if got, want := p.Stats(), (pool.Stats{OpenFailed: 1, Waited: 1}); got != want {
			t.Errorf("got %+v", got)
		}
	})
}

func TestWhatWasOpenedIsClosedOrThere(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Capacity = func(j *jar) int { return j.n - 1 } // the first is spent
		cfg.Patience = time.Hour
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		pass(time.Hour)
		take(t, p)
		synctest.Wait()
		var closed uint64
		s := p.Stats()
		for _, n := range s.Closed {
			closed += n
		}
		if s.Opened != closed+uint64(s.Size) {
			t.Errorf("got %+v", s)
		}
		c.now(func() {
			for _, e := range c.events {
				if e.Kind == pool.Closed && e.Took != 0 {
					t.Errorf("closed as soon as it was opened, at the age of %v", e.Took)
				}
			}
		})
	})
}

func TestObserveIsToldUnderNoLockOfEveryKindOfEvent(t *testing.T) {
	var p *pool.Pool[*jar]
	told := make(map[pool.EventKind]int)
	fails := true
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Max, cfg.LeakAfter, cfg.Patience = 1, time.Minute, time.Minute
		cfg.Open = func(ctx context.Context) (*jar, error) {
			if fails {
				fails = false
				return nil, errors.New("refused")
			}
			return c.open(ctx)
		}
		cfg.Observe = func(e pool.Event) {
			p.Stats() // would wait for ever for the lock
			c.now(func() { told[e.Kind]++ })
		}
	}, func(t *testing.T, c *cellar, q *pool.Pool[*jar]) {
		p = q
		l := take(t, p)
		pass(time.Hour)
		l.Discard(nil)
		want := map[pool.EventKind]int{pool.Waited: 1, pool.Opened: 1, pool.OpenFailed: 1, pool.Closed: 1, pool.Leaked: 1}
		for kind, n := range want {
			if told[kind] != n {
				t.Errorf("%v was told %d times, want %d", kind, told[kind], n)
			}
		}
	})
}

func TestEventsTellHowLongAndWhy(t *testing.T) {
	inCellar(t, askSlowly, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		l := take(t, p)
		time.Sleep(time.Second)
		l.Discard(errSour)
		synctest.Wait()
		for _, want := range []pool.Event{
			{Kind: pool.Opened, Took: 2 * time.Second},
			{Kind: pool.Waited, Took: 2 * time.Second, Context: t.Context()},
			{Kind: pool.Closed, Took: 2 * time.Second, Reason: pool.Discarded, Err: errSour},
		} {
			if !slices.Contains(c.events, want) {
				t.Errorf("%v is not among %v", want, c.events)
			}
		}
	})
}

// allocations fails if a run of f does not cost so many, in the long run.
func allocations(t *testing.T, want float64, f func()) {
	t.Helper()
	for range 100 { // until everything is there that is reused
		f()
	}
	if got := testing.AllocsPerRun(1000, f); got != want && !racing { // the race detector allocates
		t.Errorf("%v allocations, want %v", got, want)
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Check, cfg.CheckAfter = c.taste, time.Hour
		cfg.MaxIdle, cfg.MaxLife, cfg.MaxWait, cfg.Max = time.Hour, 100*time.Hour, time.Minute, 10
		cfg.IdleFor = func(*jar) time.Duration { return time.Hour }
	}, func(t *testing.T, _ *cellar, p *pool.Pool[*jar]) {
		allocations(t, 0, func() { take(t, p).Put() })
	})
}

func TestALeaseOfASharedValueAllocatesNothing(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Capacity = func(*jar) int { return 8 }
	}, func(t *testing.T, _ *cellar, p *pool.Pool[*jar]) {
		var all [16]pool.Lease[*jar]
		allocations(t, 0, func() {
			for i := range all {
				all[i] = take(t, p)
			}
			for _, l := range all {
				l.Put()
			}
		})
	})
}

func TestAWaitAllocatesNothing(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.Max = 1 }, func(t *testing.T, _ *cellar, p *pool.Pool[*jar]) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // has it whenever somebody else wants it
			for ctx.Err() == nil {
				if l, err := p.Get(ctx); err == nil {
					time.Sleep(time.Millisecond)
					l.Put()
				}
			}
		}()
		time.Sleep(time.Millisecond)
		before := p.Stats().Waited
		allocations(t, 0, func() {
			take(t, p).Put()
			time.Sleep(time.Microsecond) // the other one is next
		})
		if waited := p.Stats().Waited - before; waited < 1000 {
			t.Errorf("only %d have waited", waited)
		}
		cancel()
	})
}
