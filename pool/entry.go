package pool

import "context"

// lendLocked begins a lease of e.
func (p *Pool[T]) lendLocked(e *entry[T]) Lease[T] {
	if e.leased++; e.leased >= e.capacity && e.at > 0 {
		p.free.remove(e)
	}
	s := &e.first
	switch {
	case s.turn == 0:
		p.fresh++
	case s.turn%2 == lent:
		s = e.slotLocked()
	}
	s.turn++
	p.lent++
	if p.cfg.MinIdle > 0 && p.idleLocked() < p.cfg.MinIdle {
		p.armLocked(max(p.fillAt, p.nowLocked()+fillEvery))
	}
	return Lease[T]{s, s.turn}
}

// lendWarilyLocked begins a lease of e for r. If it returns ask, e must be asked
// first.
func (p *Pool[T]) lendWarilyLocked(e *entry[T], r *request) (l Lease[T], ask probe[T]) {
	if e.leased == 0 {
		ask = p.doubtLocked(e)
		e.probing = ask.of != nil
	}
	l = p.lendLocked(e)
	if r.taken != nil {
		p.holdLocked(l.slot, r.taken)
	}
	return l, ask
}

// slotLocked returns one more slot of a shared value.
func (e *entry[T]) slotLocked() *slot[T] {
	s := e.spare
	if s == nil {
		s = &slot[T]{entry: e}
		s.held.owner = s
		return s
	}
	e.spare = s.next
	return s
}

func (p *Pool[T]) endLeaseLocked(s *slot[T]) {
	e := s.entry
	s.turn++
	e.leased--
	p.ended++
	if s.taken != nil {
		s.taken = nil
		p.held.remove(&s.held)
	}
	if s != &e.first {
		s.next, e.spare = e.spare, s
	}
	e.rested = justNow
}

// settleLocked finds the place of e after anything about it has changed: lent to
// those who wait, listed as what can be lent, or closed.
func (p *Pool[T]) settleLocked(e *entry[T]) {
	if e.generation != p.generation || e.capacity <= 0 || p.agedLocked(e) || e.rested != justNow && p.staleLocked(e) {
		p.unlistLocked(e)
		p.fitLocked(e, false)
		if e.leased == 0 && !e.probing && !e.gone {
			p.expelLocked(e, p.unfitLocked(e), nil)
		}
		return
	}
	p.fitLocked(e, true)
	if p.waiters.len > 0 {
		p.serveLocked(e)
	}
	if e.leased >= e.capacity {
		p.unlistLocked(e)
		return
	}
	if e.at == 0 {
		p.free.push(e)
		p.easeLocked()
	}
	if e.leased == 0 && e.rested == justNow {
		e.rested = p.nowLocked()
	}
	if p.dated {
		p.armLocked(p.dueLocked(e))
		if coldest := p.free[0]; p.cfg.MinIdle > 0 && !coldest.probing {
			p.armLocked(p.dueLocked(coldest)) // MinIdle may not need it any more
		}
	}
}

// fitLocked counts e among those that can be lent, or will be when they are put
// back.
func (p *Pool[T]) fitLocked(e *entry[T], fit bool) {
	if e.fit == fit {
		return
	}
	e.fit = fit
	switch {
	case e.generation != p.generation: // those were counted out together
	case fit:
		p.fit++
	default:
		p.fit--
	}
}

// agedLocked reports whether e has outlived its MaxLife.
func (p *Pool[T]) agedLocked(e *entry[T]) bool {
	return e.expires != never && p.nowLocked() >= e.expires
}

// staleLocked reports whether e, which was not put back just now, has been idle for
// too long, while it was asked for instance.
func (p *Pool[T]) staleLocked(e *entry[T]) bool {
	if !p.dated || e.leased > 0 || e.fresh() {
		return false
	}
	p.awakeLocked()
	return p.idledLocked(e, p.now)
}

// fresh reports whether e comes from Open, so that nobody could have it yet.
func (e *entry[T]) fresh() bool { return e.at == 0 && e.first.turn == 0 }

// unfitLocked says why e is not lent any more.
func (p *Pool[T]) unfitLocked(e *entry[T]) Reason {
	switch {
	case e.condemned:
		return e.reason
	case p.shut:
		return Shut
	case e.retired != nil:
		return Retired
	case e.generation != p.generation:
		return Purged
	case e.capacity <= 0:
		return Spent
	case p.agedLocked(e):
		return Aged
	}
	return Idled
}

// condemnLocked says why e is to be closed. The first reason counts.
func (e *entry[T]) condemnLocked(reason Reason, cause error) {
	if e.condemned {
		return
	}
	switch {
	case cause != nil:
	case reason == Purged:
		cause = e.pool.purge
	case reason == Spent:
		cause = e.spent
	case reason == Retired:
		cause = e.retired
	}
	if cause == nil {
		cause = reason
	}
	e.condemned, e.reason, e.cause = true, reason, cause
	e.disownLocked()
}

// disownLocked makes e one that is not lent any more.
func (e *entry[T]) disownLocked() {
	e.pool.fitLocked(e, false)
	e.generation = noGeneration
}

func (p *Pool[T]) unlistLocked(e *entry[T]) {
	if e.at > 0 {
		p.free.remove(e)
	}
}

// removeLocked takes e, condemned and lent to nobody, out of the pool. The
// caller closes it.
func (p *Pool[T]) removeLocked(e *entry[T]) {
	p.unlistLocked(e)
	p.values.remove(&e.place)
	e.gone = true
	p.closing++
	p.closed[e.reason]++
}

// expelLocked closes e, lent to nobody, for a reason.
func (p *Pool[T]) expelLocked(e *entry[T], reason Reason, cause error) {
	e.condemnLocked(reason, cause)
	p.removeLocked(e)
	if reason == Reclaimed || reason == Spent || reason == Retired {
		p.fillAt = p.clock() + refillAfter // or two pools would take from each other for ever
	}
	go p.close(e)
}

// close ends a value that was removed. It takes up room until Close returned.
func (p *Pool[T]) close(e *entry[T]) {
	defer func() {
		p.observe(Event{Kind: Closed, Took: p.clock() - e.born, Reason: e.reason, Err: e.cause})
		p.mu.Lock()
		p.closing--
		p.size--
		p.roomLocked()
		p.unlock()
	}()
	if p.cfg.Close != nil {
		p.cfg.Close(e.value, e.cause)
	}
}

// currentLocked is warmestLocked where values have dates. A process that was frozen
// comes here before its timers have closed what is too old by now.
func (p *Pool[T]) currentLocked() *entry[T] {
	if p.dated || p.cfg.CheckAfter > 0 {
		p.awakeLocked()
	}
	for {
		e := p.warmestLocked()
		switch {
		case e == nil:
			return nil
		case p.agedLocked(e):
			p.settleLocked(e)
		case e.leased == 0 && p.idledLocked(e, p.now):
			p.expelLocked(e, Idled, nil)
		default:
			return e
		}
	}
}

// warmestLocked returns the value that was used last of those that can be lent.
func (p *Pool[T]) warmestLocked() *entry[T] {
	for i := len(p.free) - 1; i >= 0; i-- {
		if e := p.free[i]; !e.probing {
			return e
		}
	}
	return nil
}

// refresh reads the capacity of e again, after Watch has said that it changed, or
// why it has ended.
func (p *Pool[T]) refresh(e *entry[T], spent error) {
	p.mu.Lock()
	if e.spent == nil && spent != nil {
		e.spent = spent
		if e.at > 0 && e.leased == 0 && p.cfg.Capacity == nil {
			e.condemnLocked(Spent, nil) // before those that are doubted are asked: it is one
			p.unlistLocked(e)
		}
		p.blameLocked(e, p.clock(), reasonOf(spent))
	}
	if e.gauging || e.gone {
		e.gaugeAgain = true
		p.mu.Unlock()
		return
	}
	e.gauging = true
	p.mu.Unlock()
	p.gauge(e, 0)
	p.learnLocked(e)
	p.settleLocked(e)
	p.unlock()
}

// gauge reads the capacity of e, or takes what it is said to be, until nobody said
// meanwhile that it changed, and returns with the lock held. Who calls it has set
// e.gauging.
func (p *Pool[T]) gauge(e *entry[T], capacity int) {
	for ; ; capacity = 0 {
		if p.cfg.Capacity != nil {
			capacity = p.cfg.Capacity(e.value)
		}
		p.mu.Lock()
		if !e.gaugeAgain {
			e.capacity, e.gauging = capacity, false
			return
		}
		e.gaugeAgain = false
		p.mu.Unlock()
	}
}

// A probe asks a value whether it is still good.
type probe[T any] struct {
	of    func(ctx context.Context, v T) error // a Check, a Beat, or both; nil: there is nothing to ask
	life  context.Context                      // what ends it, if not the Get that asks
	doubt instant                              // that is answered with it
}

// doubtLocked returns what e must be asked before it is lent, if anything. Since a
// Beat has failed, only a Beat that does not can say that e is good.
func (p *Pool[T]) doubtLocked(e *entry[T]) (ask probe[T]) {
	ask.doubt = p.doubt
	switch {
	case p.cfg.Check == nil && p.doubt < 0:
	case e.fresh(): // else one that never passes would be opened without end
	case e.rested == justNow:
		if p.cfg.CheckAfter == 0 {
			ask.of = p.cfg.Check
		}
	case e.proof() < p.doubt:
		return probe[T]{p.checkAndBeat, p.life, p.doubt}
	case p.cfg.CheckAfter == 0 || p.nowLocked()-e.proof() >= p.cfg.CheckAfter:
		ask.of = p.cfg.Check
	}
	if p.cfg.ProbeTimeout >= 0 {
		ask.life = p.life
	}
	return ask
}

func (p *Pool[T]) checkAndBeat(ctx context.Context, v T) error {
	if p.cfg.Check != nil {
		if err := p.cfg.Check(ctx, v); err != nil {
			return err
		}
	}
	return p.cfg.Beat(ctx, v)
}

// prove asks the value of l, which is doubted, whether it is still good. If not,
// the lease is over and the value is closed.
func (p *Pool[T]) prove(r *request, l Lease[T], ask probe[T]) (good bool) {
	if r.again = true; r.began == 0 {
		r.began = p.clock()
	}
	if ask.life == nil {
		return p.hear(r.ctx, l, ask)
	}
	return p.hearApart(r, l, ask)
}

// hearApart is hear in a goroutine of its own. A Get that ends before does not end
// the question: nobody knows what half of one leaves behind. The value goes back as
// it was, and when it has answered it can be lent.
func (p *Pool[T]) hearApart(r *request, l Lease[T], ask probe[T]) (good bool) {
	heard := make(chan bool, 1)
	caller := context.WithoutCancel(r.ctx)
	go func() {
		good := false
		defer func() { heard <- good }()
		ctx, cancel := context.WithCancel(caller)
		defer cancel()
		defer context.AfterFunc(ask.life, cancel)()
		good = p.hear(ctx, l, ask)
	}()
	select {
	case good = <-heard:
		return good
	case <-r.ctx.Done():
	case <-p.expiry(r):
		r.late = true
	}
	p.mu.Lock()
	defer p.unlock()
	if l.slot.turn == l.turn {
		p.withdrawLocked(l)
	}
	return false
}

// hear asks the value of l. If it is not good, or nobody wants it any more, the
// lease is over.
func (p *Pool[T]) hear(ctx context.Context, l Lease[T], ask probe[T]) (good bool) {
	e := l.slot.entry
	err := errUnfinished // a panic
	defer func() {
		p.mu.Lock()
		e.probing = false
		switch {
		case err == nil:
			e.proved = p.clock()
		case e.generation == p.generation: // else it goes anyway, and a Reset may have ended ask
			e.condemnLocked(reasonOf(err), err)
		}
		// It may have been purged, or have lost its capacity, while it was asked.
		mine := l.slot.turn == l.turn
		if good = mine && e.generation == p.generation && e.leased <= e.capacity; mine && !good {
			p.endLeaseLocked(l.slot)
		}
		p.settleLocked(e)
		p.unlock()
	}()
	if err = p.probe(ctx, ask.of, e.value); err == nil && p.doubtedSince(e, ask) {
		err = p.probe(ctx, p.cfg.Beat, e.value)
	}
	return false // see above
}

// doubtedSince reports whether doubt has been thrown on e while it was asked, which a Check
// does not answer.
func (p *Pool[T]) doubtedSince(e *entry[T], ask probe[T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doubt > ask.doubt && e.proof() < p.doubt
}

func (p *Pool[T]) probe(ctx context.Context, of func(context.Context, T) error, v T) error {
	ctx, cancel := bounded(ctx, p.cfg.ProbeTimeout, defaultProbeTimeout)
	defer cancel()
	return of(ctx, v)
}

// withdrawLocked ends the lease l, which nobody has used, as if it had not been.
func (p *Pool[T]) withdrawLocked(l Lease[T]) {
	e := l.slot.entry
	rested := e.rested
	p.endLeaseLocked(l.slot)
	e.rested = rested
	p.settleLocked(e)
}
