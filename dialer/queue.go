package dialer

import (
	"container/list"
	"net/netip"
	"slices"
	"time"
)

// enqueueLocked puts a dial into the queue of every account of every candidate:
// it takes whichever has room first.
func (l *Ledger) enqueueLocked(now time.Time, r request) *waiter {
	w := &waiter{request: r, ready: make(chan granted, 1)}
	if w.since.IsZero() {
		w.since = now
	}
	for _, c := range r.candidates {
		for _, a := range l.accountsOf(c) {
			if slices.ContainsFunc(w.claims, func(c *claim) bool { return c.account == a }) {
				continue // two candidates may owe the same account
			}
			if w.claims == nil && !r.control {
				w.ahead = a.waiting
			}
			s := l.shareLocked(a, r.owner)
			claim := &claim{waiter: w, account: a, share: s}
			if r.control {
				claim.place = s.claims.PushFront(claim) // it may have what those before it may not
			} else {
				claim.place = s.queue(claim)
			}
			if a.waiting++; a.waiting == 1 {
				l.crowded[a] = struct{}{}
				l.crowds.Add(1)
			}
			w.claims = append(w.claims, claim)
		}
	}
	return w
}

// queue puts a claim behind those that have waited longer: almost always the last.
func (s *share) queue(c *claim) *list.Element {
	e := s.claims.Back()
	for e != nil {
		if w := e.Value.(*claim).waiter; w.control || !w.since.After(c.waiter.since) {
			break
		}
		e = e.Prev()
	}
	if e == nil {
		return s.claims.PushFront(c)
	}
	return s.claims.InsertAfter(c, e)
}

// dequeueLocked leaves no trace of w.
func (l *Ledger) dequeueLocked(w *waiter) {
	for _, c := range w.claims {
		c.share.claims.Remove(c.place)
		l.closeShareLocked(c.account, c.share)
		if c.account.waiting--; c.account.waiting == 0 {
			delete(l.crowded, c.account)
			l.crowds.Add(-1)
		}
		l.forgetLocked(c.account)
	}
	w.claims = nil
}

// pumpLocked lets those who wait for any of these accounts have what is free.
func (l *Ledger) pumpLocked(now time.Time, debts []debt) {
	crowded := false
	for _, d := range debts {
		if d.account.waiting > 0 {
			crowded = true
			l.pumpAccountLocked(now, d.account)
		}
	}
	if crowded {
		l.armLocked(now) // for those who still wait, of a trial for instance
	}
}

func (l *Ledger) pumpAccountLocked(now time.Time, a *account) {
	for {
		w := l.nextLocked(now, a)
		if w == nil {
			return
		}
		f, at := l.bookLocked(now, &w.request, false)
		if f == nil {
			return // the Budget refuses
		}
		l.dequeueLocked(w)
		w.ready <- granted{flow: f, at: at}
	}
}

// nextLocked chooses who gets the next port of a: the owner with the fewest
// flows there, among equals who has waited longest, of those whom some
// candidate has room for.
func (l *Ledger) nextLocked(now time.Time, a *account) *waiter {
	var best *claim
	for _, s := range a.shares {
		if best != nil && s.flows > best.share.flows {
			continue
		}
		c := l.nextOfLocked(now, a, s)
		if c == nil {
			continue
		}
		if best != nil && s.flows == best.share.flows && !c.waiter.since.Before(best.waiter.since) {
			continue
		}
		best = c
	}
	if best == nil {
		return nil
	}
	return best.waiter
}

// nextOfLocked returns the claim of s on a that can have a port. In an account
// of one destination that is the first or none. In one of all destinations, the
// first may wait for a port of its own.
func (l *Ledger) nextOfLocked(now time.Time, a *account, s *share) *claim {
	var room room
	var refused netip.AddrPort
	for e := s.claims.Front(); e != nil; e = e.Next() {
		c := e.Value.(*claim)
		if c.waiter.candidates[0].dst == refused {
			continue
		}
		for _, candidate := range c.waiter.candidates {
			if l.roomLocked(now, &c.waiter.request, candidate, false, &room); room.ports >= 0 {
				return c
			}
		}
		if a.key.Dest.IsValid() {
			return nil
		}
		refused = c.waiter.candidates[0].dst
	}
	return nil
}

// waitersLocked returns everybody who waits for a.
func (l *Ledger) waitersLocked(a *account) []*waiter {
	var ws []*waiter
	for _, s := range a.shares {
		for e := s.claims.Front(); e != nil; e = e.Next() {
			ws = append(ws, e.Value.(*claim).waiter)
		}
	}
	return ws
}

// firstOfLocked returns who has waited longest of o's dials, nil if none waits.
func (l *Ledger) firstOfLocked(o owner) (first *waiter) {
	for a := range l.crowded {
		s := a.share(o)
		if s == nil || s.claims.Len() == 0 {
			continue
		}
		if w := s.claims.Front().Value.(*claim).waiter; first == nil || w.since.Before(first.since) {
			first = w
		}
	}
	return first
}

// fullestLocked returns the account that stands most in the way of w.
func (l *Ledger) fullestLocked(w *waiter) *account {
	var worst *account
	for _, c := range w.claims {
		if worst == nil || !worst.tight && (c.account.tight || c.account.left() < worst.left()) {
			worst = c.account
		}
	}
	return worst
}
