package pool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errRefused = errors.New("connection refused")

// refuseUntil lets openings fail after d, until the one that succeeds.
func (w *works) refuseUntil(succeeds int, d time.Duration) {
	w.opening = func(ctx context.Context, n int) error {
		if err := pause(ctx, d); err != nil || n >= succeeds {
			return err
		}
		return errRefused
	}
}

func TestAFailureGoesToThoseWhoSawTheOpeningBegin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.refuseUntil(2, 10*time.Second)
		p := w.start()
		first := begin(t.Context(), p)
		time.Sleep(5 * time.Second)
		second := begin(t.Context(), p)
		if err := first.failure(t); err != errRefused || first.took != 10*time.Second {
			t.Errorf("the first got %v after %v", err, first.took)
		}
		if v := second.value(t); v.n != 2 { // a failed open wakes the next waiter
			t.Errorf("the second got value %d", v.n)
		}
		second.lease.Put()
	})
}

func TestNobodyFailsWhileALeasedValueMayComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.opening = func(_ context.Context, n int) error {
			if n > 1 {
				return errRefused
			}
			return nil
		}
		p := w.start()
		l := obtain(t, p)
		g := begin(t.Context(), p)
		time.Sleep(time.Minute)
		l.Put()
		if v := g.value(t); v.n != 1 || g.took != time.Minute {
			t.Errorf("got value %d after %v", v.n, g.took)
		}
		g.lease.Put()
	})
}

func TestWhenTheLastValueIsBrokenTheNextFailureIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.opening = func(_ context.Context, n int) error {
			if n > 1 {
				return errRefused
			}
			return nil
		}
		p := w.start()
		l := obtain(t, p)
		g := begin(t.Context(), p)
		time.Sleep(time.Minute)
		l.Discard(nil)
		if err := g.failure(t); err != errRefused || g.took > 62*time.Second {
			t.Errorf("got %v after %v", err, g.took)
		}
	})
}

func TestAllWaitersShareOneBackoff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.refuseUntil(1<<30, time.Millisecond)
		p := w.start()
		ctx := within(t, time.Minute)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				for ctx.Err() == nil {
					p.Get(ctx)
				}
			})
		}
		time.Sleep(time.Second)
		begun := w.opened()
		all.Wait()
		if n := w.opened() - begun; n < 20 || n > 150 {
			t.Errorf("%d openings in a minute in which each fails", n)
		}
	})
}

func TestOneOpeningIsTriedAtATimeUntilTheFirstSuccess(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Patience = time.Hour
		w.refuseUntil(5, time.Second)
		p := w.start()
		var line []*getting
		begin(within(t, 100*time.Millisecond), p) // so that the first trial is known to fail
		time.Sleep(1500 * time.Millisecond)
		for range 10 {
			line = append(line, begin(t.Context(), p))
		}
		for range 60 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if s := p.Stats(); s.Opened == 0 && s.Connecting > 1 {
				t.Fatalf("%d trials at a time", s.Connecting)
			}
			if s := p.Stats(); s.Opened == 1 && s.Connecting != 9 {
				t.Fatalf("after a success %d openings are under way, want 9", s.Connecting)
			}
		}
		for _, g := range line {
			g.value(t)
		}
		for _, g := range line {
			g.lease.Put()
		}
	})
}

func TestOpeningsThatFailTogetherAreOneFailure(t *testing.T) {
	for range 20 { // the backoff is drawn
		inBubble(t, func(t *testing.T, w *works) {
			w.refuseUntil(17, time.Second)
			p := w.start()
			ctx := within(t, 500*time.Millisecond)
			for range 16 {
				begin(ctx, p)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := w.opened(); n != 16 {
				t.Fatalf("%d openings", n)
			}
			g := begin(t.Context(), p)
			if g.value(t); g.took > 1100*time.Millisecond {
				t.Errorf("the next trial, which takes 1s, has ended after %v", g.took)
			}
			g.lease.Put()
		})
	}
}

func TestWithoutAnyPatienceAFailedOpeningFailsOneWhoWaitsThoughOthersMayBePutBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Patience = -1
		p := w.start()
		lent := begin(t.Context(), p)
		lent.value(t)
		w.refuseUntil(1<<30, 0)
		first, second := begin(t.Context(), p), begin(t.Context(), p)
		synctest.Wait()
		if first.err == nil || second.err != nil {
			t.Fatalf("the first got %v, the second %v", first.err, second.err)
		}
		lent.lease.Put()
		second.value(t)
		second.lease.Put()
	})
}

func TestPatienceOutlastsFailures(t *testing.T) {
	for _, test := range []struct {
		name     string
		succeeds int
	}{{"that end", 3}, {"until it is over", 1 << 30}} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *works) {
				w.Patience = 10 * time.Second
				w.refuseUntil(test.succeeds, time.Second)
				g := begin(t.Context(), w.start())
				<-g.done
				if test.succeeds == 3 && (g.err != nil || g.took > 9*time.Second) {
					t.Errorf("got %v after %v", g.err, g.took)
				}
				if test.succeeds > 3 && (g.err != errRefused || g.took < 10*time.Second || g.took > 14*time.Second) {
					t.Errorf("got %v after %v", g.err, g.took)
				}
				g.lease.Put()
			})
		})
	}
}
