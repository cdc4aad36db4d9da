package pool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/pool"
)

// lineAbove returns the place of the line above the caller's, as an Event ends.
func lineAbove() string {
	_, file, line, _ := runtime.Caller(1)
	return fmt.Sprintf("(%s:%d)", file, line-1)
}

// leaks returns what was reported.
func (c *cellar) leaks() (leaks []pool.Event) {
	c.now(func() {
		for _, e := range c.events {
			if e.Kind == pool.Leaked {
				leaks = append(leaks, e)
			}
		}
	})
	return leaks
}

func leakingAfterAMinute(_ *cellar, cfg *pool.Config[*jar]) { cfg.LeakAfter = time.Minute }

func TestALeaseThatIsOutForTooLongIsReportedOnceWithItsPlace(t *testing.T) {
	inCellar(t, leakingAfterAMinute, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		pass(time.Hour)
		l, err := p.Get(t.Context())
		want := lineAbove()
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute - 1)
		if got := c.leaks(); got != nil {
			t.Errorf("too early: %v", got)
		}
		pass(1)
		got := c.leaks()
		if len(got) != 1 || got[0].Took != time.Minute || !strings.HasSuffix(got[0].Place, want) {
			t.Fatalf("got %v, want one taken in %s", got, want)
		}
		pass(time.Hour)
		l.Put()
		pass(time.Hour)
		if got := c.leaks(); len(got) != 1 {
			t.Errorf("reported %d times", len(got))
		}
	})
}

func TestALeakIsPlacedWhereThePoolsUserIs(t *testing.T) {
	g := new(pool.Group[string, *jar])
	var c *cellar
	takes := map[string]func(ctx context.Context, p *pool.Pool[*jar], keep func(context.Context, *jar) error) string{
		"Get": func(ctx context.Context, p *pool.Pool[*jar], keep func(context.Context, *jar) error) string {
			l, _ := p.Get(ctx)
			at := lineAbove()
			keep(ctx, l.Value())
			l.Put()
			return at
		},
		"Do": func(ctx context.Context, p *pool.Pool[*jar], keep func(context.Context, *jar) error) string {
			p.Do(ctx, keep)
			return lineAbove()
		},
		"Group.Get": func(ctx context.Context, p *pool.Pool[*jar], keep func(context.Context, *jar) error) string {
			l, _ := g.Get(ctx, "a")
			at := lineAbove()
			keep(ctx, l.Value())
			l.Discard(nil)
			return at
		},
		"Group.Do": func(ctx context.Context, p *pool.Pool[*jar], keep func(context.Context, *jar) error) string {
			g.Do(ctx, "a", keep)
			return lineAbove()
		},
	}
	for name, take := range takes {
		t.Run(name, func(t *testing.T) {
			inCellar(t, func(cc *cellar, cfg *pool.Config[*jar]) {
				c = cc
				cfg.LeakAfter = time.Minute
				g = &pool.Group[string, *jar]{New: func(string) pool.Config[*jar] { return *cfg }}
			}, func(t *testing.T, _ *cellar, p *pool.Pool[*jar]) {
				want := take(t.Context(), p, func(context.Context, *jar) error {
					pass(time.Hour)
					return nil
				})
				if got := c.leaks(); len(got) != 1 || !strings.HasSuffix(got[0].Place, want) || !strings.Contains(got[0].Place, "TestALeakIsPlaced") {
					t.Errorf("got %v, want %s", got, want)
				}
				g.Close(t.Context())
			})
		})
	}
}

func TestALeaseThatIsPutBackInTimeIsNoLeak(t *testing.T) {
	inCellar(t, leakingAfterAMinute, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for i := range 10 {
			l := take(t, p)
			time.Sleep(time.Minute - 1)
			if i%2 == 0 {
				l.Put()
			} else {
				l.Discard(nil)
			}
		}
		pass(time.Hour)
		if got := c.leaks(); got != nil {
			t.Errorf("got %v", got)
		}
	})
}

func TestEachLeakIsReportedWhenItIsDue(t *testing.T) {
	inCellar(t, leakingAfterAMinute, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for range 5 {
			take(t, p)
			time.Sleep(10 * time.Second)
		}
		pass(15 * time.Second) // 65 s after the first, 55 s after the second
		for i := range 5 {
			if got := c.leaks(); len(got) != i+1 || got[i].Took != time.Minute {
				t.Errorf("got %v", got)
			}
			pass(10 * time.Second)
		}
	})
}

func TestWhoWaitsForASecondValueWhileHoldingTheLastIsNamed(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.Max, cfg.LeakAfter = 1, time.Hour }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		held := func(who string) string {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := p.Get(ctx)
			var w *pool.WaitError
			if !errors.As(err, &w) {
				t.Fatalf("%s: got %v", who, err)
			}
			if w.Held != "" && !strings.Contains(err.Error(), w.Held) {
				t.Errorf("%s: %q does not tell %q", who, err, w.Held)
			}
			return w.Held
		}
		l, err := p.Get(t.Context())
		want := lineAbove()
		if err != nil {
			t.Fatal(err)
		}
		if got := held("who holds it"); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %s", got, want)
		}
		other := make(chan string)
		go func() { other <- held("another goroutine") }()
		if got := <-other; got != "" {
			t.Errorf("another goroutine was told that it held %q", got)
		}
		l.Put()
		go func() {
			take(t, p)
			other <- ""
		}()
		<-other
		if got := held("who has put it back"); got != "" {
			t.Errorf("who has put it back was told that it held %q", got)
		}
	})
}

func TestWithoutLeakAfterNothingIsTracked(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.Max = 1 }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
		defer cancel()
		var w *pool.WaitError
		if _, err := p.Get(ctx); !errors.As(err, &w) || w.Held != "" || c.leaks() != nil {
			t.Errorf("got %v, and %v", err, c.leaks())
		}
	})
}
