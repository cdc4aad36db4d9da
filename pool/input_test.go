package pool_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

func TestAConfigThatMakesNoSenseIsRefused(t *testing.T) {
	type config = pool.Config[int]
	beat := func(context.Context, int) error { return nil }
	for _, test := range []struct {
		says  string
		spoil func(*config)
	}{
		{"neither Open nor Ask", func(c *config) { c.Open = nil }},
		{"both Open and Ask", func(c *config) { c.Ask = func(context.Context) (pool.Permit[int], error) { return nil, nil } }},
		{"Config.Max is -1", func(c *config) { c.Max = -1 }},
		{"Config.MinIdle is -2", func(c *config) { c.MinIdle = -2 }},
		{"Config.CheckAfter is -3ns", func(c *config) { c.CheckAfter = -3 }},
		{"Config.BeatEvery is -4ns", func(c *config) { c.Beat, c.BeatEvery = beat, -4 }},
		{"Config.MaxIdle is -1s", func(c *config) { c.MaxIdle = -time.Second }},
		{"Config.MaxLife is -1m0s", func(c *config) { c.MaxLife = -time.Minute }},
		{"Config.MaxWait is -2s", func(c *config) { c.MaxWait = -2 * time.Second }},
		{"Config.Expect is -7", func(c *config) { c.Capacity, c.Expect = func(int) int { return 1 }, -7 }},
		{"Config.Expect is 5, and Capacity is not set", func(c *config) { c.Expect = 5 }},
		{"Config.LeakAfter is -6ns", func(c *config) { c.LeakAfter = -6 }},
		{"Config.MinIdle is 3, more than Max, 2", func(c *config) { c.MinIdle, c.Max = 3, 2 }},
		{"Config.BeatEvery is 0s, and Beat is set: true", func(c *config) { c.Beat = beat }},
		{"Config.BeatEvery is 1s, and Beat is set: false", func(c *config) { c.BeatEvery = time.Second }},
	} {
		t.Run(test.says, func(t *testing.T) {
			c := config{Open: func(context.Context) (int, error) { return 0, nil }}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			test.spoil(&c)
			err := c.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), "pool: ") || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Validate says %v", err)
			}
			defer func() {
				if said, _ := recover().(string); !strings.Contains(said, test.says) {
					t.Errorf("New says %q", said)
				}
			}()
			pool.New(c)
		})
	}
}

func TestNegativeTimeoutsBoundNothing(t *testing.T) {
	c := pool.Config[int]{Open: func(context.Context) (int, error) { return 0, nil }, OpenTimeout: -1, ProbeTimeout: -1}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// endings are the ways to end a lease.
var endings = map[string]func(pool.Lease[*item]){
	"Put":     pool.Lease[*item].Put,
	"Discard": func(l pool.Lease[*item]) { l.Discard(errors.New("late")) },
}

func TestALeaseThatIsEndedLateReleasesNobodyElse(t *testing.T) {
	for first, end := range endings {
		for then, again := range endings {
			t.Run(first+", then "+then, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *works) {
					w.Max = 1
					p := w.start()
					mine := obtain(t, p)
					end(mine)
					again(mine) // nobody has it
					theirs := obtain(t, p)
					v := theirs.Value()
					again(mine) // somebody else has it
					if n, _ := w.fate(v); n != 0 || theirs.Value() != v {
						t.Error("it was taken from its owner")
					}
					if s := p.Stats(); s.InUse != 1 || s.Idle != 0 || s.Size != 1 {
						t.Errorf("got %+v", s)
					}
					if _, err := p.Get(within(t, time.Second)); !errors.Is(err, pool.ErrWait) {
						t.Errorf("a third one got %v", err)
					}
					theirs.Put()
				})
			})
		}
	}
}

func TestALeaseThatIsEndedByManyAtOnceIsEndedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 2
		p := w.start()
		for range 500 {
			mine := obtain(t, p)
			next := begin(t.Context(), p)
			var all sync.WaitGroup
			for _, end := range endings {
				all.Go(func() { end(mine) })
				all.Go(func() { end(mine) })
			}
			all.Wait()
			v := next.value(t)
			if n, _ := w.fate(v); n != 0 {
				t.Fatalf("value %d was closed under its owner", v.n)
			}
			if s := p.Stats(); s.InUse != 1 {
				t.Fatalf("got %+v", s)
			}
			next.lease.Put()
		}
	})
}

func TestALeaseThatIsOverHasNoValue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		ended := obtain(t, p)
		ended.Put()
		theirs := obtain(t, p) // the same value
		defer theirs.Put()
		for name, l := range map[string]pool.Lease[*item]{"after Put": ended, "the zero Lease": {}} {
			func() {
				defer func() {
					if said, _ := recover().(string); !strings.HasPrefix(said, "pool: Lease.Value") {
						t.Errorf("%s: %q", name, said)
					}
				}()
				l.Value()
			}()
			l.Put()
			l.Discard(nil)
		}
	})
}

func TestDiscardTellsCloseWhy(t *testing.T) {
	why := errors.New("unclean")
	for cause, want := range map[error]error{why: why, nil: pool.Discarded} {
		inBubble(t, func(t *testing.T, w *works) {
			l := obtain(t, w.start())
			v := l.Value()
			l.Discard(cause)
			if n, got := w.fate(v); n != 1 || got != want {
				t.Errorf("closed %d times, of %v, want %v", n, got, want)
			}
		})
	}
}

func TestAPoolWithoutCloseClosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New(pool.Config[int]{Open: func(context.Context) (int, error) { return 7, nil }})
		l, err := p.Get(t.Context())
		if err != nil || l.Value() != 7 {
			t.Fatal(err)
		}
		l.Discard(nil)
		if err := p.Close(t.Context()); err != nil || p.Stats().Size != 0 {
			t.Errorf("%v, %+v", err, p.Stats())
		}
	})
}
