package retry

import (
	"cmp"
	"sync"
	"time"
)

// Budgets are how many retries each destination may have, so that they never add much to
// what it has to bear. One of which nothing is known has a few.
//
// What a destination gets beyond its share of what succeeds there are these few alone:
// once a hundred of its requests have failed, at a share of 0.1, retries add less than
// that to its load. It gets them again after an hour without a request, which is what it
// costs not to remember every destination for ever.
//
// The zero Budgets is ready to use, by many goroutines, and must not be copied. A
// destination with a method Keep() K is remembered as what that returns.
type Budgets[K comparable] struct {
	mu   sync.Mutex // guards the fields below
	of   map[K]*budget
	tidy time.Time // when it was tidied up last
}

// A budget is what one destination has left.
type budget struct {
	retries float64
	used    time.Time
}

const (
	few     = 10   // what a destination may have of which nothing is known
	savings = 1000 // successes whose share can be saved up

	tidyEvery    = time.Minute
	forgetAfter  = time.Minute // a destination that has a few or more
	forgiveAfter = time.Hour   // one that has less
)

// MaxBudgets is how many destinations are remembered, in about 2 MB. Further ones get no
// retry.
const MaxBudgets = 10_000

// Earn gives a destination a share of a retry more: that of Policy.Budget.
func (b *Budgets[K]) Earn(to K, share float64) {
	if share < 0 {
		return
	}
	share = cmp.Or(share, defaultShare)
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.budgetLocked(to); left != nil {
		left.retries = min(left.retries+share, max(few, share*savings))
	}
}

// Spend takes a retry from a destination, and reports whether it has one. Those of a
// negative share cost nothing.
func (b *Budgets[K]) Spend(on K, share float64) bool {
	if share < 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.budgetLocked(on)
	if left == nil || left.retries < 1 {
		return false
	}
	left.retries--
	return true
}

// Len is how many destinations are remembered.
func (b *Budgets[K]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.of)
}

// budgetLocked returns what a destination has; nil: too many are in use.
func (b *Budgets[K]) budgetLocked(k K) *budget {
	now := time.Now()
	if left := b.of[k]; left != nil {
		left.used = now
		return left
	}
	if now.Sub(b.tidy) >= tidyEvery {
		b.tidyLocked(now)
	}
	if len(b.of) >= MaxBudgets {
		return nil
	}
	left := &budget{retries: few, used: now}
	if keeper, ok := any(k).(interface{ Keep() K }); ok {
		k = keeper.Keep()
	}
	b.of[k] = left
	return left
}

// tidyLocked forgets destinations that nobody uses. The map is made anew, since one does
// not shrink.
func (b *Budgets[K]) tidyLocked(now time.Time) {
	of := make(map[K]*budget)
	for k, left := range b.of {
		after := forgetAfter
		if left.retries < few {
			after = forgiveAfter
		}
		if now.Sub(left.used) < after {
			of[k] = left
		}
	}
	b.of, b.tidy = of, now
}
