package pool_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/natwise/natwise/pool"
)

var errMoved = errors.New("its name has another address now")

// retire retires the items that are named by their numbers, and returns the numbers
// of those that were asked for.
func (w *works) retire(cause error, numbers ...int) (asked []int) {
	w.pool.Retire(cause, func(v *item) bool {
		asked = append(asked, v.n)
		return slices.Contains(numbers, v.n)
	})
	synctest.Wait()
	return asked
}

// wantFate compares how often v was closed, and for what.
func (w *works) wantFate(t *testing.T, v *item, closed int, cause error) {
	t.Helper()
	synctest.Wait()
	if n, got := w.fate(v); n != closed || got != cause {
		t.Errorf("value %d was closed %d times, for %v; want %d times, for %v", v.n, n, got, closed, cause)
	}
}

func TestRetireClosesEachOfThoseThatMatchInItsTime(t *testing.T) {
	for cause, want := range map[error]error{errMoved: errMoved, nil: pool.Retired} {
		inBubble(t, func(t *testing.T, w *works) {
			p := w.start()
			var leases []pool.Lease[*item]
			var items []*item
			for range 4 {
				l := obtain(t, p)
				leases, items = append(leases, l), append(items, l.Value())
			}
			leases[0].Put()
			leases[1].Put()
			if asked := w.retire(cause, 1, 3); !slices.Equal(asked, []int{1, 2, 3, 4}) {
				t.Errorf("asked for %v", asked)
			}
			w.wantFate(t, items[0], 1, want)
			w.wantFate(t, items[2], 0, nil)
			leases[2].Put()
			leases[3].Put()
			w.wantFate(t, items[2], 1, want)
			for _, i := range []int{1, 3} {
				w.wantFate(t, items[i], 0, nil)
			}
			if s := p.Stats(); s.Closed[pool.Retired] != 2 || s.Idle != 2 || s.Size != 2 {
				t.Errorf("got %+v", s)
			}
			if asked := w.retire(cause); !slices.Equal(asked, []int{2, 4}) {
				t.Errorf("later asked for %v", asked)
			}
		})
	}
}

func TestARetiredValueThatIsSharedTakesNoMoreLeases(t *testing.T) {
	inSharedBubble(t, 3, func(t *testing.T, w *shared) {
		p := w.start()
		leases := w.obtain(t, 2)
		v := leases[0].Value()
		w.retire(errMoved, 1)
		other := obtain(t, p)
		if other.Value() == v {
			t.Error("it was lent once more")
		}
		w.resize(8) // nothing that it can do makes it fit again
		leases[0].Put()
		w.wantFate(t, v, 0, nil)
		leases[1].Put()
		w.wantFate(t, v, 1, errMoved)
		other.Put()
	})
}

func TestARetiredValueThatBreaksIsDiscarded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		l := obtain(t, p)
		v := l.Value()
		w.retire(errMoved, 1)
		broken := errors.New("broken")
		l.Discard(broken)
		w.wantFate(t, v, 1, broken)
		if s := p.Stats(); s.Closed[pool.Discarded] != 1 || s.Closed[pool.Retired] != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestRetireTouchesNeitherWaitsNorOpenings(t *testing.T) {
	atDesk(t, func(t *testing.T, w *works, d *desk) {
		w.opening = func(ctx context.Context, n int) error { return pause(ctx, time.Duration(n-1)*time.Second) }
		p := w.start()
		first := begin(t.Context(), p)
		d.grant <- nil
		first.value(t)
		second, third := begin(t.Context(), p), begin(t.Context(), p)
		d.grant <- nil
		synctest.Wait() // one is being opened, one asked for
		w.retire(errMoved, 1, 2, 3)
		if s := p.Stats(); s.Asking != 1 || s.Connecting != 1 || s.Waiting != 2 {
			t.Errorf("got %+v", s)
		}
		first.lease.Put() // who waits does not get it
		if v := second.value(t); v.n != 2 || second.took != time.Second {
			t.Errorf("got value %d after %v", v.n, second.took)
		}
		second.lease.Put()
		if v := third.value(t); v.n != 2 {
			t.Errorf("got value %d", v.n)
		}
		third.lease.Put()
	})
}

func TestMatchIsAskedUnderNoLockAndNotForWhatCameMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		p := w.start()
		one, two := obtain(t, p), obtain(t, p)
		gone := two.Value()
		var fresh pool.Lease[*item]
		var asked []int
		p.Retire(errMoved, func(v *item) bool {
			if asked = append(asked, v.n); v.n == 1 {
				fresh = obtain(t, p)
				two.Discard(errRefused)
			}
			return true
		})
		if !slices.Equal(asked, []int{1, 2}) {
			t.Errorf("asked for %v", asked)
		}
		w.wantFate(t, gone, 1, errRefused)
		one.Put()
		fresh.Put()
		if s := p.Stats(); s.Idle != 1 || s.Closed[pool.Retired] != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAValueThatIsRetiredWhileItIsCheckedIsNotLent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *works) {
		w.CheckAfter = time.Minute
		w.Check = func(ctx context.Context, _ *item) error { return pause(ctx, time.Second) }
		p := w.start()
		l := obtain(t, p)
		v := l.Value()
		l.Put()
		time.Sleep(time.Hour)
		g := begin(t.Context(), p)
		w.retire(errMoved, 1)
		w.wantFate(t, v, 0, nil) // not under the Check
		if got := g.value(t); got == v {
			t.Error("it was lent")
		}
		w.wantFate(t, v, 1, errMoved)
		g.lease.Put()
	})
}

func TestAValueThatIsRetiredWhileItIsBeatenIsClosedAfterwards(t *testing.T) {
	for _, answer := range []error{nil, errSour} {
		var beaten chan *jar
		inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
			beaten = make(chan *jar, 1)
			cfg.BeatEvery = time.Minute
			cfg.Beat = func(ctx context.Context, j *jar) error {
				beaten <- j
				c.slowTaste(ctx, j)
				return answer
			}
		}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
			take(t, p).Put()
			<-beaten
			p.Retire(errMoved, func(*jar) bool { return true })
			synctest.Wait()
			if got := c.closed(); got != nil {
				t.Errorf("closed %v during the Beat", got)
			}
			pass(time.Second)
			if s := p.Stats(); s.Size != 0 || s.Closed[pool.Retired] != 1 || c.jars[0].cause != errMoved {
				t.Errorf("closed for %v: %+v", c.jars[0].cause, s)
			}
		})
	}
}

func TestWhatWasRetiredIsReplacedAfterAWhile(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.MinIdle = 2 }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		pass(time.Second)
		p.Retire(nil, func(*jar) bool { return true })
		pass(5*time.Second - 1)
		if s := p.Stats(); s.Size != 0 {
			t.Errorf("just after: %+v", s)
		}
		pass(time.Second)
		if s := p.Stats(); s.Idle != 2 {
			t.Errorf("later: %+v", s)
		}
	})
}

func TestWhatGoesAnywayIsNotRetired(t *testing.T) {
	failover := errors.New("failover")
	for name, test := range map[string]struct {
		end  func(t *testing.T, p *pool.Pool[*item])
		want error
	}{
		"after a Reset": {func(_ *testing.T, p *pool.Pool[*item]) { p.Reset(failover) }, failover},
		"after Close":   {func(t *testing.T, p *pool.Pool[*item]) { p.Close(within(t, time.Second)) }, pool.Shut},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *works) {
				p := w.start()
				l := obtain(t, p)
				v := l.Value()
				test.end(t, p)
				if asked := w.retire(errMoved, 1); asked != nil {
					t.Errorf("asked for %v", asked)
				}
				l.Put()
				w.wantFate(t, v, 1, test.want)
			})
		})
		t.Run(name+" in the middle", func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *works) {
				p := w.start()
				l := obtain(t, p)
				v := l.Value()
				p.Retire(errMoved, func(*item) bool {
					test.end(t, p)
					return true
				})
				l.Put()
				w.wantFate(t, v, 1, test.want)
			})
		})
	}
}

func TestAPoolRemembersNothingOfWhatIsClosed(t *testing.T) {
	p := pool.New(pool.Config[*jar]{Open: func(context.Context) (*jar, error) { return new(jar), nil }})
	l, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := weak.Make(l.Value())
	l.Discard(nil)
	if l, err = p.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Put()
	if runtime.GC(); v.Value() != nil {
		t.Error("what was discarded is still there")
	}
}
