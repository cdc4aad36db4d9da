package pool_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// shared is a works whose items carry several leases each.
type shared struct {
	*works
	capacity atomic.Int64 // of every item

	mu      sync.Mutex    // guards changed
	changed []func(error) // of each item: what Watch was told
}

// inSharedBubble is inBubble with items that carry n leases, until resize.
func inSharedBubble(t *testing.T, n int, f func(t *testing.T, w *shared)) {
	t.Helper()
	inBubble(t, func(t *testing.T, w *works) {
		s := &shared{works: w}
		s.capacity.Store(int64(n))
		w.Capacity = func(*item) int { return int(s.capacity.Load()) }
		w.Watch = func(_ *item, changed func(error)) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changed = append(s.changed, changed)
		}
		f(t, s)
	})
}

func (s *shared) resize(n int) {
	s.capacity.Store(int64(n))
	s.mu.Lock()
	told := s.changed
	s.mu.Unlock()
	for _, changed := range told {
		changed(nil)
	}
}

// obtain takes n leases.
func (s *shared) obtain(t *testing.T, n int) (leases []pool.Lease[*item]) {
	t.Helper()
	for range n {
		leases = append(leases, obtain(t, s.pool))
	}
	return leases
}

func putAll(leases []pool.Lease[*item]) {
	for _, l := range leases {
		l.Put()
	}
}

func TestAValueThatGrowsServesThoseWhoWait(t *testing.T) {
	inSharedBubble(t, 1, func(t *testing.T, w *shared) {
		w.Max = 1
		p := w.start()
		leases := w.obtain(t, 1)
		var line []*getting
		for range 4 {
			line = append(line, begin(t.Context(), p))
		}
		w.resize(4)
		for i, g := range line {
			if g.waits() != (i == 3) {
				t.Errorf("number %d waits: %t", i+1, g.waits())
			}
		}
		putAll(leases)
		for _, g := range line {
			g.value(t)
			g.lease.Put()
		}
	})
}

func TestAValueThatShrinksIsNotLentBeyondItsCapacity(t *testing.T) {
	inSharedBubble(t, 4, func(t *testing.T, w *shared) {
		w.Max = 1
		p := w.start()
		leases := w.obtain(t, 3)
		w.resize(2)
		g := begin(t.Context(), p)
		leases[0].Put()
		if !g.waits() {
			t.Error("a third lease of a value that carries two")
		}
		leases[1].Put()
		g.value(t)
		g.lease.Put()
		leases[2].Put()
		if s := p.Stats(); s.Idle != 1 || s.InUse != 0 || s.Size != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAValueThatShrankToOneLeaseIsLentOnce(t *testing.T) {
	inSharedBubble(t, 3, func(t *testing.T, w *shared) {
		w.Max = 1
		p := w.start()
		leases := w.obtain(t, 3)
		w.resize(1)
		putAll(leases[:2])
		if _, err := p.Get(within(t, time.Second)); !errors.Is(err, pool.ErrWait) {
			t.Errorf("a second lease: %v", err)
		}
		leases[2].Put()
		obtain(t, p).Put()
	})
}

func TestAValueWithoutCapacityIsClosedWithItsLastLease(t *testing.T) {
	inSharedBubble(t, 4, func(t *testing.T, w *shared) {
		p := w.start()
		leases := w.obtain(t, 2)
		v := leases[0].Value()
		w.resize(0)
		leases[0].Put()
		synctest.Wait()
		if n, _ := w.fate(v); n != 0 {
			t.Error("it was closed under its other owner")
		}
		w.capacity.Store(4) // of the next one
		other := obtain(t, p)
		if other.Value() == v {
			t.Error("it was lent once more")
		}
		leases[1].Put()
		synctest.Wait()
		if n, cause := w.fate(v); n != 1 || cause != pool.Spent {
			t.Errorf("closed %d times, of %v", n, cause)
		}
		other.Put()
	})
}

func TestAnIdleValueWithoutCapacityIsClosedAtOnce(t *testing.T) {
	inSharedBubble(t, 4, func(t *testing.T, w *shared) {
		p := w.start()
		putAll(w.obtain(t, 2))
		w.resize(-1)
		synctest.Wait()
		if s := p.Stats(); s.Size != 0 || s.Idle != 0 || s.Closed[pool.Spent] != 1 {
			t.Errorf("got %+v", s)
		}
		w.resize(4) // it is gone; nobody minds
		if s := p.Stats(); s.Size != 0 {
			t.Errorf("it came back: %+v", s)
		}
	})
}

func TestAFreshValueWithoutCapacityIsAFailureThatSaysSo(t *testing.T) {
	inSharedBubble(t, 0, func(t *testing.T, w *shared) {
		p := w.start()
		_, err := p.Get(t.Context())
		if err == nil || err.Error() != "pool: a fresh value can carry 0 leases" {
			t.Errorf("got %v", err)
		}
		ctx := within(t, time.Minute)
		for ctx.Err() == nil {
			p.Get(ctx)
		}
		if n := w.opened(); n > 150 {
			t.Errorf("%d openings in a minute", n)
		}
		if s := p.Stats(); s.Opened != s.Closed[pool.Spent] {
			t.Errorf("%d were opened, %d closed", s.Opened, s.Closed[pool.Spent])
		}
	})
}

func TestWatchMayCallChangedAtOnce(t *testing.T) {
	inSharedBubble(t, 1, func(t *testing.T, w *shared) {
		w.Max = 1
		w.Watch = func(_ *item, changed func(error)) {
			changed(nil)
			w.capacity.Store(3)
			changed(nil)
			go changed(nil)
		}
		w.start()
		leases := w.obtain(t, 3)
		putAll(leases)
	})
}

func TestAChangeWhileCapacityIsReadIsNotMissed(t *testing.T) {
	inSharedBubble(t, 1, func(t *testing.T, w *shared) {
		w.Max = 1
		var slow atomic.Bool
		w.Capacity = func(*item) int {
			n := w.capacity.Load()
			if slow.Load() {
				time.Sleep(time.Second)
			}
			return int(n)
		}
		w.start()
		l := w.obtain(t, 1)
		slow.Store(true)
		go w.resize(2)
		synctest.Wait() // it reads 2
		w.resize(3)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		putAll(append(l, w.obtain(t, 2)...))
	})
}

func TestAValueDiscardedWhileItsCapacityIsReadIsClosedOnce(t *testing.T) {
	inSharedBubble(t, 1, func(t *testing.T, w *shared) {
		var slow atomic.Bool
		w.Capacity = func(*item) int {
			if slow.Load() {
				time.Sleep(time.Second)
			}
			return 1
		}
		w.start()
		l := obtain(t, w.pool)
		v := l.Value()
		slow.Store(true)
		go w.resize(1)
		synctest.Wait()
		l.Discard(nil)
		time.Sleep(time.Minute)
		if n, _ := w.fate(v); n != 1 {
			t.Errorf("closed %d times", n)
		}
	})
}

func TestChangedAfterTheCloseDoesNothing(t *testing.T) {
	inSharedBubble(t, 2, func(t *testing.T, w *shared) {
		p := w.start()
		putAll(w.obtain(t, 1))
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.resize(9)
		w.resize(0)
		if s := p.Stats(); s.Size != 0 || s.Idle != 0 || s.Closing != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestADiscardedValueGoesWithItsLastLease(t *testing.T) {
	inSharedBubble(t, 3, func(t *testing.T, w *shared) {
		p := w.start()
		leases := w.obtain(t, 2)
		v := leases[0].Value()
		why := errors.New("GOAWAY")
		leases[0].Discard(why)
		leases[0].Put() // too late
		other := obtain(t, p)
		if other.Value() == v {
			t.Error("it was lent once more")
		}
		if n, _ := w.fate(v); n != 0 || leases[1].Value() != v {
			t.Error("it was closed under its other owner")
		}
		leases[1].Discard(errors.New("me too"))
		if n, cause := w.fate(v); n != 1 || cause != why {
			t.Errorf("closed %d times, of %v, want the first cause", n, cause)
		}
		other.Put()
	})
}

func TestASharedValueIsCheckedOnceForAll(t *testing.T) {
	inSharedBubble(t, 8, func(t *testing.T, w *shared) {
		w.Max = 1
		w.CheckAfter = time.Minute
		var checks atomic.Int64
		w.Check = func(ctx context.Context, _ *item) error {
			checks.Add(1)
			return pause(ctx, time.Second)
		}
		p := w.start()
		obtain(t, p).Put()
		time.Sleep(time.Hour)
		var all []*getting
		for range 8 {
			all = append(all, begin(t.Context(), p))
		}
		for _, g := range all {
			if g.value(t); g.took != time.Second {
				t.Errorf("got it after %v", g.took)
			}
			defer g.lease.Put()
		}
		if n := checks.Load(); n != 1 {
			t.Errorf("%d checks", n)
		}
	})
}

func TestAValueThatGrewSaysHowManyAreOpened(t *testing.T) {
	inSharedBubble(t, 1, func(t *testing.T, w *shared) {
		p := w.start()
		first := w.obtain(t, 1)
		w.resize(100) // it has learned what it can only now
		leases := w.obtain(t, 99)
		w.opening = func(ctx context.Context, _ int) error { return pause(ctx, time.Second) }
		var line []*getting
		for range 50 {
			line = append(line, begin(t.Context(), p))
		}
		if s := p.Stats(); s.Connecting > 1 {
			t.Errorf("%d openings for 50 who wait", s.Connecting)
		}
		for _, g := range line {
			g.value(t)
			g.lease.Put()
		}
		putAll(append(first, leases...))
	})
}
