package pool

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// bearLocked counts a fresh value and gives it its dates. Jitter is drawn here, once:
// drawn again at each look it would be none.
func (p *Pool[T]) bearLocked(e *entry[T], now instant) {
	cfg := &p.cfg
	p.opened++
	p.values.insertBefore(&e.place, &p.values.root)
	e.born, e.rested = now, now
	e.expires = never
	if cfg.MaxLife > 0 {
		e.expires = after(now, shortened(cfg.MaxLife, cfg.MaxLife/4))
	}
	if cfg.Beat != nil {
		e.beatEvery = shortened(cfg.BeatEvery, cfg.BeatEvery/10)
	}
}

// shortened returns d less up to most.
func shortened(d, most time.Duration) time.Duration { return d - rand.N(most+1) }

// dueLocked returns when e, which is in free, wants to be looked at.
func (p *Pool[T]) dueLocked(e *entry[T]) instant {
	due := e.expires
	if e.leased > 0 {
		return due
	}
	if p.cfg.IdleFor != nil {
		due = min(due, after(e.rested, e.idleFor))
	}
	if p.cfg.MaxIdle > 0 && p.idleLocked() > p.cfg.MinIdle {
		due = min(due, after(e.rested, p.cfg.MaxIdle))
	}
	if p.cfg.Beat != nil && p.beating < beatsAtOnce {
		due = min(due, p.beatDueLocked(e))
	}
	return due
}

// idledLocked reports whether e, leased to nobody, has been idle for as long as it
// may.
func (p *Pool[T]) idledLocked(e *entry[T], now instant) bool {
	idle := now - e.rested
	return idle >= e.idleFor || p.cfg.MaxIdle > 0 && idle >= p.cfg.MaxIdle && p.idleLocked() > p.cfg.MinIdle
}

// idleFor is how long v may be idle, never mind MaxIdle.
func (p *Pool[T]) idleFor(v T) time.Duration {
	if p.cfg.IdleFor != nil {
		if d := p.cfg.IdleFor(v); d != 0 {
			return max(0, d)
		}
	}
	return never
}

// beatDueLocked returns when e is to be asked whether it is still good: at once
// if a Beat has failed since it was known to be.
func (p *Pool[T]) beatDueLocked(e *entry[T]) instant {
	if proved := e.proof(); proved >= p.doubt {
		return after(proved, e.beatEvery)
	}
	return p.doubt
}

// tend looks after the values that can be lent, coldest first, and after what
// has waited for this time.
func (p *Pool[T]) tend() {
	p.mu.Lock()
	p.wakeAt = never
	if p.shut {
		p.mu.Unlock()
		return
	}
	p.awakeLocked()
	now := p.now
	for i := 0; i < len(p.free); {
		e := p.free[i]
		if !e.probing {
			p.tendLocked(e, now)
		}
		if e.at > 0 { // it is still there
			i++
		}
	}
	leaks := p.leaksLocked(now)
	p.openLocked()
	p.unlock()
	for _, leak := range leaks {
		p.observe(leak)
	}
}

func (p *Pool[T]) tendLocked(e *entry[T], now instant) {
	switch {
	case now >= e.expires:
		p.settleLocked(e)
		return
	case e.leased > 0:
	case p.idledLocked(e, now):
		p.expelLocked(e, Idled, nil)
		return
	case p.cfg.Beat != nil && now >= p.beatDueLocked(e) && p.beating < beatsAtOnce:
		e.probing = true
		p.beating++
		go p.beat(p.life, e)
		return
	}
	p.armLocked(p.dueLocked(e))
}

// beat asks an idle value whether it is still good. If it is not, nor may be the
// others: they are asked at once, and before they are lent.
func (p *Pool[T]) beat(life context.Context, e *entry[T]) {
	err := errUnfinished // where Beat does not return
	began := p.clock()
	defer func() {
		p.mu.Lock()
		now := p.clock()
		e.probing = false
		p.beating--
		p.judgeLocked(e, now, err)
		p.settleLocked(e)
		p.openLocked()
		p.armLocked(now) // another one may be due
		p.unlock()
		p.observe(Event{Kind: Beaten, Took: now - began, Err: err})
	}()
	err = p.probe(life, p.cfg.Beat, e.value)
}

// judgeLocked takes in what a Beat said of e.
func (p *Pool[T]) judgeLocked(e *entry[T], now instant, err error) {
	switch reason := reasonOf(err); {
	case err == nil:
		e.proved = now
	case e.generation != p.generation: // it goes anyway, and Reset or Close may have ended the Beat
	default:
		p.blameLocked(e, now, reason)
		e.condemnLocked(reason, err)
	}
}

// blameLocked doubts the others because e has failed. It is no news if e was
// doubted already: then they are being asked.
func (p *Pool[T]) blameLocked(e *entry[T], now instant, reason Reason) {
	if reason == Failed && e.proof() >= p.doubt {
		p.doubtUntilLocked(now)
	}
}

// doubtUntilLocked lets those idle values be asked at once, and before they are
// lent, that were proved before then.
func (p *Pool[T]) doubtUntilLocked(then instant) {
	if p.cfg.Beat == nil || then <= p.doubt {
		return
	}
	p.doubt = then
	p.armLocked(then)
}

// reasonOf is what an error of a Check or a Beat is told as.
func reasonOf(err error) Reason {
	var reason Reason
	if errors.As(err, &reason) {
		return reason
	}
	return Failed
}
