package pool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// asked returns the jars that were asked so far.
func (c *cellar) asked() (ns []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.jars {
		if len(j.asked) > 0 {
			ns = append(ns, j.n)
		}
	}
	return ns
}

// beaten lets a pool ask by slowTaste, not before an hour has passed.
func beaten(c *cellar, cfg *pool.Config[*jar]) {
	cfg.Beat, cfg.BeatEvery = c.slowTaste, time.Hour
}

func TestDoubtHasThoseOfTheSameOrOlderProofAskedAtOnce(t *testing.T) {
	inCellar(t, beaten, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 5)
		putBack(all[:2])
		time.Sleep(time.Second)
		all[2].Put()
		l := take(t, p)
		if n := l.Value().n; n != 3 {
			t.Fatalf("value %d was lent", n)
		}
		time.Sleep(time.Second)
		all[3].Put() // since then
		l.Doubt()
		pass(2 * time.Second)
		if got := c.asked(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("asked were %v", got)
		}
		if s := p.Stats(); s.InUse != 2 || l.Value().n != 3 {
			t.Errorf("the lease is over: %+v", s)
		}
		l.Doubt() // they have been asked since
		pass(time.Minute)
		if n := c.tasted(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestWhatIsDoubtedIsAskedBeforeItIsLent(t *testing.T) {
	inCellar(t, beaten, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 20))
		time.Sleep(time.Second)
		c.now(func() {
			for _, j := range c.jars {
				j.sour = j.n != 7
			}
		})
		l := take(t, p)
		l.Doubt()
		for range 2 {
			if _, ok := p.TryGet(time.Hour); ok {
				t.Error("lent without being asked")
			}
			pass(time.Millisecond) // four are being asked
		}
		if n := take(t, p).Value().n; n != 7 && n <= 20 {
			t.Errorf("got value %d, which is not good", n)
		}
		pass(10 * time.Second)
		if got := len(c.closed()); got != 18 {
			t.Errorf("%d were closed", got)
		}
	})
}

// What was put back as somebody waited for it has no date, but nothing was idle then.
func TestADoubtAboutWhatWasHandedOverConcernsNobodyWhoCameLater(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		beaten(c, cfg)
		cfg.Max = 2
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 2)
		time.Sleep(time.Minute)
		time.AfterFunc(time.Second, all[0].Put)
		l := take(t, p)
		all[1].Put()
		l.Doubt()
		pass(time.Minute)
		if n := c.tasted(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestADoubtInVainDoesNothing(t *testing.T) {
	for name, doubt := range map[string]func(t *testing.T, p *pool.Pool[*jar]){
		"no lease": func(*testing.T, *pool.Pool[*jar]) { pool.Lease[*jar]{}.Doubt() },
		"put back": func(t *testing.T, p *pool.Pool[*jar]) {
			l := take(t, p)
			l.Put()
			l.Doubt()
		},
		"somebody else's": func(t *testing.T, p *pool.Pool[*jar]) {
			l := take(t, p)
			l.Put()
			take(t, p)
			l.Doubt()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inCellar(t, beaten, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				putBack(takeMany(t, p, 3))
				time.Sleep(time.Second)
				doubt(t, p)
				pass(time.Minute)
				if n := c.tasted(); n != 0 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
	t.Run("without a Beat", func(t *testing.T) {
		inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) { cfg.Check, cfg.CheckAfter = c.taste, time.Minute }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
			putBack(takeMany(t, p, 3))
			time.Sleep(time.Second)
			take(t, p).Doubt()
			take(t, p)
			if n := c.tasted(); n != 0 {
				t.Errorf("asked %d times", n)
			}
		})
	})
}

func TestTryGetTakesWhatWasProvedLastAndRecently(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Beat, cfg.BeatEvery = c.taste, time.Minute
		cfg.Check, cfg.CheckAfter = c.slowTaste, time.Second
		cfg.MaxLife = time.Hour
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		try := func(proved time.Duration, want int) {
			t.Helper()
			start := time.Now()
			l, ok := p.TryGet(proved)
			if ok && l.Value().n != want || ok != (want > 0) || time.Since(start) > 0 {
				t.Errorf("proved within %v: got %t, value %v, want value %d", proved, ok, l, want)
			}
			if ok {
				time.AfterFunc(0, func() { l.Discard(nil) })
			}
		}
		try(time.Hour, 0) // there is none
		if s := p.Stats(); s.Size != 0 {
			t.Errorf("something was opened: %+v", s)
		}
		all := takeMany(t, p, 3)
		try(time.Hour, 0) // all are lent
		for _, l := range all {
			l.Put()
			time.Sleep(10 * time.Second)
		}
		try(10*time.Second-1, 0)
		try(-1, 0)
		try(10*time.Second+coarse, 3)
		pass(31 * time.Second) // the first was beaten, 54 to 60 s after it was put back
		if got := c.asked(); !slices.Equal(got, []int{1}) {
			t.Fatalf("asked were %v", got)
		}
		try(time.Hour, 1) // though the second was used last
		try(11*time.Second, 0)
		pass(2 * time.Hour)
		try(3*time.Hour, 0) // too old
	})
}

func TestTryGetPassesNobodyAndNothingThatIsBeingAsked(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Check, cfg.Max = c.slowTaste, 1
		cfg.Capacity = func(*jar) int { return 2 }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		l := take(t, p)
		if _, ok := p.TryGet(time.Hour); ok {
			t.Error("got a share of what somebody else has")
		}
		l.Put()
		go p.Get(t.Context()) // asks
		synctest.Wait()
		if _, ok := p.TryGet(time.Hour); ok {
			t.Error("got what is being asked")
		}
		pass(time.Second)
		l = take(t, p)
		go p.Get(t.Context())
		synctest.Wait()
		if _, ok := p.TryGet(time.Hour); ok {
			t.Error("passed somebody who waits")
		}
		l.Put()
		synctest.Wait()
		if s := p.Stats(); s.Waiting != 0 || s.InUse != 2 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestTryGetSeesALeakAndMakesNoPool(t *testing.T) {
	onShelf(t, func(s *shelf, _ string, cfg *pool.Config[*jar]) {
		cfg.LeakAfter, cfg.Observe = time.Minute, s.observe
	}, func(t *testing.T, s *shelf) {
		if _, ok := s.TryGet("a", time.Hour); ok || s.made.Load() != 0 {
			t.Errorf("got one: %t; %d pools were made", ok, s.made.Load())
		}
		s.take(t, "a").Put()
		l, ok := s.TryGet("a", time.Hour)
		if !ok || l.Value().n != 1 {
			t.Fatal("got none")
		}
		pass(2 * time.Minute)
		leaked := false
		for _, e := range s.events {
			leaked = leaked || e.Kind == pool.Leaked
		}
		if !leaked {
			t.Error("nobody saw the leak")
		}
		l.Put()
		s.Close(t.Context())
		if _, ok := s.TryGet("a", time.Hour); ok {
			t.Error("got one of a closed group")
		}
	})
}

func TestAGetThatEndsInTheMiddleOfACheckLeavesTheValueToTheNext(t *testing.T) {
	for _, good := range []bool{true, false} {
		t.Run(fmt.Sprint("good: ", good), func(t *testing.T) {
			inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
				cfg.CheckAfter = time.Minute
				cfg.Check = func(ctx context.Context, j *jar) error {
					if err := pause(ctx, time.Second); err != nil {
						return err
					}
					return c.taste(ctx, j)
				}
				cfg.Open = func(ctx context.Context) (*jar, error) {
					time.Sleep(3 * time.Second)
					return c.open(ctx)
				}
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				take(t, p).Put()
				c.now(func() { c.jars[0].sour = !good })
				time.Sleep(time.Hour)
				start := time.Now()
				_, err := p.Get(within(t, 100*time.Millisecond))
				if !errors.Is(err, pool.ErrWait) || time.Since(start) != 100*time.Millisecond {
					t.Errorf("got %v after %v", err, time.Since(start))
				}
				if s := p.Stats(); s.InUse != 0 || s.Idle != 1 || s.Waiting != 0 {
					t.Errorf("got %+v", s)
				}
				if idle, _ := p.LongestIdle(); idle != 0 {
					t.Errorf("what is being asked can be reclaimed, after %v", idle)
				}
				l := take(t, p) // whatever comes first
				if took := time.Since(start); good && (took != time.Second || l.Value().n != 1) || !good && l.Value().n != 2 {
					t.Errorf("got value %d after %v", l.Value().n, took)
				}
				if s := p.Stats(); s.Closed[pool.Failed] == 1 == good || c.tasted() != 1 {
					t.Errorf("asked %d times: %+v", c.tasted(), s)
				}
			})
		})
	}
}

func TestAGetThatEndsWhileItsDoubtedValueIsAskedLeavesItToTheNext(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.BeatEvery, cfg.ProbeTimeout = time.Hour, -1
		cfg.Beat = func(ctx context.Context, j *jar) error {
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			return c.taste(ctx, j)
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 7))
		time.Sleep(time.Second)
		take(t, p).Doubt()
		synctest.Wait() // four are being asked
		start := time.Now()
		if _, err := p.Get(within(t, 100*time.Millisecond)); !errors.Is(err, pool.ErrWait) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		pass(time.Minute)
		if s := p.Stats(); s.Idle != 6 || s.Closed[pool.Failed] != 0 || c.tasted() != 6 {
			t.Errorf("asked %d times: %+v", c.tasted(), s)
		}
	})
}

func TestResetAndCloseEndACheckAtOnce(t *testing.T) {
	for reason, end := range map[pool.Reason]func(*pool.Pool[*jar]){
		pool.Purged: func(p *pool.Pool[*jar]) { p.Reset(nil) },
		pool.Shut:   func(p *pool.Pool[*jar]) { p.Close(context.Background()) },
	} {
		t.Run(reason.String(), func(t *testing.T) {
			inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.Check = hang }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				take(t, p).Put()
				go p.Get(t.Context())
				synctest.Wait()
				start := time.Now()
				end(p)
				synctest.Wait()
				if s := p.Stats(); s.Closed[reason] != 1 || time.Since(start) > 0 {
					t.Errorf("after %v: %+v", time.Since(start), s)
				}
			})
		})
	}
}

func TestWhyAValueHasEndedIsToldAndThrowsDoubtOnTheOthers(t *testing.T) {
	for _, test := range []struct {
		spent error
		cause error
		asked bool
	}{
		{nil, pool.Spent, false},
		{errSour, errSour, true},
		{fmt.Errorf("%w: %w", pool.Spent, errSour), errSour, false},
	} {
		t.Run(fmt.Sprint(test.spent), func(t *testing.T) {
			var ended []func(error)
			inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
				ended = nil
				beaten(c, cfg)
				cfg.Watch = func(_ *jar, changed func(error)) { ended = append(ended, changed) }
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				putBack(takeMany(t, p, 3))
				time.Sleep(time.Second)
				ended[1](test.spent)
				ended[1](test.spent) // it may be told twice
				pass(time.Minute)
				if got := c.jars[1].cause; !errors.Is(got, test.cause) || test.spent != nil && got != test.spent {
					t.Errorf("Close was told %v", got)
				}
				if s := p.Stats(); s.Closed[pool.Spent] != 1 || s.Idle != 2 {
					t.Errorf("got %+v", s)
				}
				if got := c.asked(); test.asked && !slices.Equal(got, []int{1, 3}) || !test.asked && got != nil {
					t.Errorf("asked were %v", got)
				}
			})
		})
	}
}

func TestWhyAFreshValueHasEndedIsWhatItsGetIsTold(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Watch = func(_ *jar, changed func(error)) { changed(errSour) }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		if _, err := p.Get(t.Context()); err != errSour {
			t.Errorf("got %v", err)
		}
	})
}

func TestOnlyWhatCleanHasMarkedIsClean(t *testing.T) {
	if marked := pool.Clean(errSour); !pool.IsClean(marked) || errors.Unwrap(marked) != errSour {
		t.Errorf("%v is not clean", marked)
	}
	for _, err := range []error{nil, errSour, pool.Clean(nil), fmt.Errorf("query: %w", pool.Clean(errSour))} {
		if pool.IsClean(err) {
			t.Errorf("%v is clean", err)
		}
	}
}
