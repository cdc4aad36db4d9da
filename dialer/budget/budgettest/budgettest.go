// Package budgettest is the conformance suite that every budget.Budget must
// pass.
package budgettest

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// Key returns one of several accounts to test with.
func Key(i int) netpath.Key {
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) // RFC 5737: for documentation
	return netpath.Key{Dest: netip.AddrPortFrom(addr, 443), Network: "tcp"}
}

// Test runs the suite. Each call of make returns a fresh Budget that allows n
// flows for every account, n at most 8.
func Test(t *testing.T, make func(n int) budget.Budget) {
	t.Run("the limit holds for each key", func(t *testing.T) { limitHolds(t, make(3)) })
	t.Run("a release makes room once", func(t *testing.T) { releaseIsIdempotent(t, make(2)) })
	t.Run("a failed take is told of room", func(t *testing.T) { noLostWakeup(t, make(1)) })
	t.Run("every listener is told", func(t *testing.T) { allAreTold(t, make(1)) })
	t.Run("zero allows nothing", func(t *testing.T) {
		if _, ok := make(0).Take(Key(1)); ok {
			t.Error("a grant from a budget of zero")
		}
	})
	t.Run("concurrent users never hold more than the limit", func(t *testing.T) { concurrent(t, make(4)) })
	t.Run("histories", func(t *testing.T) {
		for seed := range byte(64) {
			History(t, make(3), 3, []byte{seed, 7 * seed, 13 * seed, 31, 0, 64, 2, 129, seed, 255, 1, 66, 3, seed * 5})
		}
	})
}

func take(t *testing.T, b budget.Budget, key netpath.Key) budget.Grant {
	t.Helper()
	g, ok := b.Take(key)
	if !ok {
		t.Fatalf("no grant of %v where there is room", key)
	}
	return g
}

func limitHolds(t *testing.T, b budget.Budget) {
	for key := range 2 {
		for range 3 {
			take(t, b, Key(key))
		}
		if _, ok := b.Take(Key(key)); ok {
			t.Errorf("a fourth grant of %v", Key(key))
		}
	}
}

func releaseIsIdempotent(t *testing.T, b budget.Budget) {
	g := take(t, b, Key(1))
	take(t, b, Key(1))
	g.Release()
	g.Release()
	take(t, b, Key(1))
	g.Release() // late: its port belongs to another by now
	if _, ok := b.Take(Key(1)); ok {
		t.Error("a second release made room for another flow")
	}
}

func noLostWakeup(t *testing.T, b budget.Budget) {
	told := make(chan struct{}, 1)
	b.Notify(told)
	for range 100 {
		g := take(t, b, Key(1))
		if _, ok := b.Take(Key(1)); ok {
			t.Fatal("a grant beyond the limit")
		}
		g.Release()
		<-told // hangs, and fails the test by its timeout, where a wake-up is lost
		take(t, b, Key(1)).Release()
	}
}

func allAreTold(t *testing.T, b budget.Budget) {
	one, other := make(chan struct{}, 1), make(chan struct{}, 1)
	b.Notify(one)
	b.Notify(other)
	g := take(t, b, Key(1))
	b.Take(Key(1))
	g.Release()
	<-one
	<-other
}

func concurrent(t *testing.T, b budget.Budget) {
	const users, turns, limit = 16, 200, 4
	told := make(chan struct{}, 1)
	b.Notify(told)
	var mu sync.Mutex
	var wg sync.WaitGroup
	held := 0
	for range users {
		wg.Go(func() {
			for range turns {
				g, ok := b.Take(Key(1))
				for !ok {
					<-told
					select {
					case told <- struct{}{}: // one signal is for all who wait
					default:
					}
					g, ok = b.Take(Key(1))
				}
				mu.Lock()
				if held++; held > limit {
					t.Errorf("%d grants at once, limit %d", held, limit)
				}
				held--
				mu.Unlock()
				g.Release()
			}
		})
	}
	wg.Wait()
	for range limit {
		take(t, b, Key(1))
	}
}

// History plays program, a byte an action, against a fresh budget of the given
// limit and compares it with a simple model after every step. It is the body of
// a fuzz target.
func History(t *testing.T, b budget.Budget, limit int, program []byte) {
	told := make(chan struct{}, 1)
	b.Notify(told)
	type entry struct {
		grant budget.Grant
		key   int
		live  bool
	}
	var all []entry
	held := map[int]int{}
	denied := false
	for step, op := range program {
		key := int(op>>1) % 3
		if op&1 == 0 {
			g, ok := b.Take(Key(key))
			if want := held[key] < limit; ok != want {
				t.Fatalf("step %d: take of key %d with %d held of %d: %v", step, key, held[key], limit, ok)
			}
			if !ok {
				denied = true
				continue
			}
			held[key]++
			all = append(all, entry{g, key, true})
			continue
		}
		if len(all) == 0 {
			continue
		}
		e := &all[int(op>>1)%len(all)] // live, or released before
		e.grant.Release()
		if e.live {
			e.live = false
			held[e.key]--
			if denied {
				select {
				case <-told:
				default:
					t.Fatalf("step %d: a release after a failed take was not told", step)
				}
				denied = false
			}
		}
	}
}
