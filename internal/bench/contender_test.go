package main

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// everyContender opens each pool with room for some values.
func everyContender(t *testing.T, values int, test func(t *testing.T, c contender)) {
	t.Helper()
	for _, e := range slices.Concat([]entry{ours}, peers) {
		t.Run(e.name, func(t *testing.T) {
			c, err := load{values: values}.open(e)
			if err != nil {
				t.Fatal(err)
			}
			test(t, c)
			if err := c.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNoValueHasTwoHoldersAtATime(t *testing.T) {
	everyContender(t, 3, func(t *testing.T, c contender) {
		var mu sync.Mutex // guards seen
		seen := make(map[*conn]bool)
		var done sync.WaitGroup
		for range 16 {
			done.Go(func() {
				for range 200 {
					err := c.use(t.Context(), func(v *conn) {
						if !v.held.CompareAndSwap(false, true) {
							t.Error("a value has two holders")
						}
						mu.Lock()
						seen[v] = true
						mu.Unlock()
						runtime.Gosched()
						v.held.Store(false)
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		done.Wait()
		if len(seen) > 3 {
			t.Errorf("%d values, 3 are allowed", len(seen))
		}
	})
}

func TestAsManyValuesAreOutAsThePoolHas(t *testing.T) {
	everyContender(t, 2, func(t *testing.T, c contender) {
		err := c.use(t.Context(), func(first *conn) {
			err := c.use(t.Context(), func(second *conn) {
				if first == second {
					t.Error("the same value twice")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				if err := c.use(ctx, func(*conn) {}); err == nil {
					t.Error("a third value")
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestACycleEndsAndHoldsInBetween(t *testing.T) {
	everyContender(t, 1, func(t *testing.T, c contender) {
		held := 0
		if err := c.cycle(t.Context(), 7, func() { held++ }); err != nil || held != 7 {
			t.Error(held, err)
		}
		if err := c.cycle(t.Context(), 7, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestEveryGoroutineOfALoadGetsItsTurns(t *testing.T) {
	everyContender(t, 2, func(t *testing.T, c contender) {
		l := load{goroutines: 8, values: 2, hold: runtime.Gosched}
		s, err := l.run(c, 50)
		if err != nil || s.ops != 400 || s.took <= 0 {
			t.Error(s, err)
		}
		l.hold = func() { time.Sleep(time.Millisecond) }
		waited, err := l.waits(c, 3)
		if err != nil || len(waited) != 24 || slices.Min(waited) <= 0 {
			t.Error(waited, err)
		}
		// Eight take turns on two values: the last of them waits for three others.
		if longest := slices.Max(waited); longest < 3*time.Millisecond {
			t.Errorf("nobody waited longer than %v", longest)
		}
	})
}

func TestTheBaselineServesWhoeverHasWaitedLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(1)
		held, err := b.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var served []int
		for i := range 5 {
			go func() {
				c, err := b.Get(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				served = append(served, i)
				b.Put(c)
			}()
			synctest.Wait()
		}
		b.Put(held)
		synctest.Wait()
		if !slices.Equal(served, []int{0, 1, 2, 3, 4}) {
			t.Error(served)
		}
	})
}

func TestWhoeverGivesUpLeavesTheQueueOfTheBaseline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBare(1)
		held, err := b.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// The middle one of three gives up, and nobody else notices.
		hurried, cancel := context.WithCancel(t.Context())
		served := 0
		for i, ctx := range []context.Context{t.Context(), hurried, t.Context()} {
			go func() {
				c, err := b.Get(ctx)
				if i == 1 {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				served++
				b.Put(c)
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		b.Put(held)
		synctest.Wait()
		if served != 2 || len(b.idle) != 1 {
			t.Errorf("%d were served, %d values are idle", served, len(b.idle))
		}
	})
}

func TestTheBaselineLosesNoValueToWhoeverGivesUp(t *testing.T) {
	b := newBare(2)
	var done sync.WaitGroup
	for range 16 {
		done.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				if c, err := b.Get(ctx); err == nil {
					runtime.Gosched()
					b.Put(c)
				}
			}
		})
	}
	done.Wait()
	if len(b.idle) != 2 || b.first != nil || b.last != nil {
		t.Errorf("%d idle of 2, queue %p to %p", len(b.idle), b.first, b.last)
	}
}

func TestAFailedPoolIsToldAndNotWaitedFor(t *testing.T) {
	l := load{goroutines: 2, values: 3}
	broken := errors.New("broken")
	fails := entry{"fails", func(int) (contender, error) { return failing{broken}, nil }}
	if _, err := l.open(fails); !errors.Is(err, broken) {
		t.Error("open:", err)
	}
	if _, err := l.run(failing{broken}, 5); !errors.Is(err, broken) {
		t.Error("run:", err)
	}
	if _, _, err := l.turns(baseline, fails, 5); !errors.Is(err, broken) {
		t.Error("turns:", err)
	}
	if _, err := l.p99s([]entry{baseline, fails}, 5, 1); !errors.Is(err, broken) {
		t.Error("p99s:", err)
	}
}

// A failing contender has no values.
type failing struct{ err error }

func (f failing) cycle(context.Context, int, func()) error { return f.err }
func (f failing) use(context.Context, func(*conn)) error   { return f.err }
func (f failing) close(context.Context) error              { return nil }
