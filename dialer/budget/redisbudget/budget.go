package redisbudget

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Budget is one instance's part of what all instances share. New makes one. It may be used
// by many goroutines.
type Budget struct {
	cfg  Config
	pool int           // what all instances may lease together
	id   string        // names this instance to the others
	soon chan struct{} // capacity one: an account is to be looked at

	mu       sync.Mutex // guards the fields below and every account; never held while Redis is asked
	floor    int        // less than cfg's while more instances share than were planned
	accounts map[netpath.Key]*account
	hot      map[*account]struct{} // those that have a lease, or want one
	spare    []grant               // made together, used one by one
	notify   []chan<- struct{}
	refused  bool          // a Take has failed since the last signal
	hold     time.Duration // the longest that SetHold was told
	closed   bool

	stop context.CancelFunc // ends the goroutine
	done chan struct{}      // closed when it has ended; nil: none runs

	calls              uint64
	version            int64         // of the state, when Redis answered last
	born               int64         // which state that was
	clock              time.Duration // of the state, then
	heard              time.Time     // when
	living, counted    int           // instances, by the last answer
	learning           time.Time     // until then nobody gets more than it has
	failing            string        // why the last call failed; "": it did not
	lost               bool          // a lease has run out since, of any account
	resume             time.Time     // nothing is asked before, after a call that failed
	hope               deadline      // for an answer, where there is no lease
	renewals, failures uint64
}

var _ budget.Engine = (*Budget)(nil)

// New returns a Budget, or says which field of cfg cannot be. Nothing is asked of Redis yet.
func New(cfg Config) (*Budget, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Budget{
		cfg:   cfg,
		pool:  cfg.pool(2 * cfg.Instances),
		id:    rand.Text(),
		soon:  make(chan struct{}, 1),
		floor: cfg.floor(2 * cfg.Instances),
	}, nil
}

// Take returns a grant while the floor of key's account, or its lease, has room. If it has
// none, more is asked for, and Notify tells when that has come.
func (b *Budget) Take(key netpath.Key) (budget.Grant, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[key]
	if a == nil {
		a = b.openLocked(key)
	}
	if b.closed || !a.roomLocked() {
		b.refused = true
		a.refuseLocked()
		a.forgetLocked()
		return nil, false
	}
	return a.grantLocked(), true
}

// Notify makes b tell c of room, of grants that are wanted back, and of what Reports says of
// Redis.
func (b *Budget) Notify(c chan<- struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notify = append(b.notify, c)
}

// SetHold says for how long the NAT may keep the port of a flow whose instance has vanished.
// The longest counts, if Config.Hold is zero.
func (b *Budget) SetHold(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold = max(b.hold, d)
}

// Reports returns one Report. Of all accounts together, its Age is that of the oldest lease.
func (b *Budget) Reports(key netpath.Key) []budget.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	r := budget.Report{
		Engine:    "redis",
		Sharers:   max(1, b.living),
		Limit:     b.cfg.Ports,
		Degraded:  b.degradedLocked(now),
		Remembers: b.renewals > 0 && !now.Before(b.learning),
		Renewals:  b.renewals,
		Failures:  b.failures,
	}
	if key != (netpath.Key{}) {
		r.Floor = b.floor
		if a := b.accounts[key]; a != nil {
			a.reportLocked(&r, now)
		}
		return []budget.Report{r}
	}
	r.Floor = b.floor * len(b.accounts)
	for _, a := range b.accounts {
		a.reportLocked(&r, now)
	}
	return []budget.Report{r}
}

// degradedLocked says what keeps every account from getting more than its floor, or more
// than it has.
func (b *Budget) degradedLocked(now time.Time) string {
	switch {
	case b.closed:
		return "closed"
	case b.lost:
		return b.failing
	case now.Before(b.learning):
		return "learning: the shared state is new or was lost, nobody gets more than it has"
	case b.counted > 2*b.cfg.Instances:
		return fmt.Sprintf("%d instances share, half of %d were planned for", b.counted, 2*b.cfg.Instances)
	}
	return ""
}

// quarantineLocked is how long the ports of an expired lease stay out of use.
func (b *Budget) quarantineLocked() time.Duration {
	return cmp.Or(b.cfg.Hold, b.hold, defaultHold) + b.cfg.Drain
}

// tellLocked makes all who listen look again.
func (b *Budget) tellLocked() {
	b.refused = false
	for _, c := range b.notify {
		select {
		case c <- struct{}{}:
		default: // told already, and has not looked yet
		}
	}
}

// Close gives all leases back, but for what is held beyond the floors, which stays out of
// others' use for Hold and Drain. It waits for the goroutine, and for Redis until ctx ends;
// a lease that was not given back for either reason runs out. Nothing is granted any more.
func (b *Budget) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errors.New("redisbudget: closed already")
	}
	b.closed = true
	stop, done := b.stop, b.done
	b.tellLocked() // also those who wait learn that it is over
	b.mu.Unlock()

	if done != nil {
		stop()
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("redisbudget: close: %w", context.Cause(ctx))
		}
	}
	return b.leave(ctx)
}
