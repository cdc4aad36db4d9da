package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/internal/retry"
)

// A Pool lends values and takes them back. New makes one; the zero Pool is not
// usable. It may be used by many goroutines. Whoever made it closes it.
type Pool[T any] struct {
	cfg    Config[T]
	epoch  time.Time // instants count from here, and none is zero
	dated  bool      // values have dates to be looked at: MaxIdle, IdleFor, MaxLife, Beat
	forget func()    // tells a Group that nothing is left; nil: no Group's

	slept    atomic.Int64 // for how long the monotonic clock stood still
	spare    sync.Pool    // of *waiter[T]
	waitTime atomic.Int64 // of all Gets that waited

	mu sync.Mutex // guards the fields below and all entries; never held while calling cfg

	// What each Get and Put writes stands beside the mutex: together it travels
	// between processors at once.
	free               stack[T] // those that can be lent, or will be after a probe; coldest first
	lent, ended, fresh uint64   // leases; fresh: of a value that nobody had before

	// The coarse clock: now is at most tickEvery old while ticking.
	now     instant
	ticking bool
	asked   bool // for the time, since the last tick
	wary    bool // a lease needs more than a value: it is asked, or kept track of

	generation uint64           // Resets so far
	asking     *opening         // nil: nobody is asking
	waiters    list[*waiter[T]] // longest wait first

	told     *waiter[T]     // those to be woken as soon as the lock is free,
	toldLast *waiter[T]     // in order, linked by next
	held     list[*slot[T]] // leases out, where LeakAfter is set; oldest first

	values     list[*entry[T]] // all that are open, oldest first
	size       int             // asking + connecting + overdue + idle or leased + closing
	fit        int             // values that can be lent, or will be when they are put back
	connecting int
	overdue    int // openings that did not heed their timeout, or are from before a Reset
	closing    int
	beating    int

	arrivals uint64          // Gets so far that found nothing idle
	purge    error           // what the last Reset was told
	learned  int             // capacity of the value opened last, or Expect; 0: not known yet
	life     context.Context // of this generation's openings and Beats
	finish   context.CancelFunc
	shut     bool
	gone     bool          // the Group has forgotten this pool
	drained  chan struct{} // closed when shut and empty
	doubt    instant       // when a Beat failed last, or before all time: what was proved before is asked before it is lent

	backoff   retry.Backoff
	failing   error   // why the last opening failed; nil: it did not
	notBefore instant // while failing: the next trial
	fillAt    instant // the next opening for MinIdle

	opened, openFailed uint64
	closed             [Reasons]uint64
	waited             uint64

	ticker *time.Timer // runs tick
	timer  *time.Timer // runs tend
	wakeAt instant
}

// New returns a pool. It opens nothing before the first Get, and panics if
// cfg.Validate finds something wrong.
func New[T any](cfg Config[T]) *Pool[T] {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	p := &Pool[T]{cfg: cfg, epoch: time.Now().Add(-1), drained: make(chan struct{}), wakeAt: never, doubt: -1}
	p.dated = cfg.MaxIdle > 0 || cfg.IdleFor != nil || cfg.MaxLife > 0 || cfg.Beat != nil
	p.wary = cfg.Check != nil || cfg.LeakAfter > 0 || p.dated
	p.life, p.finish = context.WithCancel(context.Background())
	p.waiters.init()
	p.held.init()
	p.values.init()
	p.backoff = retry.Backoff{First: firstBackoff, Max: maxBackoff}
	if p.learned = cfg.Expect; cfg.Capacity == nil {
		p.learned = 1
	}
	return p
}

// Get leases a value: the one that was used last, or whatever comes first after
// those who have waited longer. Without a deadline in ctx it waits for MaxWait.
// The error is a *WaitError if that or the deadline passed, context.Cause(ctx) if
// ctx was canceled, ErrClosed, ErrReset, or why the value could not be opened.
func (p *Pool[T]) Get(ctx context.Context) (Lease[T], error) {
	if ctx.Err() != nil {
		return Lease[T]{}, context.Cause(ctx)
	}
	p.mu.Lock()
	e := p.warmestLocked()
	if e == nil || p.wary {
		return p.get(ctx)
	}
	l := p.lendLocked(e)
	p.mu.Unlock()
	return l, nil
}

// get is Get where something may have to be waited for, asked or kept track of.
// It is called with the lock and returns without it.
func (p *Pool[T]) get(ctx context.Context) (l Lease[T], err error) {
	r := request{ctx: ctx, arrival: p.arrivals}
	if p.cfg.LeakAfter > 0 {
		p.mu.Unlock()
		r.taken = takenHere()
		p.mu.Lock()
	}
	for {
		var ask probe[T]
		if e := p.currentLocked(); e != nil {
			l, ask = p.lendWarilyLocked(e, &r)
			p.mu.Unlock()
		} else if l, ask, err = p.queue(&r); err != nil {
			return Lease[T]{}, err
		}
		if ask.of == nil || p.prove(&r, l, ask) {
			return l, nil
		}
		p.mu.Lock()
		if ctx.Err() != nil || r.late {
			defer p.mu.Unlock()
			return Lease[T]{}, p.gaveUpLocked(&r)
		}
	}
}

// TryGet leases the idle value that was last known to be good, if that was within
// proved: when it was opened or put back, or passed a Check or a Beat. It never
// opens, waits or asks: proved stands for CheckAfter, and a value that is doubted
// is not lent, nor is any before those who wait have theirs. It reports false then,
// and if the pool is closed.
func (p *Pool[T]) TryGet(proved time.Duration) (l Lease[T], ok bool) {
	var taken *taken
	if p.cfg.LeakAfter > 0 {
		taken = takenHere()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.freshestLocked(proved)
	if e == nil {
		return l, false
	}
	l = p.lendLocked(e)
	if taken != nil {
		p.holdLocked(l.slot, taken)
	}
	return l, true
}

// freshestLocked returns the idle value that was proved last, nil if that was not
// within proved or is not enough. While somebody waits there is none.
func (p *Pool[T]) freshestLocked(proved time.Duration) (freshest *entry[T]) {
	p.awakeLocked()
	for _, e := range p.free {
		switch proof := e.proof(); {
		case e.leased > 0 || e.probing || p.now >= e.expires || p.idledLocked(e, p.now):
		case proof < p.doubt || p.now-proof > proved:
		case freshest == nil || proof >= freshest.proof():
			freshest = e
		}
	}
	return freshest
}

// Do calls f with a leased value, and puts it back if f returns nil or an error
// marked by Clean. After any other error, and after a panic, the value's state
// is not known, and it is discarded.
func (p *Pool[T]) Do(ctx context.Context, f func(ctx context.Context, v T) error) error {
	l, err := p.Get(ctx)
	if err != nil {
		return err
	}
	return l.do(ctx, f)
}

func (l Lease[T]) do(ctx context.Context, f func(ctx context.Context, v T) error) error {
	defer l.Discard(errUnfinished) // after Put and Discard it does nothing
	err := f(ctx, l.Value())
	switch {
	case err == nil:
		l.Put()
	case IsClean(err):
		l.Put()
		return errors.Unwrap(err)
	default:
		l.Discard(err)
	}
	return err
}

// Reset closes all values that were opened so far: the idle ones now, the leased
// ones when their leases end; and it ends the openings under way. Those who wait
// get an error that matches ErrReset and cause, and is safe to retry: what they
// waited for is not known to be there any more. It is for failovers. The values
// count until they are closed, so that there are never more than Max.
func (p *Pool[T]) Reset(cause error) {
	p.mu.Lock()
	p.purge = cause
	p.failing = nil
	p.backoff.Reset()
	p.renewLocked()
	err := ErrReset
	if cause != nil {
		err = &resetError{cause}
	}
	p.failWaitersLocked(p.arrivals, err)
	p.openLocked()
	p.unlock()
}

// renewLocked lets no value that was opened so far be lent again, and ends the
// openings under way: what they bring could only be thrown away.
func (p *Pool[T]) renewLocked() {
	p.generation++
	p.overdue += p.connecting
	p.connecting, p.fit = 0, 0
	for len(p.free) > 0 {
		p.settleLocked(p.free[len(p.free)-1])
	}
	p.finish()
	p.life, p.finish = context.WithCancel(context.Background())
}

// Retire closes those values for which match is true: the idle ones now, the leased
// ones when their leases end. Those who wait, and what is being opened, it leaves
// alone. It is for what has gone out of use, such as connections to an address that
// its name no longer has. match is called under no lock, once with each value that
// was there when Retire began; it may have been closed since. Without a cause Close
// is told Retired.
func (p *Pool[T]) Retire(cause error, match func(v T) bool) {
	if cause == nil {
		cause = Retired
	}
	for _, e := range p.entries() {
		if match(e.value) {
			p.retire(e, cause)
		}
	}
}

// entries returns the values that neither Reset nor anything else has condemned.
func (p *Pool[T]) entries() (all []*entry[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.values.front(); e != nil; e = e.place.next.owner {
		if e.generation == p.generation {
			all = append(all, e)
		}
	}
	return all
}

func (p *Pool[T]) retire(e *entry[T], cause error) {
	p.mu.Lock()
	defer p.unlock()
	if e.generation == p.generation {
		e.retired = cause
		e.disownLocked()
		p.settleLocked(e)
	}
}

// Reclaim closes the value that was idle for longest, because somebody else needs
// its room. It reports false if there is none.
func (p *Pool[T]) Reclaim() bool {
	p.mu.Lock()
	defer p.unlock()
	e := p.coldestLocked()
	if e == nil {
		return false
	}
	p.expelLocked(e, Reclaimed, nil)
	return true
}

// LongestIdle returns for how long the value that Reclaim would close has been
// idle.
func (p *Pool[T]) LongestIdle() (idle time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.coldestLocked(); e != nil {
		return p.clock() - e.rested, true
	}
	return 0, false
}

// coldestLocked returns the value that was idle for longest, nil if none is.
func (p *Pool[T]) coldestLocked() (coldest *entry[T]) {
	for _, e := range p.free {
		switch {
		case e.leased > 0 || e.probing:
		case p.cfg.Capacity == nil:
			return e // one lease each: they are in order
		case coldest == nil || e.rested < coldest.rested:
			coldest = e
		}
	}
	return coldest
}

// Close closes the pool: those who wait get ErrClosed, as does every Get from
// now on; idle values are closed at once, leased ones when their leases end. It
// returns when all values are closed, or with the cause of ctx and what is left;
// then the rest still goes on. It may be called again.
func (p *Pool[T]) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.shut {
		p.shut = true
		p.renewLocked()
		p.failWaitersLocked(p.arrivals, ErrClosed)
		if p.asking != nil {
			p.asking.cancel()
		}
		p.stopTimersLocked()
		if p.size == 0 {
			close(p.drained)
		}
	}
	p.unlock()
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-p.drained: // so was that
		return nil
	default:
	}
	s := p.Stats()
	return fmt.Errorf("pool: %d leases are out, %d values being opened, %d being closed: %w",
		s.InUse, s.Asking+s.Connecting, s.Closing, context.Cause(ctx))
}

// idleLocked returns how many values can be lent and are leased to nobody.
func (p *Pool[T]) idleLocked() int {
	if p.cfg.Capacity == nil {
		return len(p.free)
	}
	n := 0
	for _, e := range p.free {
		if e.leased == 0 {
			n++
		}
	}
	return n
}

// emptyLocked reports whether the pool holds nothing and has nothing in mind.
func (p *Pool[T]) emptyLocked() bool {
	switch {
	case p.size > 0 || p.waiters.len > 0:
		return false
	case p.shut:
		return true
	case p.failing != nil:
		return p.clock() >= p.notBefore
	}
	return p.cfg.MinIdle == 0
}

// unlock gives back the lock and wakes those who were told something. A pool of a
// Group that is empty is forgotten.
func (p *Pool[T]) unlock() {
	told := p.told
	p.told = nil
	empty := p.forget != nil && !p.gone && p.emptyLocked()
	p.gone = p.gone || empty
	p.mu.Unlock()
	told.wake()
	if empty {
		p.forget()
	}
}

// A resetError is ErrReset with what Reset was told.
type resetError struct{ cause error }

func (e *resetError) Error() string     { return ErrReset.Error() + ": " + e.cause.Error() }
func (e *resetError) Unwrap() []error   { return []error{ErrReset, e.cause} }
func (e *resetError) SafeToRetry() bool { return true }

var errGone = errors.New("pool: forgotten by its group")
