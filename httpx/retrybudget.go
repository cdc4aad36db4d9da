package httpx

import (
	"net/url"
	"strings"
	"sync"
	"time"
)

// A destination is what a budget of retries is for.
type destination struct{ host, port string }

func destinationOf(u *url.URL) destination {
	d := destination{strings.ToLower(u.Hostname()), u.Port()}
	if d.port == "" {
		d.port = ports[u.Scheme]
	}
	return d
}

// budgets are how many retries each destination may have. A destination of which nothing
// is known has fewRetries.
//
// What a destination gets beyond its share of the requests that it answers are these few
// alone: once a hundred of its requests have failed, at 0.1, retries add less than the
// share to its load. It gets them again after an hour without a request, which is what
// it costs not to remember every server for ever.
type budgets struct {
	mu   sync.Mutex // guards the fields below
	of   map[destination]*budget
	tidy time.Time // when it was tidied up last
}

// A budget is what one destination has left.
type budget struct {
	retries float64
	used    time.Time
}

const (
	fewRetries = 10   // what a destination may have that has answered nothing yet
	savings    = 1000 // requests whose share can be saved up

	maxBudgets   = 10_000 // destinations in memory, about 2 MB; further ones get no retry
	tidyEvery    = time.Minute
	forgetAfter  = time.Minute // a destination that has fewRetries or more
	forgiveAfter = time.Hour   // one that has less
)

// earn gives d a share of a retry more.
func (b *budgets) earn(d destination, share float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.budgetLocked(d); left != nil {
		left.retries = min(left.retries+share, max(fewRetries, share*savings))
	}
}

// spend takes a retry from d, if it has one.
func (b *budgets) spend(d destination) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.budgetLocked(d)
	if left == nil || left.retries < 1 {
		return false
	}
	left.retries--
	return true
}

// budgetLocked returns what d has; nil: too many destinations are in use.
func (b *budgets) budgetLocked(d destination) *budget {
	now := time.Now()
	if left := b.of[d]; left != nil {
		left.used = now
		return left
	}
	if now.Sub(b.tidy) >= tidyEvery {
		b.tidyLocked(now)
	}
	if len(b.of) >= maxBudgets {
		return nil
	}
	left := &budget{retries: fewRetries, used: now}
	b.of[destination{strings.Clone(d.host), strings.Clone(d.port)}] = left // not the whole URL
	return left
}

// tidyLocked forgets destinations that nobody uses. The map is made anew, since one does
// not shrink.
func (b *budgets) tidyLocked(now time.Time) {
	of := make(map[destination]*budget)
	for d, left := range b.of {
		after := forgetAfter
		if left.retries < fewRetries {
			after = forgiveAfter
		}
		if now.Sub(left.used) < after {
			of[d] = left
		}
	}
	b.of, b.tidy = of, now
}
