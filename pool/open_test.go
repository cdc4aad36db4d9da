package pool_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// herd lets n goroutines Get, work for a while and Put.
func herd(t *testing.T, p *pool.Pool[*item], n int) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			l, err := p.Get(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(10 * time.Millisecond)
			l.Put()
		})
	}
	all.Wait()
}

func TestAHerdOf500OpensAtMostMaxValues(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 16
		w.opening = func(ctx context.Context, _ int) error { return pause(ctx, time.Second) }
		herd(t, w.start(), 500)
		if n := w.opened(); n > 16 {
			t.Errorf("%d openings", n)
		}
	})
}

func TestAHerdOf500LearnsTheCapacityFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Capacity = func(*item) int { return 250 }
		w.opening = func(ctx context.Context, _ int) error { return pause(ctx, time.Second) }
		herd(t, w.start(), 500)
		if n := w.opened(); n > 3 {
			t.Errorf("%d openings, want at most 3", n)
		}
	})
}

func TestTheKnownCapacitySaysHowManyAreOpened(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Capacity = func(*item) int { return 10 }
		w.opening = func(ctx context.Context, _ int) error { return pause(ctx, time.Second) }
		p := w.start()
		l := obtain(t, p)
		var all []*getting
		for range 9 + 25 { // nine find room beside l
			all = append(all, begin(t.Context(), p))
		}
		if s := p.Stats(); s.Connecting != 3 || s.Waiting != 25 {
			t.Errorf("%d openings for %d waiters, want 3 for 25", s.Connecting, s.Waiting)
		}
		for _, g := range all {
			g.value(t)
			g.lease.Put()
		}
		l.Put()
	})
}

func TestTheExpectedCapacitySaysHowManyAreOpenedAtFirst(t *testing.T) {
	for _, test := range []struct{ expect, carries, first, all int }{
		{expect: 0, carries: 10, first: 1, all: 3},
		{expect: 10, carries: 10, first: 3, all: 3},
		{expect: 1, carries: 10, first: 25, all: 25},
		{expect: 100, carries: 10, first: 1, all: 3}, // it was wrong
	} {
		inBubble(t, func(t *testing.T, w *works) {
			w.Expect = test.expect
			w.Capacity = func(*item) int { return test.carries }
			w.opening = func(ctx context.Context, _ int) error { return pause(ctx, time.Second) }
			p := w.start()
			var all []*getting
			for range 25 {
				all = append(all, begin(t.Context(), p))
			}
			if s := p.Stats(); s.Connecting != test.first {
				t.Errorf("%+v: at first %d openings", test, s.Connecting)
			}
			for _, g := range all {
				g.value(t)
				defer g.lease.Put()
			}
			if n := w.opened(); n != test.all {
				t.Errorf("%+v: %d openings in all", test, n)
			}
		})
	}
}

func TestNobodysCancellationEndsAnOpening(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		type key struct{}
		var whose any
		w.opening = func(ctx context.Context, _ int) error {
			whose = ctx.Value(key{})
			return pause(ctx, 10*time.Second)
		}
		p := w.start()
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "the first"))
		first := begin(ctx, p)
		time.Sleep(2 * time.Second)
		cancel()
		first.failure(t)
		second := begin(t.Context(), p)
		if v := second.value(t); v.n != 1 || second.took != 8*time.Second {
			t.Errorf("the next in line got value %d after %v", v.n, second.took)
		}
		if whose != "the first" {
			t.Errorf("Open had the values of %v", whose)
		}
		second.lease.Put()
	})
}

func TestOpenTimeoutBoundsAnOpening(t *testing.T) {
	for _, test := range []struct {
		set, want time.Duration
	}{{5 * time.Second, 5 * time.Second}, {0, 30 * time.Second}, {-1, 0}} {
		t.Run(test.set.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *works) {
				w.OpenTimeout = test.set
				w.opening = func(ctx context.Context, _ int) error {
					if _, bounded := ctx.Deadline(); !bounded {
						return nil
					}
					return pause(ctx, time.Hour)
				}
				p := w.start()
				start := time.Now()
				l, err := p.Get(t.Context())
				took := time.Since(start)
				if timedOut := errors.Is(err, context.DeadlineExceeded); took != test.want || timedOut != (test.want > 0) {
					t.Errorf("after %v: %v", took, err)
				}
				l.Put()
			})
		})
	}
}

func TestAnOpenThatIgnoresItsContextCountsAsFailedASecondLater(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 2
		w.OpenTimeout = 5 * time.Second
		w.opening = func(_ context.Context, n int) error {
			if n == 1 {
				time.Sleep(time.Minute)
			}
			return nil
		}
		p := w.start()
		first := begin(t.Context(), p)
		if err := first.failure(t); first.took != 6*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", first.took, err)
		}
		other := begin(t.Context(), p)
		if v := other.value(t); v.n != 2 || other.took > time.Second {
			t.Errorf("it stops others: value %d came after %v", v.n, other.took)
		}
		late := begin(t.Context(), p)
		if s := p.Stats(); s.Size != 2 || s.Connecting != 1 || s.Waiting != 1 {
			t.Errorf("it takes up no room: %+v", s)
		}
		if v := late.value(t); v.n != 1 {
			t.Errorf("got value %d, want the late one", v.n)
		}
		if s := p.Stats(); s.OpenFailed != 1 || s.Opened != 2 || s.Connecting != 0 {
			t.Errorf("got %+v", s)
		}
		other.lease.Put()
		late.lease.Put()
	})
}

func TestWhoCameDuringAnOpenThatIsOverdueGetsTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.OpenTimeout = 5 * time.Second
		w.opening = func(_ context.Context, n int) error {
			if n == 1 {
				time.Sleep(time.Hour)
			}
			return nil
		}
		p := w.start()
		begin(within(t, time.Second), p)
		time.Sleep(3 * time.Second)
		g := begin(t.Context(), p)
		if v := g.value(t); v.n != 2 || g.took < 3*time.Second || g.took > 4*time.Second {
			t.Errorf("got value %d after %v", v.n, g.took)
		}
		g.lease.Put()
	})
}

func TestALateFailureIsNoSecondFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.OpenTimeout = time.Second
		w.opening = func(_ context.Context, n int) error {
			if n > 1 {
				return nil
			}
			time.Sleep(time.Minute)
			return errors.New("too late")
		}
		p := w.start()
		begin(t.Context(), p).failure(t)
		l := obtain(t, p)
		time.Sleep(time.Hour)
		if s := p.Stats(); s.OpenFailed != 1 || s.Size != 1 {
			t.Errorf("got %+v", s)
		}
		l.Put()
	})
}

func TestAnOpenThatExitsItsGoroutineFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Max = 1
		w.opening = func(_ context.Context, n int) error {
			if n == 1 {
				runtime.Goexit() // as t.FailNow does
			}
			return nil
		}
		p := w.start()
		begin(t.Context(), p).failure(t)
		obtain(t, p).Put()
	})
}

func TestAFreshValueThatFailsItsCheckIsNotOpenedWithoutEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		ctx, cancel := context.WithCancel(within(t, time.Minute))
		defer cancel()
		w.Check = func(context.Context, *item) error { return errors.New("not good") }
		w.opening = func(_ context.Context, n int) error {
			if n >= 1000 {
				cancel()
			}
			return nil
		}
		l, _ := w.start().Get(ctx)
		l.Put()
		if n := w.opened(); n >= 1000 {
			t.Errorf("%d openings in no time", n)
		}
	})
}

// A desk gives permission to open, when it is told to.
type desk struct {
	w       *works
	grant   chan error    // nil: yes
	release time.Duration // what Release takes
	deaf    bool          // to the end of its context

	mu                        sync.Mutex // guards what follows
	asks, now, most, released int
}

// atDesk is inBubble with a Config that asks.
func atDesk(t *testing.T, f func(t *testing.T, w *works, d *desk)) {
	t.Helper()
	inBubble(t, func(t *testing.T, w *works) {
		d := &desk{w: w, grant: make(chan error)}
		w.Open, w.Ask = nil, d.ask
		f(t, w, d)
	})
}

func (d *desk) count(asks, now, released int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asks += asks
	d.now += now
	d.released += released
	d.most = max(d.most, d.now)
}

// counted returns how many have asked, how many at once, and how many
// permissions were released.
func (d *desk) counted() (asks, most, released int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asks, d.most, d.released
}

func (d *desk) ask(ctx context.Context) (pool.Permit[*item], error) {
	d.count(1, 1, 0)
	defer d.count(0, -1, 0)
	done := ctx.Done()
	if d.deaf {
		done = nil
	}
	select {
	case err := <-d.grant:
		if err != nil {
			return nil, err
		}
		return slip{d}, nil
	case <-done:
		return nil, context.Cause(ctx)
	}
}

// A slip is a permission.
type slip struct{ d *desk }

func (s slip) Open(ctx context.Context) (*item, error) { return s.d.w.open(ctx) }

func (s slip) Release() {
	s.d.count(0, 1, 1) // as long as it takes, nobody else may ask
	time.Sleep(s.d.release)
	s.d.count(0, -1, 0)
}

func TestOnlyOneAsksHoweverManyWait(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		p := w.start()
		var line []*getting
		for range 10 {
			line = append(line, begin(t.Context(), p))
		}
		for i, g := range line {
			if s := p.Stats(); s.Asking != 1 || s.Waiting != 10-i || s.Size != i+1 {
				t.Errorf("after %d permissions: %+v", i, s)
			}
			d.grant <- nil
			g.value(t)
			synctest.Wait()
		}
		if asks, most, _ := d.counted(); asks != 10 || most != 1 {
			t.Errorf("%d asked, %d at once", asks, most)
		}
		for _, g := range line {
			g.lease.Put()
		}
	})
}

func TestTheNextAskDoesNotWaitForTheOpening(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		w.opening = func(ctx context.Context, _ int) error { return pause(ctx, time.Second) }
		p := w.start()
		one, two := begin(t.Context(), p), begin(t.Context(), p)
		d.grant <- nil
		d.grant <- nil
		one.value(t)
		two.value(t)
		if one.took != time.Second || two.took != time.Second {
			t.Errorf("they waited for %v and %v", one.took, two.took)
		}
		one.lease.Put()
		two.lease.Put()
	})
}

func TestAskingCountsAgainstMax(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		w.Max = 2
		p := w.start()
		var line []*getting
		for range 5 {
			line = append(line, begin(t.Context(), p))
		}
		d.grant <- nil
		d.grant <- nil
		synctest.Wait()
		if s := p.Stats(); s.Asking != 0 || s.Size != 2 || s.Waiting != 3 {
			t.Errorf("got %+v", s)
		}
		for _, g := range line {
			g.value(t)
			g.lease.Put()
		}
		if asks, _, _ := d.counted(); asks != 2 {
			t.Errorf("%d asked", asks)
		}
	})
}

func TestAnAskIsGivenUpWhenNobodyNeedsTheValue(t *testing.T) {
	for name, end := range map[string]func(l pool.Lease[*item], cancel func()){
		"because a value was put back": func(l pool.Lease[*item], _ func()) { l.Put() },
		"because who waited went away": func(_ pool.Lease[*item], cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			atDesk(t, func(t *testing.T, w *works, d *desk) {
				p := w.start()
				first := begin(t.Context(), p)
				d.grant <- nil
				first.value(t)
				ctx, cancel := context.WithCancel(t.Context())
				second := begin(ctx, p)
				if s := p.Stats(); s.Asking != 1 {
					t.Fatalf("nobody asks: %+v", s)
				}
				end(first.lease, cancel)
				<-second.done
				synctest.Wait()
				if s := p.Stats(); s.Asking != 0 || s.Size != 1 || s.OpenFailed != 0 {
					t.Errorf("got %+v", s)
				}
				second.lease.Put()
				first.lease.Put()
				cancel()
			})
		})
	}
}

func TestAnAskGoesOnWhileSomebodyElseNeedsTheValue(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		p := w.start()
		ctx, cancel := context.WithCancel(t.Context())
		first, second := begin(ctx, p), begin(t.Context(), p)
		cancel()
		first.failure(t)
		d.grant <- nil
		second.value(t)
		second.lease.Put()
		if asks, _, _ := d.counted(); asks != 1 {
			t.Errorf("%d asked", asks)
		}
	})
}

func TestAPermissionThatComesTooLateIsReleasedBeforeTheNextAsk(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		d.deaf = true
		d.release = time.Second
		p := w.start()
		ctx, cancel := context.WithCancel(t.Context())
		gone := begin(ctx, p)
		cancel()
		gone.failure(t)
		d.grant <- nil
		synctest.Wait() // it is being released
		next := begin(t.Context(), p)
		start := time.Now()
		d.grant <- nil
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("the next one asked after %v", waited)
		}
		next.value(t)
		next.lease.Put()
		if asks, most, released := d.counted(); asks != 2 || most != 1 || released != 1 {
			t.Errorf("%d asked, %d at once, %d released", asks, most, released)
		}
	})
}

func TestAPermissionThatIsNeededAgainIsUsed(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		d.deaf = true
		p := w.start()
		ctx, cancel := context.WithCancel(t.Context())
		gone := begin(ctx, p)
		cancel()
		gone.failure(t)
		next := begin(t.Context(), p)
		d.grant <- nil
		next.value(t)
		next.lease.Put()
		if asks, _, released := d.counted(); asks != 1 || released != 0 {
			t.Errorf("%d asked, %d released", asks, released)
		}
	})
}

func TestAnOpeningBeginsWithItsPermission(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		w.refuseUntil(2, time.Second)
		p := w.start()
		first := begin(t.Context(), p)
		second := begin(t.Context(), p) // during the Ask, before the Open
		d.grant <- nil
		for _, g := range []*getting{first, second} {
			if err := g.failure(t); err != errRefused || g.took != time.Second {
				t.Errorf("got %v after %v", err, g.took)
			}
		}
	})
}

func TestAPermissionFromBeforeAResetIsGoodAfterIt(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		d.deaf = true
		p := w.start()
		begin(t.Context(), p)
		p.Reset(nil)
		g := begin(t.Context(), p)
		d.grant <- nil
		if v := g.value(t); v.n != 1 {
			t.Errorf("got value %d", v.n)
		}
		g.lease.Put()
	})
}

func TestARefusedAskFailsThoseWhoWaitedWhenItBegan(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		p := w.start()
		first := begin(t.Context(), p)
		second := begin(t.Context(), p) // it came later
		full := errors.New("no port is free")
		d.grant <- full
		if err := first.failure(t); err != full {
			t.Errorf("got %v", err)
		}
		d.grant <- nil
		second.value(t)
		second.lease.Put()
		if s := p.Stats(); s.OpenFailed != 1 || s.Opened != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAnAskThatGivesNothingFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.Open, w.Ask = nil, func(context.Context) (pool.Permit[*item], error) { return nil, nil }
		if _, err := w.start().Get(t.Context()); err == nil {
			t.Error("and nobody says so")
		}
	})
}
