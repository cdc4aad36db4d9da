package pool

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// An opening is a value to be. It counts in size from the beginning.
type opening struct {
	ctx        context.Context // with the values of whoever had waited longest
	arrival    uint64          // those who came later did not see it begin
	generation uint64
	began      instant
	life       context.Context    // of its generation
	trial      bool               // one of those before it has failed
	cancel     context.CancelFunc // of asking
	overdue    bool
	done       bool
}

// openLocked begins as many openings as are needed and allowed.
func (p *Pool[T]) openLocked() {
	for p.mayOpenLocked() && p.neededLocked(p.connecting) {
		o := &opening{
			ctx: context.Background(), life: p.life, began: p.clock(),
			arrival: p.arrivals, generation: p.generation, trial: p.failing != nil,
		}
		if w := p.waiters.front(); w != nil {
			// The caller's values, not the caller's cancellation: somebody who gives
			// up must not end an opening that the next in line can use.
			o.ctx = context.WithoutCancel(w.ctx)
		} else {
			p.fillAt = o.began + fillEvery
		}
		p.size++
		if p.cfg.Ask == nil {
			p.connecting++
			go p.open(o, freely[T](p.cfg.Open))
		} else {
			o.ctx, o.cancel = context.WithCancel(o.ctx)
			p.asking = o
			go p.ask(o)
		}
	}
	p.easeLocked()
}

// neededLocked reports whether more are waiting than the openings under way
// will serve, or less is idle than MinIdle: for that, nothing is tried again that
// has failed. While nobody knows how many one value can serve, one is opened to
// learn it.
func (p *Pool[T]) neededLocked(connecting int) bool {
	if n := p.waiters.len; n > 0 {
		return connecting == 0 || p.learned > 0 && (n-1)/p.learned >= connecting
	}
	return p.failing == nil && p.idleLocked()+connecting < p.cfg.MinIdle
}

// mayOpenLocked reports whether there is room, and nothing to wait for.
func (p *Pool[T]) mayOpenLocked() bool {
	if p.shut || p.gone || p.asking != nil || p.cfg.Max > 0 && p.size >= p.cfg.Max {
		return false
	}
	if p.connecting > 0 && (p.waiters.len == 0 || p.failing != nil) {
		return false // one after the other to fill up, and to try again
	}
	var at instant
	if p.failing != nil {
		at = p.notBefore
	}
	if p.waiters.len == 0 {
		at = max(at, p.fillAt)
	}
	if at == 0 || p.clock() >= at {
		return true
	}
	if p.neededLocked(p.connecting) {
		p.armLocked(at)
	}
	return false
}

// easeLocked gives up asking for what nobody needs any more.
func (p *Pool[T]) easeLocked() {
	if p.asking != nil && !p.neededLocked(p.connecting) {
		p.asking.cancel()
	}
}

// ask waits for permission to open.
func (p *Pool[T]) ask(o *opening) {
	var permit Permit[T]
	err := errUnfinished // where Ask does not return
	defer func() { p.answered(o, permit, err) }()
	permit, err = p.cfg.Ask(o.ctx)
	if permit == nil && err == nil {
		err = errors.New("pool: Config.Ask returned no Permit and no error")
	}
}

// answered uses a permission if it is still needed.
func (p *Pool[T]) answered(o *opening, permit Permit[T], err error) {
	p.mu.Lock()
	if err == nil && (p.shut || !p.neededLocked(p.connecting)) {
		p.mu.Unlock()
		permit.Release() // before anything else is asked for
		p.mu.Lock()
		permit = nil
	}
	calledOff := o.ctx.Err() != nil
	p.asking = nil
	switch {
	case err == nil && permit != nil:
		p.connecting++
		o.arrival, o.generation, o.life, o.trial = p.arrivals, p.generation, p.life, p.failing != nil
		go p.open(o, permit)
	case err != nil && !calledOff:
		p.size--
		p.openFailed++
		p.failLocked(o, err)
	default:
		err = nil
		p.size--
	}
	p.roomLocked()
	took := p.clock() - o.began
	p.unlock()
	o.cancel()
	if err != nil {
		p.observe(Event{Kind: OpenFailed, Took: took, Err: err})
	}
}

// open opens a value, which whoever has waited longest by then will get.
func (p *Pool[T]) open(o *opening, permit Permit[T]) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(o.ctx))
	defer cancel()
	defer context.AfterFunc(o.life, cancel)()
	ctx, stop := bounded(ctx, p.cfg.OpenTimeout, defaultOpenTimeout)
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		late := after(time.Until(deadline), overdueAfter)
		defer time.AfterFunc(late, func() { p.openOverdue(o) }).Stop()
	}

	e := &entry[T]{pool: p, generation: o.generation, capacity: 1}
	err := errUnfinished // where Open does not return
	defer func() { p.openEnded(o, e, err) }()
	e.value, err = permit.Open(ctx)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("pool: not open within OpenTimeout: %w", err)
	}
}

func (p *Pool[T]) openEnded(o *opening, e *entry[T], err error) {
	if err == nil {
		e.first.entry, e.first.held.owner, e.place.owner = e, &e.first, e
		e.gauging = true
		e.idleFor = p.idleFor(e.value)
		if p.cfg.Watch != nil {
			p.cfg.Watch(e.value, func(spent error) { p.refresh(e, spent) })
		}
		p.gauge(e, 1)
	} else {
		p.mu.Lock()
	}
	o.done = true
	past := o.overdue || o.generation != p.generation // nobody counts on it any more
	if past {
		p.overdue--
	} else {
		p.connecting--
	}
	now := p.clock()
	current := e.generation == p.generation
	switch {
	case err != nil:
		p.size--
	case current && e.capacity <= 0:
		if err = e.spent; err == nil {
			err = fmt.Errorf("pool: a fresh value can carry %d leases", e.capacity)
		}
		p.bearLocked(e, now)
		p.expelLocked(e, Spent, err)
	default:
		p.bearLocked(e, now)
		if current {
			p.failing = nil
			p.backoff.Reset()
			p.learnLocked(e)
		}
		p.settleLocked(e)
	}
	if err != nil && !o.overdue {
		p.openFailed++
	}
	if err != nil && !past {
		p.failLocked(o, err)
	}
	p.roomLocked()
	p.unlock()
	if e.born > 0 {
		p.observe(Event{Kind: Opened, Took: now - o.began})
	}
	if err != nil && !o.overdue { // or it was told
		p.observe(Event{Kind: OpenFailed, Took: now - o.began, Err: err})
	}
}

// openOverdue counts no more on an Open that does not heed its timeout. What it
// returns in the end is welcome; until then it takes up room.
func (p *Pool[T]) openOverdue(o *opening) {
	p.mu.Lock()
	if o.done || o.generation != p.generation {
		p.mu.Unlock()
		return
	}
	o.overdue = true
	p.connecting--
	p.overdue++
	p.openFailed++
	err := fmt.Errorf("pool: Open has not returned: %w", context.DeadlineExceeded)
	p.failLocked(o, err)
	p.openLocked()
	took := p.clock() - o.began
	p.unlock()
	p.observe(Event{Kind: OpenFailed, Took: took, Err: err})
}

// failLocked backs off. If nothing is there or under way that could serve
// those who saw the opening begin, they fail too, when their patience is over.
func (p *Pool[T]) failLocked(o *opening, err error) {
	now := p.clock()
	if p.failing == nil || o.trial { // those that fail together are one failure
		p.notBefore = now + p.backoff.Next()
	}
	p.failing = err
	if p.forget != nil {
		p.armLocked(p.notBefore)
	}
	if p.connecting+p.fit > 0 {
		if w := p.waiters.front(); p.cfg.Patience < 0 && w != nil && w.arrival <= o.arrival {
			p.failOneLocked(w, err)
		}
		return
	}
	for w := p.waiters.front(); w != nil && w.arrival <= o.arrival; {
		next := w.place.next.owner
		if now-w.sinceLocked(now) >= p.cfg.Patience {
			p.failOneLocked(w, err)
		}
		w = next
	}
}

func (p *Pool[T]) failOneLocked(w *waiter[T], err error) {
	p.waiters.remove(&w.place)
	w.err = err
	p.tellLocked(w)
}

// learnLocked takes e's capacity for what the next value can serve.
func (p *Pool[T]) learnLocked(e *entry[T]) {
	if p.cfg.Capacity != nil && e.capacity > 0 {
		p.learned = e.capacity
	}
}

// roomLocked uses the room that something left.
func (p *Pool[T]) roomLocked() {
	p.openLocked()
	if p.shut && p.size == 0 {
		close(p.drained)
	}
}
