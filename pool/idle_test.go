package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// A jar is what the tests of this file keep in pools.
type jar struct {
	n       int // the how-manieth of its cellar, from 1
	opened  time.Time
	age     time.Duration // when it was closed; 0: it is not
	cause   error         // of its Close
	sour    bool          // it does not pass
	asked   []time.Time   // when it was checked or beaten
	idleFor time.Duration // it says that it may be idle for so long
}

// A cellar opens jars and remembers them all.
type cellar struct {
	mu     sync.Mutex // guards the fields below, and what the jars remember
	jars   []*jar
	ended  []int // the jars that were closed, in that order
	events []pool.Event
}

func (c *cellar) open(context.Context) (*jar, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j := &jar{n: len(c.jars) + 1, opened: time.Now()}
	c.jars = append(c.jars, j)
	return j, nil
}

func (c *cellar) close(j *jar, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j.age, j.cause = time.Since(j.opened), cause
	c.ended = append(c.ended, j.n)
}

var errSour = errors.New("it is sour")

// taste is a Check and a Beat.
func (c *cellar) taste(_ context.Context, j *jar) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	j.asked = append(j.asked, time.Now())
	if j.sour {
		return errSour
	}
	return nil
}

// slowTaste takes a second.
func (c *cellar) slowTaste(ctx context.Context, j *jar) error {
	time.Sleep(time.Second)
	return c.taste(ctx, j)
}

// hang is a Check and a Beat that heeds nothing but its context.
func hang(ctx context.Context, _ *jar) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (c *cellar) observe(e pool.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// now runs f while nothing happens to the jars.
func (c *cellar) now(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// tasted returns how often all jars together were asked.
func (c *cellar) tasted() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.jars {
		n += len(j.asked)
	}
	return n
}

func (c *cellar) closed() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ended)
}

// inCellar runs f in a bubble, with a pool of jars that set has furnished.
func inCellar(t *testing.T, set func(*cellar, *pool.Config[*jar]), f func(*testing.T, *cellar, *pool.Pool[*jar])) {
	synctest.Test(t, func(t *testing.T) {
		c := new(cellar)
		cfg := pool.Config[*jar]{Open: c.open, Close: c.close, Observe: c.observe}
		set(c, &cfg)
		p := pool.New(cfg)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // some leases may be out
			defer cancel()
			p.Close(ctx)
		})
		f(t, c, p)
	})
}

func take(t *testing.T, p *pool.Pool[*jar]) pool.Lease[*jar] {
	t.Helper()
	l, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func takeMany(t *testing.T, p *pool.Pool[*jar], n int) (all []pool.Lease[*jar]) {
	t.Helper()
	for range n {
		all = append(all, take(t, p))
	}
	return all
}

func putBack(all []pool.Lease[*jar]) {
	for _, l := range all {
		l.Put()
	}
}

// pass lets time pass and everybody do what is due by then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// coarse is how far back the pool's clock may be.
const coarse = 50 * time.Millisecond

func TestTheValueThatWasUsedLastIsLentFirst(t *testing.T) {
	inCellar(t, func(*cellar, *pool.Config[*jar]) {}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 3)
		all[0].Put()
		all[2].Put()
		all[1].Put()
		for _, want := range []int{2, 3, 1} {
			if got := take(t, p).Value().n; got != want {
				t.Errorf("got value %d, want %d", got, want)
			}
		}
	})
}

func TestReclaimClosesWhatWasIdleForLongest(t *testing.T) {
	inCellar(t, func(*cellar, *pool.Config[*jar]) {}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 4)
		for _, i := range []int{2, 0, 1} {
			all[i].Put()
			time.Sleep(time.Second)
		}
		if idle, ok := p.LongestIdle(); !ok || idle < 3*time.Second || idle > 3*time.Second+coarse {
			t.Errorf("the longest idle is so for %v, %t", idle, ok)
		}
		for range 3 {
			if !p.Reclaim() {
				t.Error("nothing was reclaimed")
			}
			synctest.Wait()
		}
		if got, want := c.closed(), []int{3, 1, 2}; !slices.Equal(got, want) {
			t.Errorf("closed %v, want %v", got, want)
		}
		if cause := c.jars[0].cause; cause != pool.Reclaimed {
			t.Errorf("Close was told %v", cause)
		}
		if _, ok := p.LongestIdle(); ok || p.Reclaim() {
			t.Error("a value was reclaimed from whoever has it")
		}
	})
}

func TestReclaimTakesTheSharedValueThatWasIdleForLongest(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Capacity = func(*jar) int { return 2 }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 5) // of 1, 1, 2, 2, 3
		for _, i := range []int{2, 4, 0, 1, 3} {
			all[i].Put()
			time.Sleep(time.Second)
		}
		for range 3 {
			p.Reclaim()
			synctest.Wait()
		}
		if got, want := c.closed(), []int{3, 1, 2}; !slices.Equal(got, want) {
			t.Errorf("closed %v, want %v", got, want)
		}
	})
}

func TestSharedLoadStaysOnFewValuesSoThatTheOthersEnd(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Capacity = func(*jar) int { return 10 }
		cfg.MaxIdle = time.Minute
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 30))
		for range 180 { // half an hour of five at once
			five := takeMany(t, p, 5)
			time.Sleep(5 * time.Second)
			putBack(five)
			time.Sleep(5 * time.Second)
		}
		if s := p.Stats(); s.Size != 1 || s.Opened != 3 || s.Closed[pool.Idled] != 2 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAnUntouchedPoolTrimsItself(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.MaxIdle = time.Minute
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 5))
		pass(time.Minute - coarse - 1)
		if s := p.Stats(); s.Idle != 5 {
			t.Errorf("too early: %+v", s)
		}
		pass(coarse + 1)
		if s := p.Stats(); s.Size != 0 || s.Closed[pool.Idled] != 5 {
			t.Errorf("too late: %+v", s)
		}
		if cause := c.jars[0].cause; cause != pool.Idled {
			t.Errorf("Close was told %v", cause)
		}
	})
}

func TestTrimmingTakesTheColdestAndStopsAtMinIdle(t *testing.T) {
	for _, apart := range []time.Duration{0, time.Second} {
		t.Run(fmt.Sprint("put back ", apart, " apart"), func(t *testing.T) {
			inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
				cfg.MaxIdle, cfg.MinIdle = time.Minute, 2
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				all := takeMany(t, p, 5)
				pass(time.Second) // MinIdle is filled: seven values
				warmest := all[4].Value()
				for _, l := range all {
					time.Sleep(apart)
					l.Put()
				}
				pass(time.Hour)
				if s := p.Stats(); s.Size != 2 || s.Idle != 2 || s.Opened != 7 {
					t.Errorf("got %+v", s)
				}
				if got := c.closed(); slices.Contains(got, warmest.n) || len(got) != 5 {
					t.Errorf("closed %v, the warmest is %d", got, warmest.n)
				}
			})
		})
	}
}

func TestAValueUsedInTimeIsNotTrimmed(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.MaxIdle = time.Minute
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for range 60 {
			take(t, p).Put()
			time.Sleep(59 * time.Second)
		}
		if s := p.Stats(); s.Opened != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAValueIsTrimmedAsSoonAsMinIdleDoesNotNeedIt(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.MaxIdle, cfg.MinIdle, cfg.Max = time.Minute, 1, 2
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 2)
		all[0].Put()
		time.Sleep(50 * time.Second)
		all[1].Put()
		pass(11 * time.Second)
		if got := c.closed(); !slices.Equal(got, []int{1}) {
			t.Errorf("61 s after the first was put back, closed are %v", got)
		}
	})
}

func TestACloseThatHangsDoesNotStopTheTrimming(t *testing.T) {
	var hung chan struct{}
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		hung = make(chan struct{})
		cfg.MaxIdle = time.Minute
		cfg.Close = func(j *jar, cause error) {
			if j.n == 1 {
				<-hung
			}
			c.close(j, cause)
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for _, l := range takeMany(t, p, 10) {
			l.Put()
			time.Sleep(time.Second)
		}
		pass(time.Minute)
		if s := p.Stats(); s.Size != 1 || s.Closing != 1 || len(c.closed()) != 9 {
			t.Errorf("got %+v, closed %v", s, c.closed())
		}
		close(hung)
	})
}

func TestMinIdleIsFilledOneAfterTheOtherOnceThePoolIsInUse(t *testing.T) {
	for _, slow := range []time.Duration{0, 10 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(slow.String(), func(t *testing.T) {
			var begun []time.Time
			inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
				cfg.MinIdle = 5
				cfg.Open = func(ctx context.Context) (*jar, error) {
					c.mu.Lock()
					begun = append(begun, time.Now())
					c.mu.Unlock()
					time.Sleep(slow)
					return c.open(ctx)
				}
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				pass(time.Hour)
				if len(begun) != 0 {
					t.Error("a pool that nobody has used opened values")
				}
				l := take(t, p)
				pass(time.Minute)
				if s := p.Stats(); s.InUse != 1 || s.Idle != 5 || s.Opened != 6 {
					t.Errorf("got %+v", s)
				}
				for i, at := range begun[2:] { // the first was for the Get
					if since := at.Sub(begun[i+1]); since < 100*time.Millisecond || since < slow {
						t.Errorf("one was begun %v after the other", since)
					}
				}
				l.Put()
			})
		})
	}
}

func TestMinIdleIsFilledAgainAfterWhateverTookFromIt(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.MinIdle = 3 }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		full := func(after string, inUse int) {
			t.Helper()
			pass(time.Second)
			if s := p.Stats(); s.Idle != 3 || s.InUse != inUse || s.Size != 3+inUse {
				t.Errorf("after %s: %+v", after, s)
			}
		}
		take(t, p).Discard(nil)
		full("the first use", 0)
		all := takeMany(t, p, 3)
		full("loans", 3)
		for _, l := range append(all, takeMany(t, p, 2)...) {
			l.Discard(nil)
		}
		full("discards", 0)
		p.Reset(nil)
		full("a reset", 0)
		p.Reclaim()
		pass(4 * time.Second) // whoever needed the room has it now
		if s := p.Stats(); s.Idle != 2 {
			t.Errorf("just after a reclaim: %+v", s)
		}
		full("a reclaim", 0)
	})
}

func TestMinIdleDoesNotPassMax(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.MinIdle, cfg.Max = 3, 3 }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 2)
		pass(time.Minute)
		if s := p.Stats(); s.Size != 3 || s.Idle != 1 {
			t.Errorf("got %+v", s)
		}
		putBack(all)
		pass(time.Minute)
		if s := p.Stats(); s.Idle != 3 || s.Opened != 3 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestFillingStopsWhereOpeningFails(t *testing.T) {
	var begun []time.Time
	down := false
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.MinIdle = 3
		cfg.Open = func(ctx context.Context) (*jar, error) {
			c.mu.Lock()
			begun = append(begun, time.Now())
			refused := down
			c.mu.Unlock()
			if refused {
				return nil, errors.New("refused")
			}
			return c.open(ctx)
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		pass(time.Second)
		c.now(func() { down, begun = true, nil })
		p.Reset(nil)
		pass(10 * time.Minute)
		c.now(func() {
			if n := len(begun); n != 1 {
				t.Errorf("tried %d times in ten minutes in which nobody needed a value", n)
			}
			down = false
		})
		take(t, p).Put()
		pass(3 * time.Second)
		if s := p.Stats(); s.Idle != 3 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestValuesOpenedTogetherDoNotEndTogether(t *testing.T) {
	const values = 200
	for _, life := range []time.Duration{5 * time.Second, 5 * time.Minute, 24 * time.Hour, 1 << 32} {
		for _, uses := range []int{0, 100} { // a draw at each use would end them early
			t.Run(fmt.Sprint(life, " used ", uses, " times"), func(t *testing.T) {
				inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.MaxLife = life }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
					putBack(takeMany(t, p, values))
					for range uses {
						pass(life / time.Duration(uses))
						putBack(takeMany(t, p, p.Stats().Idle))
					}
					pass(life)
					if s := p.Stats(); s.Size != 0 || s.Opened != values || s.Closed[pool.Aged] != values {
						t.Fatalf("got %+v", s)
					}
					var fifths [5]int
					sum := 0.0
					for _, j := range c.jars {
						if j.age < life/4*3 || j.age > life+coarse {
							t.Fatalf("one ended at %v", j.age)
						}
						part := float64(j.age)/float64(life)*4 - 3
						fifths[min(int(part*5), 4)]++
						sum += part
					}
					if slices.Min(fifths[:]) < values/5/3 {
						t.Errorf("in the fifths of the last quarter ended %v", fifths)
					}
					if mean := sum / values; mean < 0.38 || mean > 0.62 {
						t.Errorf("on average they ended at %.2f of the last quarter", mean)
					}
				})
			})
		}
	}
}

func TestALentValueIsNotClosedForItsAge(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) { cfg.MaxLife = time.Minute }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		l := take(t, p)
		pass(time.Hour)
		if len(c.closed()) != 0 {
			t.Error("closed while it was lent")
		}
		l.Put()
		synctest.Wait()
		if j := c.jars[0]; j.cause != pool.Aged || j.age != time.Hour {
			t.Errorf("closed by %v after %v", j.cause, j.age)
		}
		if s := p.Stats(); s.Size != 0 || s.Closed[pool.Aged] != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestASharedValueThatHasAgedTakesNoMoreLeasesAndEndsWithItsLast(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.MaxLife = time.Minute
		cfg.Capacity = func(*jar) int { return 3 }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 2)
		pass(time.Minute)
		if n := take(t, p).Value().n; n != 2 {
			t.Errorf("value %d was lent", n)
		}
		all[0].Put()
		pass(time.Second)
		if len(c.closed()) != 0 {
			t.Error("closed while it was lent")
		}
		all[1].Put()
		synctest.Wait()
		if got := c.closed(); !slices.Equal(got, []int{1}) || c.jars[0].cause != pool.Aged {
			t.Errorf("closed %v", got)
		}
	})
}

func TestAValueIsCheckedOnlyAfterASilence(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Check, cfg.CheckAfter = c.taste, time.Minute
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		for range 10 {
			time.Sleep(time.Minute - coarse - 1)
			take(t, p).Put()
		}
		if n := c.tasted(); n != 0 {
			t.Errorf("checked %d times", n)
		}
		time.Sleep(time.Minute + coarse)
		take(t, p).Put()
		take(t, p).Put()
		if n := c.tasted(); n != 1 {
			t.Errorf("checked %d times after a silence", n)
		}
	})
}

func TestWithoutCheckAfterEveryLoanButTheFirstIsChecked(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) { cfg.Check, cfg.Max = c.taste, 1 }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for range 3 {
			take(t, p).Put()
		}
		l := take(t, p)
		time.AfterFunc(time.Second, l.Put)
		take(t, p)                   // handed over
		if n := c.tasted(); n != 4 { // a fresh value has just proved that it is good
			t.Errorf("five loans were checked %d times", n)
		}
	})
}

func TestAFailingCheckClosesTheValueAndTheGetTakesAnother(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Check, cfg.CheckAfter = c.taste, time.Minute
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 3))
		time.Sleep(time.Hour)
		c.jars[2].sour, c.jars[1].sour = true, true
		l := take(t, p)
		if n := l.Value().n; n != 1 {
			t.Errorf("got value %d", n)
		}
		l.Put()
		time.Sleep(time.Hour)
		c.jars[0].sour = true
		if n := take(t, p).Value().n; n != 4 {
			t.Errorf("got value %d, want a new one", n)
		}
		synctest.Wait()
		if got := c.closed(); len(got) != 3 {
			t.Errorf("closed %v", got)
		}
		for _, j := range c.jars[:3] {
			if j.cause != errSour {
				t.Errorf("Close was told %v", j.cause)
			}
		}
		if s := p.Stats(); s.Closed[pool.Failed] != 3 || s.Size != 1 || s.InUse != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAHangingCheckIsBoundedAndHoldsUpNobodyElse(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.CheckAfter = time.Minute
		cfg.Check = func(ctx context.Context, j *jar) error {
			if j.n == 2 {
				return hang(ctx, j)
			}
			return nil
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 2))
		time.Sleep(time.Hour)
		start := time.Now()
		done := make(chan time.Duration)
		go func() {
			take(t, p).Put()
			done <- time.Since(start)
		}()
		synctest.Wait()
		take(t, p).Put()
		if took := time.Since(start); took != 0 {
			t.Errorf("another Get took %v", took)
		}
		if took := <-done; took != 5*time.Second {
			t.Errorf("the check was given up after %v", took)
		}
		synctest.Wait()
		if s := p.Stats(); s.Closed[pool.Failed] != 1 || s.Idle != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestACheckEndsWithTheContextOfItsGet(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Check, cfg.CheckAfter, cfg.ProbeTimeout = hang, time.Minute, -1
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := p.Get(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAPanicInACheckLeavesTheBooksRight(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Max, cfg.CheckAfter, cfg.ProbeTimeout = 1, time.Minute, -1
		cfg.Check = func(context.Context, *jar) error { panic("checked in vain") }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		time.Sleep(time.Hour)
		func() {
			defer func() {
				if r := recover(); r != "checked in vain" {
					t.Errorf("recovered %v", r)
				}
			}()
			p.Get(t.Context())
		}()
		synctest.Wait()
		if s := p.Stats(); s.Size != 0 || s.InUse != 0 || s.Closed[pool.Failed] != 1 {
			t.Errorf("got %+v", s)
		}
		if n := take(t, p).Value().n; n != 2 {
			t.Errorf("got value %d", n)
		}
	})
}

func TestASharedValueIsLentToNobodyElseWhileItIsChecked(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Max, cfg.CheckAfter = 1, time.Minute
		cfg.Capacity = func(*jar) int { return 10 }
		cfg.Check = c.slowTaste
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		time.Sleep(time.Hour)
		start := time.Now()
		for range 5 {
			go func() {
				take(t, p)
				if took := time.Since(start); took != time.Second {
					t.Errorf("lent after %v", took)
				}
			}()
		}
		pass(time.Minute)
		if s := p.Stats(); s.InUse != 5 || c.tasted() != 1 {
			t.Errorf("checked %d times: %+v", c.tasted(), s)
		}
	})
}

func TestOnlyIdleValuesAreBeatenAndForHours(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) { cfg.Beat, cfg.BeatEvery = c.taste, time.Minute }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		l := take(t, p)
		pass(10 * time.Hour)
		if n := c.tasted(); n != 0 {
			t.Errorf("beaten %d times while it was lent", n)
		}
		last := time.Now()
		l.Put()
		pass(10 * time.Hour)
		beats := c.jars[0].asked
		for _, at := range beats {
			if since := at.Sub(last); since < 54*time.Second-coarse || since > time.Minute {
				t.Errorf("beaten %v after it was known to be good", since)
			}
			last = at
		}
		if n := len(beats); n < 600 || n > 667 {
			t.Errorf("beaten %d times in ten hours", n)
		}
	})
}

func TestASharedValueIsNeitherBeatenNorTrimmedWhileItIsLent(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Beat, cfg.BeatEvery, cfg.MaxIdle = c.taste, time.Minute, 10*time.Minute
		cfg.Capacity = func(*jar) int { return 2 }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		all := takeMany(t, p, 3) // of 1, 1, 2
		time.Sleep(time.Minute)
		putBack(all[1:])
		pass(time.Hour)
		if got := c.closed(); !slices.Equal(got, []int{2}) {
			t.Errorf("closed %v", got)
		}
		if one, two := len(c.jars[0].asked), len(c.jars[1].asked); one != 0 || two < 9 {
			t.Errorf("the one that is lent was beaten %d times, the idle one %d times", one, two)
		}
	})
}

func TestAValueIsNotBeatenIfItWasUsedSince(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) { cfg.Beat, cfg.BeatEvery = c.taste, time.Minute }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for range 100 {
			take(t, p).Put()
			time.Sleep(53 * time.Second)
		}
		if n := c.tasted(); n != 0 {
			t.Errorf("beaten %d times", n)
		}
	})
}

func TestValuesOpenedTogetherAreNotBeatenTogether(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) { cfg.Beat, cfg.BeatEvery = c.taste, 100*time.Second }, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		start := time.Now()
		putBack(takeMany(t, p, 100))
		pass(100 * time.Second)
		var seconds [10]int
		for _, j := range c.jars {
			if len(j.asked) != 1 {
				t.Fatalf("value %d was beaten %d times", j.n, len(j.asked))
			}
			seconds[min(max(0, int((j.asked[0].Sub(start)-90*time.Second)/time.Second)), 9)]++
		}
		if slices.Max(seconds[:]) > 30 {
			t.Errorf("from the 90th second on were beaten %v", seconds)
		}
	})
}

func TestAValueIsNotLentWhileItIsBeaten(t *testing.T) {
	for _, max := range []int{1, 2} {
		t.Run(fmt.Sprint("of ", max), func(t *testing.T) {
			var beaten chan *jar
			inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
				beaten = make(chan *jar, 1)
				cfg.Max, cfg.BeatEvery = max, time.Minute
				cfg.Beat = func(ctx context.Context, j *jar) error {
					beaten <- j
					return c.slowTaste(ctx, j)
				}
				cfg.Open = func(ctx context.Context) (*jar, error) {
					time.Sleep(3 * time.Second)
					return c.open(ctx)
				}
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				take(t, p).Put()
				<-beaten
				start := time.Now()
				l := take(t, p) // of a second value none is needed: the beat ends first
				if took := time.Since(start); took != time.Second || l.Value().n != 1 {
					t.Errorf("got value %d after %v", l.Value().n, took)
				}
			})
		})
	}
}

func TestABeatDoesNotTouchMaxIdle(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Beat, cfg.BeatEvery, cfg.MaxIdle = c.slowTaste, time.Minute, 10*time.Minute
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		pass(10*time.Minute + time.Second) // a beat may be under way when it is due
		if s := p.Stats(); s.Closed[pool.Idled] != 1 || c.tasted() < 9 {
			t.Errorf("after %d beats: %+v", c.tasted(), s)
		}
	})
}

func TestFiftyDeadValuesAreFoundFourAtATime(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		running := 0
		cfg.BeatEvery = time.Minute
		cfg.Beat = func(ctx context.Context, j *jar) error {
			count := func(n int) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if running += n; running > 4 {
					t.Errorf("%d beats at a time", running)
				}
			}
			count(1)
			defer count(-1)
			return hang(ctx, j)
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 50))
		pass(54*time.Second - coarse)
		start := time.Now()
		for len(c.closed()) < 50 {
			pass(time.Second)
		}
		if took := time.Since(start); took > (6+13*5+1)*time.Second { // thirteen rounds of ProbeTimeout
			t.Errorf("it took %v", took)
		}
		for _, j := range c.jars {
			if !errors.Is(j.cause, context.DeadlineExceeded) {
				t.Fatalf("Close was told %v", j.cause)
			}
		}
		if s := p.Stats(); s.Closed[pool.Failed] != 50 || s.Size != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestTheFirstFailingBeatMakesTheOthersBeAskedAtOnce(t *testing.T) {
	for _, slow := range []time.Duration{10 * time.Millisecond, 0} {
		t.Run(fmt.Sprint("in ", slow), func(t *testing.T) {
			inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
				cfg.BeatEvery = time.Minute
				cfg.Beat = func(ctx context.Context, j *jar) error {
					time.Sleep(slow)
					err := c.taste(ctx, j)
					if n := c.tasted(); n > 100 { // else nothing would ever end it
						t.Errorf("beaten %d times", n)
						time.Sleep(time.Hour)
					}
					return err
				}
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				putBack(takeMany(t, p, 20))
				c.now(func() {
					for _, j := range c.jars[:10] {
						j.sour = true
					}
				})
				for c.tasted() == 0 || len(c.closed()) == 0 {
					pass(10 * time.Millisecond)
				}
				pass(100 * time.Millisecond)
				if s := p.Stats(); s.Closed[pool.Failed] != 10 || s.Idle != 10 {
					t.Errorf("got %+v", s)
				}
				for _, j := range c.jars {
					if (j.age > 0) != j.sour || j.sour && j.cause != errSour || len(j.asked) == 0 {
						t.Errorf("value %d, sour: %t, was asked %d times and closed by %v", j.n, j.sour, len(j.asked), j.cause)
					}
				}
			})
		})
	}
}

func TestAfterAFailingBeatNoneIsLentThatWasNotAsked(t *testing.T) {
	var beaten chan *jar
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		beaten = make(chan *jar, 100)
		cfg.BeatEvery = time.Minute
		cfg.Beat = func(ctx context.Context, j *jar) error {
			beaten <- j
			return c.slowTaste(ctx, j)
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		putBack(takeMany(t, p, 20))
		c.now(func() {
			for _, j := range c.jars {
				j.sour = true
			}
		})
		<-beaten
		pass(time.Second) // the first has failed; most were not asked yet
		if n := take(t, p).Value().n; n <= 20 {
			t.Errorf("got value %d", n)
		}
	})
}

func TestAHangingBeatIsBounded(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.Beat, cfg.BeatEvery, cfg.ProbeTimeout = hang, time.Minute, 2*time.Second
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		pass(time.Minute + 2*time.Second)
		if j := c.jars[0]; j.age < 56*time.Second-coarse || j.age > 62*time.Second || !errors.Is(j.cause, context.DeadlineExceeded) {
			t.Errorf("closed by %v after %v", j.cause, j.age)
		}
	})
}

func TestALimitBeyondAllTimeIsNone(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.MaxIdle, cfg.MaxLife, cfg.BeatEvery = math.MaxInt64, math.MaxInt64, math.MaxInt64
		cfg.Beat = func(context.Context, *jar) error { return errSour }
		cfg.LeakAfter, cfg.Patience, cfg.OpenTimeout, cfg.ProbeTimeout = math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64
		cfg.Observe = func(e pool.Event) {
			if e.Kind == pool.Leaked {
				t.Error("leaked")
			}
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		time.Sleep(time.Second)
		for range 3 {
			take(t, p).Put()
			time.Sleep(time.Hour)
		}
		if s := p.Stats(); s.Opened != 1 || s.Idle != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

// idleFor sets how long a jar says that it may be idle.
func (c *cellar) idleFor(j *jar, d time.Duration) { c.now(func() { j.idleFor = d }) }

// tells lets each jar say how long it may be idle.
func tells(c *cellar, cfg *pool.Config[*jar]) {
	cfg.IdleFor = func(j *jar) time.Duration {
		c.mu.Lock()
		defer c.mu.Unlock()
		return j.idleFor
	}
}

func TestEachValueIsIdleForAsLongAsItSays(t *testing.T) {
	for _, test := range []struct {
		says, maxIdle time.Duration
		minIdle       int
		want          time.Duration // zero: for ever
	}{
		{says: 5 * time.Second, want: 5 * time.Second},
		{says: 5 * time.Second, maxIdle: time.Minute, want: 5 * time.Second},
		{says: time.Hour, maxIdle: time.Minute, want: time.Minute},
		{says: 0, maxIdle: time.Minute, want: time.Minute},
		{says: 0, want: 0},
		{says: -time.Second, maxIdle: time.Minute, want: 1},
		{says: math.MaxInt64, want: 0},
		{says: 5 * time.Second, maxIdle: time.Second, minIdle: 1, want: 5 * time.Second},
		{says: 0, maxIdle: time.Second, minIdle: 1, want: 0},
	} {
		inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
			tells(c, cfg)
			cfg.MaxIdle, cfg.MinIdle, cfg.Max = test.maxIdle, test.minIdle, max(1, test.minIdle)
		}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
			l := take(t, p)
			c.idleFor(l.Value(), test.says)
			pass(time.Hour) // a lease is no idleness
			l.Put()
			if test.want == 0 {
				if pass(100 * time.Hour); len(c.closed()) > 0 {
					t.Errorf("%+v: closed after %v", test, c.jars[0].age-time.Hour)
				}
				return
			}
			early := max(0, test.want-coarse-1)
			if pass(early); len(c.closed()) > 0 && test.says >= 0 {
				t.Errorf("%+v: closed after %v", test, c.jars[0].age-time.Hour)
			}
			pass(test.want - early)
			if j := c.jars[0]; j.age == 0 || j.age > time.Hour+test.want || j.cause != pool.Idled {
				t.Errorf("%+v: closed for %v, after %v", test, j.cause, j.age-time.Hour)
			}
		})
	}
}

func TestHowLongAValueMayBeIdleIsReadWheneverItIsPutBack(t *testing.T) {
	var p *pool.Pool[*jar]
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		tells(c, cfg)
		read := cfg.IdleFor
		cfg.IdleFor = func(j *jar) time.Duration {
			if p != nil {
				p.Stats() // would wait for ever for the lock
			}
			return read(j)
		}
	}, func(t *testing.T, c *cellar, q *pool.Pool[*jar]) {
		p = q
		for _, says := range []time.Duration{time.Minute, 5 * time.Second, 0, time.Hour, 10 * time.Second} {
			l := take(t, p)
			if l.Value().n != 1 {
				t.Fatalf("got value %d", l.Value().n)
			}
			c.idleFor(l.Value(), says)
			l.Put()
			c.idleFor(c.jars[0], time.Nanosecond) // nobody asks now
			if says == 0 {
				says = 1000 * time.Hour
			}
			pass(says - coarse - 1)
		}
		pass(coarse + 1)
		if got := c.closed(); !slices.Equal(got, []int{1}) {
			t.Errorf("closed %v", got)
		}
	})
}

func TestAFreshValueSaysToo(t *testing.T) {
	inCellar(t, func(_ *cellar, cfg *pool.Config[*jar]) {
		cfg.IdleFor = func(*jar) time.Duration { return 5 * time.Second }
		cfg.Open = func(open func(context.Context) (*jar, error)) func(context.Context) (*jar, error) {
			return func(ctx context.Context) (*jar, error) {
				time.Sleep(time.Second)
				return open(ctx)
			}
		}(cfg.Open)
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		p.Get(ctx) // does not stay for the value
		pass(time.Second)
		if s := p.Stats(); s.Idle != 1 {
			t.Fatalf("got %+v", s)
		}
		pass(5 * time.Second)
		if s := p.Stats(); s.Closed[pool.Idled] != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAValueThatMayNotBeIdleGoesToWhoWaits(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.Max = 1
		cfg.IdleFor = func(*jar) time.Duration { return -1 }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		l := take(t, p)
		time.AfterFunc(time.Second, l.Put)
		l = take(t, p)
		if n := l.Value().n; n != 1 {
			t.Errorf("got value %d", n)
		}
		l.Put()
		if _, ok := p.TryGet(time.Hour); ok {
			t.Error("it was idle, and lent")
		}
		if n := take(t, p).Value().n; n != 2 {
			t.Errorf("got value %d", n)
		}
	})
}

func TestAValueWhoseTimeIsOverWhileItIsBeatenIsNotLent(t *testing.T) {
	for _, limit := range []string{"IdleFor", "MaxIdle"} {
		t.Run(limit, func(t *testing.T) {
			inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
				cfg.Max, cfg.Beat, cfg.BeatEvery = 1, c.slowTaste, time.Minute
				if limit == "IdleFor" {
					cfg.IdleFor = func(*jar) time.Duration { return 54*time.Second + 500*time.Millisecond }
				} else {
					cfg.MaxIdle = 54*time.Second + 500*time.Millisecond
				}
			}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				caught := 0
				for range 100 { // BeatEvery is drawn: one in twelve is beaten when its time is over
					take(t, p).Put()
					pass(54*time.Second + 400*time.Millisecond)
					c.now(func() { c.jars[len(c.jars)-1].asked = nil })
					l := take(t, p)
					j := l.Value()
					if asked := j.asked; len(asked) > 0 && time.Since(j.opened) > 54*time.Second+500*time.Millisecond {
						t.Fatalf("lent after %v, when it had been beaten", time.Since(j.opened))
					}
					if time.Since(j.opened) == 0 {
						caught++
					}
					l.Discard(nil)
					pass(time.Minute)
				}
				if s := p.Stats(); caught == 0 || s.Closed[pool.Idled] != uint64(caught) {
					t.Errorf("%d were beaten at the time: %+v", caught, s)
				}
			})
		})
	}
}

func TestAValueThatMinIdleNeedsIsReplacedWhenItsTimeIsOver(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.MinIdle = 1
		cfg.IdleFor = func(*jar) time.Duration { return 10 * time.Second }
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		take(t, p).Put()
		pass(time.Minute)
		if s := p.Stats(); s.Idle != 1 || s.Closed[pool.Idled] < 5 || s.Closed[pool.Idled] > 7 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestALeaseThatEndsWhileItsIdleTimeIsReadEndsOnce(t *testing.T) {
	inCellar(t, func(c *cellar, cfg *pool.Config[*jar]) {
		cfg.IdleFor = func(*jar) time.Duration {
			time.Sleep(time.Second)
			return time.Hour
		}
	}, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		l := take(t, p)
		go l.Put()
		go l.Put()
		synctest.Wait()
		if s := p.Stats(); s.InUse != 1 || s.Idle != 0 {
			t.Errorf("while it is read: %+v", s)
		}
		pass(time.Second)
		if s := p.Stats(); s.InUse != 0 || s.Idle != 1 {
			t.Errorf("afterwards: %+v", s)
		}
		l = take(t, p)
		go l.Put()
		synctest.Wait()
		l.Discard(errSour)
		pass(time.Second)
		if s := p.Stats(); s.InUse != 0 || s.Idle != 0 || s.Size != 0 || s.Closed[pool.Discarded] != 1 {
			t.Errorf("discarded meanwhile: %+v", s)
		}
	})
}
