package pool_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// A shelf is a group of pools of jars: one cellar, in which each key has its pool.
type shelf struct {
	cellar
	pool.Group[string, *jar]
	made atomic.Int32 // pools
}

// onShelf runs f in a bubble, with a group whose pools set has furnished.
func onShelf(t *testing.T, set func(s *shelf, key string, cfg *pool.Config[*jar]), f func(*testing.T, *shelf)) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		s.New = func(key string) pool.Config[*jar] {
			s.made.Add(1)
			cfg := pool.Config[*jar]{Open: s.open, Close: s.close}
			if set != nil {
				set(s, key, &cfg)
			}
			return cfg
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			s.Close(ctx)
		})
		f(t, s)
	})
}

func (s *shelf) close(j *jar, cause error) { s.cellar.close(j, cause) }

// keys returns those that have a pool.
func (s *shelf) keys() (keys []string) {
	for key := range s.Pools() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (s *shelf) take(t *testing.T, key string) pool.Lease[*jar] {
	t.Helper()
	l, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAGroupMakesOnePoolAKeyOnFirstUse(t *testing.T) {
	onShelf(t, func(_ *shelf, _ string, cfg *pool.Config[*jar]) { cfg.Max = 4 }, func(t *testing.T, s *shelf) {
		if got := s.keys(); got != nil {
			t.Errorf("before the first use there are %v", got)
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { // the first of all, all at once
				l := s.take(t, []string{"a", "b"}[i%2])
				time.Sleep(time.Second)
				l.Put()
			})
		}
		all.Wait()
		if got := s.keys(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("there are %v", got)
		}
		for key, p := range s.Pools() {
			if st := p.Stats(); st.Opened != 4 || st.Reused != 46 {
				t.Errorf("%s: %+v", key, st)
			}
		}
	})
}

func TestAGroupForgetsAPoolThatIsEmptyAndMakesItAnew(t *testing.T) {
	onShelf(t, func(_ *shelf, _ string, cfg *pool.Config[*jar]) { cfg.MaxIdle = time.Minute }, func(t *testing.T, s *shelf) {
		for range 3 {
			s.take(t, "a").Put()
			s.take(t, "b").Discard(nil)
			if got := s.keys(); !slices.Equal(got, []string{"a"}) {
				t.Errorf("after a discard there are %v", got)
			}
			pass(time.Minute)
			if got := s.keys(); got != nil {
				t.Errorf("after MaxIdle there are %v", got)
			}
		}
		if n := s.made.Load(); n != 6 {
			t.Errorf("%d pools were made", n)
		}
	})
}

func TestAGroupKeepsAPoolWhileSomebodyWaits(t *testing.T) {
	onShelf(t, func(s *shelf, _ string, cfg *pool.Config[*jar]) {
		cfg.Max = 1
		cfg.Close = func(j *jar, cause error) {
			time.Sleep(time.Second)
			s.close(j, cause)
		}
	}, func(t *testing.T, s *shelf) {
		l := s.take(t, "a")
		go s.Get(t.Context(), "a")
		synctest.Wait()
		l.Discard(nil)
		pass(time.Second)
		if n := s.made.Load(); n != 1 || len(s.keys()) != 1 {
			t.Errorf("%d pools were made, %v are there", n, s.keys())
		}
	})
}

func TestAGroupRemembersThatOpeningsFailUntilTheNextTrial(t *testing.T) {
	refused := errors.New("refused")
	onShelf(t, func(s *shelf, _ string, cfg *pool.Config[*jar]) {
		cfg.Open = func(ctx context.Context) (*jar, error) {
			s.open(ctx)
			return nil, refused
		}
	}, func(t *testing.T, s *shelf) {
		start := time.Now()
		kept := 0
		for range 50 {
			if _, err := s.Get(t.Context(), "a"); err != refused {
				t.Fatalf("got %v", err)
			}
			synctest.Wait()
			kept += len(s.keys())
		}
		// Without a backoff that outlives the Get no time would have passed: each
		// but the first of a pool waits for its turn.
		if took := time.Since(start); kept < 45 || took < time.Second {
			t.Errorf("fifty trials took %v, and after %d of them it was remembered", took, kept)
		}
		pass(2 * time.Second)
		if got := s.keys(); got != nil {
			t.Errorf("after the backoff there are %v", got)
		}
	})
}

func TestAKeyWhosePoolIsClosedGetsANewOne(t *testing.T) {
	down := false
	onShelf(t, func(s *shelf, _ string, cfg *pool.Config[*jar]) {
		cfg.Open = func(ctx context.Context) (*jar, error) {
			if down {
				return nil, errors.New("refused")
			}
			return s.open(ctx)
		}
	}, func(t *testing.T, s *shelf) {
		closeAll := func() {
			for _, p := range s.Pools() {
				if err := p.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		s.take(t, "a").Put()
		closeAll()
		s.take(t, "a").Discard(nil)

		down = true
		if _, err := s.Get(t.Context(), "a"); err == nil {
			t.Error("opened")
		}
		closeAll() // while it backs off
		down = false
		if l, err := s.Get(t.Context(), "a"); err != nil {
			t.Error(err)
		} else {
			l.Put()
		}
	})
}

func TestAGetThatRacesWithForgettingNeverFails(t *testing.T) {
	onShelf(t, nil, func(t *testing.T, s *shelf) {
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for i := range 500 {
					if i%50 == 0 {
						time.Sleep(time.Millisecond) // for all of them: nothing is left then
					}
					if i%2 == 0 {
						s.take(t, "a").Discard(nil)
					} else if err := s.Do(t.Context(), "a", func(context.Context, *jar) error { return errSour }); err != errSour {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if got := s.keys(); got != nil || len(s.jars) != len(s.closed()) {
			t.Errorf("left are %v; %d were opened, %d closed", got, len(s.jars), len(s.closed()))
		}
		if s.made.Load() < 2 {
			t.Error("no pool was ever forgotten")
		}
	})
}

func TestAGroupReclaimsTheLongestIdleOfAllItsPools(t *testing.T) {
	onShelf(t, nil, func(t *testing.T, s *shelf) {
		a, b, a2, c := s.take(t, "a"), s.take(t, "b"), s.take(t, "a"), s.take(t, "c")
		for _, l := range []pool.Lease[*jar]{b, a2, a, c} { // 2, 3, 1, 4
			l.Put()
			time.Sleep(time.Second)
		}
		for s.Reclaim() {
			synctest.Wait()
		}
		if got, want := s.closed(), []int{2, 3, 1, 4}; !slices.Equal(got, want) {
			t.Errorf("closed %v, want %v", got, want)
		}
		if got := s.keys(); got != nil {
			t.Errorf("left are %v", got)
		}
	})
}

func TestAGroupResetsAllItsPools(t *testing.T) {
	failover := errors.New("failover")
	onShelf(t, func(_ *shelf, _ string, cfg *pool.Config[*jar]) { cfg.Max = 1 }, func(t *testing.T, s *shelf) {
		s.take(t, "a").Put()
		b := s.take(t, "b")
		waited := make(chan error)
		go func() {
			_, err := s.Get(t.Context(), "b")
			waited <- err
		}()
		synctest.Wait()
		s.Reset(failover)
		if err := <-waited; !errors.Is(err, pool.ErrReset) || !errors.Is(err, failover) {
			t.Errorf("who waited got %v", err)
		}
		b.Put()
		synctest.Wait()
		for _, j := range s.jars {
			if j.cause != failover {
				t.Errorf("value %d was closed by %v", j.n, j.cause)
			}
		}
		if got := s.keys(); got != nil {
			t.Errorf("left are %v", got)
		}
	})
}

func TestAGroupRetiresInAllItsPools(t *testing.T) {
	moved := errors.New("moved")
	onShelf(t, nil, func(t *testing.T, s *shelf) {
		for _, l := range []pool.Lease[*jar]{s.take(t, "a"), s.take(t, "a"), s.take(t, "b"), s.take(t, "c")} {
			l.Put()
		}
		s.Retire(moved, func(j *jar) bool { return j.n != 2 })
		synctest.Wait()
		if got := s.keys(); !slices.Equal(got, []string{"a"}) || len(s.closed()) != 3 || s.jars[2].cause != moved {
			t.Errorf("left are %v, closed %v, for %v", got, s.closed(), s.jars[2].cause)
		}
	})
}

func TestAClosedGroupIsClosedForEveryKey(t *testing.T) {
	onShelf(t, nil, func(t *testing.T, s *shelf) {
		a, b := s.take(t, "a"), s.take(t, "b")
		time.AfterFunc(time.Second, a.Put)
		time.AfterFunc(2*time.Second, b.Put)
		short, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := s.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with leases out, Close returned %v", err)
		}
		for _, key := range []string{"a", "b", "c"} {
			if _, err := s.Get(t.Context(), key); err != pool.ErrClosed {
				t.Errorf("%s: got %v", key, err)
			}
		}
		start := time.Now()
		if err := s.Close(t.Context()); err != nil || time.Since(start) != 3*time.Second/2 {
			t.Errorf("Close returned %v after %v", err, time.Since(start))
		}
		if err := s.Do(t.Context(), "a", nil); err != pool.ErrClosed {
			t.Errorf("got %v", err)
		}
		if got := s.keys(); got != nil || len(s.closed()) != 2 {
			t.Errorf("left are %v, closed %v", got, s.closed())
		}
	})
}

func TestAGetThatRacesWithTheGroupsCloseLeavesNothing(t *testing.T) {
	for range 50 {
		onShelf(t, nil, func(t *testing.T, s *shelf) {
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					for {
						l, err := s.Get(t.Context(), string(rune('a'+i%5)))
						if err == pool.ErrClosed {
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						l.Discard(nil)
					}
				})
			}
			all.Go(func() {
				if err := s.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			all.Wait()
			synctest.Wait()
			if got := s.keys(); got != nil || len(s.jars) != len(s.closed()) {
				t.Errorf("left are %v; %d were opened, %d closed", got, len(s.jars), len(s.closed()))
			}
		})
	}
}

func TestAGroupWithoutNewSaysWhatIsMissing(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.Contains(r, "Group.New is nil") {
			t.Errorf("recovered %q", r)
		}
	}()
	new(pool.Group[string, *jar]).Get(t.Context(), "a")
}
