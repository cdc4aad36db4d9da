package pool_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

func TestAValueCountsUntilItsCloseHasReturned(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.closing = func(*item) { time.Sleep(10 * time.Second) }
		p := w.start()
		go obtain(t, p).Discard(nil)
		synctest.Wait()
		g := begin(t.Context(), p)
		if s := p.Stats(); s.Closing != 1 || s.Size != 1 {
			t.Errorf("got %+v", s)
		}
		if v := g.value(t); v.n != 2 || g.took != 10*time.Second {
			t.Errorf("value %d came after %v", v.n, g.took)
		}
		g.lease.Put()
	})
}

func TestACloseThatHangsHoldsUpNobodyElse(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 3
		w.MaxIdle = time.Minute
		hangs := make(chan struct{})
		w.closing = func(v *item) {
			if v.n == 1 {
				<-hangs
			}
		}
		p := w.start()
		first, second, third := obtain(t, p), obtain(t, p), obtain(t, p)
		first.Put() // the coldest
		time.Sleep(time.Second)
		second.Put()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if s := p.Stats(); s.Closing != 1 || s.Closed[pool.Idled] != 1 {
			t.Fatalf("the first is not being closed: %+v", s)
		}
		time.Sleep(time.Minute)
		if s := p.Stats(); s.Closing != 1 || s.Closed[pool.Idled] != 2 || s.Size != 2 {
			t.Errorf("the second was not trimmed: %+v", s)
		}
		l := obtain(t, p)
		l.Put()
		third.Discard(nil)
		close(hangs)
	})
}

func TestACloseThatPanicsInDiscardLeavesTheBooksRight(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.closing = func(v *item) {
			if v.n == 1 {
				panic("a bug in Close")
			}
		}
		p := w.start()
		l := obtain(t, p)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("Discard has swallowed the panic")
				}
			}()
			l.Discard(nil)
		}()
		obtain(t, p).Put()
	})
}

func TestACloseThatExitsItsGoroutineLeavesTheBooksRight(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.closing = func(*item) { runtime.Goexit() }
		p := w.start()
		obtain(t, p).Put()
		if !p.Reclaim() {
			t.Error("nothing was reclaimed")
		}
		obtain(t, p).Put()
	})
}

func TestResetClosesEachValueInItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		leased, idle := obtain(t, p), obtain(t, p)
		out, in := leased.Value(), idle.Value()
		idle.Put()

		failover := errors.New("failover")
		p.Reset(failover)
		synctest.Wait()
		if n, cause := w.fate(in); n != 1 || cause != failover {
			t.Errorf("the idle one was closed %d times, of %v", n, cause)
		}
		if n, _ := w.fate(out); n != 0 {
			t.Error("the leased one was closed")
		}
		leased.Put()
		synctest.Wait()
		if n, cause := w.fate(out); n != 1 || cause != failover {
			t.Errorf("the leased one was closed %d times, of %v", n, cause)
		}
		if s := p.Stats(); s.Closed[pool.Purged] != 2 || s.Size != 0 {
			t.Errorf("got %+v", s)
		}
		l := obtain(t, p)
		if v := l.Value(); v.n != 3 {
			t.Errorf("got value %d", v.n)
		}
		l.Put()
	})
}

func TestResetEndsTheOpeningsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.opening = func(ctx context.Context, n int) error {
			if n == 1 { // of a server that is gone
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		p := w.start()
		first := begin(t.Context(), p)
		synctest.Wait()
		p.Reset(errors.New("failover"))
		first.failure(t)
		start := time.Now()
		obtain(t, p).Put()
		if took := time.Since(start); took != 0 {
			t.Errorf("it waited for %v for an opening that could only be thrown away", took)
		}
	})
}

func TestResetTellsThoseWhoWait(t *testing.T) {
	for _, cause := range []error{errors.New("failover"), nil} {
		inBubble(t, func(t *testing.T, w *works) {
			w.Max = 1
			p := w.start()
			l := obtain(t, p)
			v := l.Value()
			g := begin(t.Context(), p)
			p.Reset(cause)
			err := g.failure(t)
			retry, ok := err.(interface{ SafeToRetry() bool })
			if !errors.Is(err, pool.ErrReset) || cause != nil && !errors.Is(err, cause) || !ok || !retry.SafeToRetry() {
				t.Errorf("got %#v", err)
			}
			l.Put()
			synctest.Wait()
			want := cause
			if want == nil {
				want = pool.Purged
			}
			if _, got := w.fate(v); got != want {
				t.Errorf("Close was told %v, want %v", got, want)
			}
		})
	}
}

func TestThereAreNeverMoreThanMaxDuringAReset(t *testing.T) { // puddle has twice as many
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 4
		w.closing = func(*item) { time.Sleep(time.Second) }
		p := w.start()
		var old []pool.Lease[*item]
		for range w.Max {
			old = append(old, obtain(t, p))
		}
		old[0].Put()
		old[1].Put()
		p.Reset(nil)
		var line []*getting
		for range w.Max {
			line = append(line, begin(t.Context(), p))
		}
		time.Sleep(5 * time.Second)
		old[2].Put()
		old[3].Put()
		for i, g := range line {
			want := time.Second
			if i >= 2 {
				want = 6 * time.Second
			}
			if g.value(t); g.took != want {
				t.Errorf("number %d waited for %v, want %v", i+1, g.took, want)
			}
		}
		for _, g := range line {
			g.lease.Put()
		}
	})
}

func TestAfterAResetNobodyWaitsForAnOpeningFromBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.opening = func(ctx context.Context, n int) error {
			if n == 1 { // to a server that is gone
				return pause(ctx, 20*time.Second)
			}
			return pause(ctx, time.Second)
		}
		p := w.start()
		begin(within(t, 500*time.Millisecond), p)
		time.Sleep(time.Second)
		p.Reset(errors.New("failover"))
		g := begin(t.Context(), p)
		if g.value(t); g.took != time.Second {
			t.Errorf("it waited for %v, want 1s", g.took)
		}
		g.lease.Put()
	})
}

func TestAFailureFromBeforeAResetDelaysNobody(t *testing.T) {
	for range 20 { // the backoff is drawn
		inBubble(t, func(t *testing.T, w *works) {
			w.refuseUntil(2, 10*time.Second)
			p := w.start()
			begin(within(t, time.Second), p)
			time.Sleep(2 * time.Second)
			p.Reset(nil)
			time.Sleep(8 * time.Second) // now it fails
			g := begin(t.Context(), p)
			if g.value(t); g.took != 10*time.Second {
				t.Errorf("it waited for %v, want 10s", g.took)
			}
			g.lease.Put()
		})
	}
}

func TestClosingDrains(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 2
		w.closing = func(*item) { time.Sleep(time.Second) }
		p := w.start()
		l, idle := obtain(t, p), obtain(t, p)
		waiter := begin(t.Context(), p)
		done := make(chan error)
		start := time.Now()
		for range 2 { // it may be called again
			go func() { done <- p.Close(t.Context()) }()
		}
		if err := waiter.failure(t); err != pool.ErrClosed {
			t.Errorf("who waited got %v", err)
		}
		if _, err := p.Get(t.Context()); err != pool.ErrClosed {
			t.Errorf("who came later got %v", err)
		}
		v := l.Value() // still good for its owner
		time.Sleep(3 * time.Second)
		idle.Put()
		l.Put()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("closed after %v, want 4s", took)
		}
		if _, cause := w.fate(v); cause != pool.Shut {
			t.Errorf("Close was told %v", cause)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseSaysWhatIsLeftAndTheRestGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		l := obtain(t, p)
		why := errors.New("the process ends")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		err := p.Close(ctx)
		if !errors.Is(err, why) || !strings.HasPrefix(err.Error(), "pool: 1 leases are out, 0 values being opened, 0 being closed") {
			t.Errorf("got %v", err)
		}
		l.Put()
		synctest.Wait()
		if err := p.Close(ctx); err != nil { // although ctx has ended
			t.Errorf("the rest did not go on: %v", err)
		}
	})
}

func TestCloseEndsOpenings(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.opening = func(ctx context.Context, n int) error {
			if n == 1 {
				time.Sleep(time.Minute) // it does not heed its context
				return nil
			}
			return pause(ctx, time.Hour)
		}
		w.OpenTimeout = -1
		p := w.start()
		deaf, heedful := begin(t.Context(), p), begin(t.Context(), p)
		start := time.Now()
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("closed after %v", took)
		}
		for _, g := range []*getting{deaf, heedful} {
			if err := g.failure(t); err != pool.ErrClosed || g.took != 0 {
				t.Errorf("got %v after %v", err, g.took)
			}
		}
		if s := p.Stats(); s.Closed[pool.Shut] != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestCloseEndsAsks(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		atDesk(t, func(t *testing.T, w *works, d *desk) {
			d.deaf = deaf
			p := w.start()
			begin(t.Context(), p)
			if deaf {
				time.AfterFunc(time.Minute, func() { d.grant <- nil })
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if _, _, released := d.counted(); deaf != (released == 1) || w.opened() != 0 {
				t.Errorf("%d permissions were released, %d used", released, w.opened())
			}
		})
	}
}

func TestCloseEndsAnAskForMinIdle(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		atDesk(t, func(t *testing.T, w *works, d *desk) {
			w.MinIdle = 1
			d.deaf = deaf
			p := w.start()
			begin(within(t, time.Second), p)
			time.Sleep(time.Minute)
			if s := p.Stats(); s.Asking != 1 || s.Waiting != 0 {
				t.Fatalf("got %+v", s)
			}
			if deaf {
				time.AfterFunc(time.Second, func() { d.grant <- nil })
			}
			if err := p.Close(within(t, time.Minute)); err != nil {
				t.Error(err)
			}
			if _, _, released := d.counted(); deaf != (released == 1) || w.opened() != 0 {
				t.Errorf("%d permissions were released, %d used", released, w.opened())
			}
		})
	}
}

func TestAnOpeningFromBeforeAResetFailsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.OpenTimeout = 5 * time.Second
		w.opening = func(_ context.Context, n int) error {
			if n == 1 {
				time.Sleep(time.Minute) // it ignores its context
			}
			return nil
		}
		p := w.start()
		begin(t.Context(), p)
		p.Reset(nil)
		time.Sleep(10 * time.Second)
		obtain(t, p).Put()
		if s := p.Stats(); s.Connecting != 1 || s.Size != 2 || s.OpenFailed != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestClosingAPoolThatWasNeverUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		over, cancel := context.WithCancel(t.Context())
		cancel()
		p := w.start()
		for range 64 { // no select may throw a coin
			if err := p.Close(over); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Get(t.Context()); err != pool.ErrClosed {
			t.Errorf("got %v", err)
		}
	})
}

func TestAPoolThatIsClosedIsNotReset(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		l := obtain(t, p)
		v := l.Value()
		p.Close(within(t, time.Second))
		p.Reset(errors.New("failover"))
		l.Put()
		synctest.Wait()
		if n, cause := w.fate(v); n != 1 || cause != pool.Shut {
			t.Errorf("closed %d times, of %v", n, cause)
		}
	})
}
