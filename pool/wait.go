package pool

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A request is one Get.
type request struct {
	ctx     context.Context
	arrival uint64  // requests that came later have a larger one
	again   bool    // the value that it was lent failed its check
	queued  bool    // it has been in the queue
	began   instant // 0: it did not need a clock yet
	late    bool    // MaxWait is over
	taken   *taken

	obstacle error // what was in the way when its deadline had passed
}

// A waiter is a request that found nothing to lend.
type waiter[T any] struct {
	request
	place node[*waiter[T]]
	since atomic.Int64 // when it began to wait; 0: just now
	next  *waiter[T]   // told in the same turn of the lock

	// Capacity one: whoever serves never waits for whoever is served. What is
	// below is set before.
	ready chan struct{}
	ahead int // that were waiting when it came
	lease Lease[T]
	ask   probe[T]
	err   error
}

// queue waits for a value. It is called with the lock and returns without it.
func (p *Pool[T]) queue(r *request) (l Lease[T], ask probe[T], err error) {
	switch {
	case p.gone:
		p.mu.Unlock()
		return l, ask, errGone
	case p.shut:
		p.mu.Unlock()
		return l, ask, ErrClosed
	}
	w := p.joinLocked(r)
	p.openLocked()
	p.mu.Unlock()
	since := p.clock() // not under the lock: it would be half of the time there
	w.since.Store(int64(since))
	if r.began == 0 {
		r.began = since
	}

	served := true
	select {
	case <-w.ready:
	case <-r.ctx.Done():
		p.giveUp(w, r)
		served = false
	case <-p.expiry(r):
		r.late = true
		p.giveUp(w, r) // who was served in that moment may as well have it
	}
	if err = w.err; err == nil && !served {
		err = p.passOn(w, r)
	}
	took := p.clock() - since
	p.waitTime.Add(int64(took))
	l, ask = w.lease, w.ask
	ahead := w.ahead
	w.since.Store(0)
	w.ctx, w.taken, w.lease.slot, w.ask, w.err = nil, nil, nil, probe[T]{}, nil
	p.spare.Put(w)
	if p.cfg.Observe != nil {
		p.observe(Event{Kind: Waited, Took: took, Err: err, Context: r.ctx, Ahead: ahead})
	}
	return l, ask, err
}

// joinLocked queues r. One that comes again, because its value failed its check,
// has kept its turn: it comes before all that were not there before it.
func (p *Pool[T]) joinLocked(r *request) *waiter[T] {
	w, _ := p.spare.Get().(*waiter[T])
	if w == nil {
		w = &waiter[T]{ready: make(chan struct{}, 1)}
		w.place.owner = w
	}
	if !r.queued {
		r.queued = true
		p.waited++
	}
	at := &p.waiters.root
	if r.again {
		for at = at.next; at.owner != nil && at.owner.arrival <= r.arrival; {
			at = at.next
		}
	} else {
		p.arrivals++
		r.arrival = p.arrivals
	}
	w.request, w.ahead = *r, p.waiters.len
	p.waiters.insertBefore(&w.place, at)
	return w
}

// expiry tells when MaxWait is over for r, if its context has no deadline.
func (p *Pool[T]) expiry(r *request) <-chan time.Time {
	if p.cfg.MaxWait == 0 {
		return nil
	}
	if _, bounded := r.ctx.Deadline(); bounded {
		return nil
	}
	return time.After(after(r.began, p.cfg.MaxWait) - p.clock())
}

// timedOut reports whether a deadline has ended the wait of r.
func (r *request) timedOut() bool {
	return r.late || errors.Is(r.ctx.Err(), context.DeadlineExceeded)
}

// giveUp takes w, whose time is over, out of the queue. What is in the way is asked
// before: when nobody waits any more, the Ask ends, and nobody knows.
func (p *Pool[T]) giveUp(w *waiter[T], r *request) {
	defer p.leave(w, r) // even if Obstacle panics
	if p.cfg.Obstacle != nil && r.timedOut() && p.asksFor(w) {
		r.obstacle = p.cfg.Obstacle()
	}
}

// asksFor reports whether an Ask is under way while w waits.
func (p *Pool[T]) asksFor(w *waiter[T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asking != nil && w.place.listed()
}

// leave takes w out of the queue. If it was served or told something meanwhile,
// leave waits for that.
func (p *Pool[T]) leave(w *waiter[T], r *request) {
	p.mu.Lock()
	if !w.place.listed() {
		p.mu.Unlock()
		<-w.ready
		return
	}
	p.waiters.remove(&w.place)
	w.err = p.gaveUpLocked(r)
	p.easeLocked()
	p.unlock()
}

// passOn ends the lease of w, whose context had ended before it was served: it
// could not use it.
func (p *Pool[T]) passOn(w *waiter[T], r *request) error {
	p.mu.Lock()
	defer p.unlock()
	w.lease.slot.entry.probing = false
	p.withdrawLocked(w.lease)
	return p.gaveUpLocked(r)
}

// gaveUpLocked is what r is told after its time is over.
func (p *Pool[T]) gaveUpLocked(r *request) error {
	cause := context.Cause(r.ctx)
	if !r.timedOut() {
		return cause // called off: nobody asks why it took so long
	}
	if r.late {
		cause = errMaxWait
	}
	return &WaitError{Stats: p.statsLocked(), Max: p.cfg.Max, Waited: p.clock() - r.began,
		Obstacle: r.obstacle, Open: p.failing, Held: p.heldLocked(r.taken), Err: cause}
}

// tellLocked ends the wait of w, which is no longer queued. unlock wakes it: to
// wake somebody takes longer than all that is done under the lock.
func (p *Pool[T]) tellLocked(w *waiter[T]) {
	if p.told == nil {
		p.told = w
	} else {
		p.toldLast.next = w
	}
	p.toldLast = w
}

// wake wakes w and those that were told with it.
func (w *waiter[T]) wake() {
	for w != nil {
		next := w.next
		w.next = nil
		w.ready <- struct{}{} // from here on it is its own again
		w = next
	}
}

// serveLocked lends e to those who have waited longest, as far as it carries.
// Those whose context has ended are passed over: they could not use it.
func (p *Pool[T]) serveLocked(e *entry[T]) {
	for !e.probing && e.leased < e.capacity {
		w := p.waiters.front()
		if w == nil {
			break
		}
		p.waiters.remove(&w.place)
		switch {
		case w.ctx.Err() != nil:
			if w.began == 0 {
				w.began = w.sinceLocked(p.clock())
			}
			w.err = p.gaveUpLocked(&w.request)
		case p.wary:
			w.lease, w.ask = p.lendWarilyLocked(e, &w.request)
		default:
			w.lease = p.lendLocked(e)
		}
		p.tellLocked(w)
	}
	p.easeLocked()
}

// sinceLocked returns since when w waits.
func (w *waiter[T]) sinceLocked(now instant) instant {
	if since := w.since.Load(); since > 0 {
		return instant(since)
	}
	return now
}

// failWaitersLocked tells err to those who came until arrival.
func (p *Pool[T]) failWaitersLocked(arrival uint64, err error) {
	for w := p.waiters.front(); w != nil && w.arrival <= arrival; w = p.waiters.front() {
		p.failOneLocked(w, err)
	}
	p.easeLocked()
}
