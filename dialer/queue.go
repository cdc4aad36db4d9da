package dialer

import "time"

// enqueueLocked puts a dial into the queue of every account of every candidate:
// it takes whichever has room first.
func (l *Ledger) enqueueLocked(now time.Time, r request) *waiter {
	w := &waiter{request: r, since: now, ready: make(chan granted, 1)}
	seen := make(map[*account]bool)
	for _, c := range r.candidates {
		for _, a := range l.accountsOf(r, c) {
			if seen[a] {
				continue
			}
			seen[a] = true
			s := a.openShare(r.owner)
			claim := &claim{waiter: w, account: a, share: s}
			claim.place = s.claims.PushBack(claim)
			if a.waiting++; a.waiting == 1 {
				l.crowded[a] = struct{}{}
				l.crowds.Add(1)
			}
			w.claims = append(w.claims, claim)
		}
	}
	return w
}

// dequeueLocked leaves no trace of w.
func (l *Ledger) dequeueLocked(w *waiter) {
	for _, c := range w.claims {
		c.share.claims.Remove(c.place)
		c.account.closeShare(c.share)
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
	for _, d := range debts {
		if d.account.waiting > 0 {
			l.pumpAccountLocked(now, d.account)
		}
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
		front := s.claims.Front()
		if front == nil {
			continue
		}
		c := front.Value.(*claim)
		if best != nil && (s.flows > best.share.flows ||
			s.flows == best.share.flows && !c.waiter.since.Before(best.waiter.since)) {
			continue
		}
		for _, candidate := range c.waiter.candidates {
			if l.roomLocked(now, &c.waiter.request, candidate, false) >= 0 {
				best = c
				break
			}
		}
	}
	if best == nil {
		return nil
	}
	return best.waiter
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

// fullestLocked returns the account that stands most in the way of w.
func (l *Ledger) fullestLocked(w *waiter) *account {
	var worst *account
	for _, c := range w.claims {
		if worst == nil || c.account.total > worst.total {
			worst = c.account
		}
	}
	return worst
}
