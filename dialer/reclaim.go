package dialer

import (
	"slices"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A victim is a parked connection to be ended so that somebody else may have
// its port.
type victim struct {
	flow *flow
	conn *keepalive.Conn
	why  *account // nil: the Budget wants it back
}

// parked looks, when a connection was parked, whether its port is wanted.
func (l *Ledger) parked(f *flow) {
	if l.crowds.Load() == 0 && l.Budget == nil {
		return // the usual case, without the lock
	}
	l.mu.Lock()
	now := time.Now()
	var victims []victim
	if c, _, ok := f.parked(now); ok && f.revoked() {
		victims = append(victims, victim{f, c, nil})
	}
	for _, d := range f.debts() {
		if d.account.waiting > 0 {
			l.lookSoonLocked(now, d.account)
		}
	}
	l.armLocked(now)
	l.mu.Unlock()
	l.retire(victims)
}

// lookSoonLocked makes the timer look for flows to reclaim, which costs a look
// at each, not before the first of them can be worth it.
func (l *Ledger) lookSoonLocked(now time.Time, a *account) {
	if due := now.Add(unfair); a.reclaimAt.IsZero() || due.Before(a.reclaimAt) {
		a.reclaimAt = due
	}
}

// reclaimLocked adds to victims the parked flows of a that are to be ended for
// those who wait there, longest idle first: as many as it takes once their
// holds are over, and no more.
func (l *Ledger) reclaimLocked(now time.Time, a *account, victims []victim) []victim {
	a.reclaimAt = time.Time{}
	limit, reserve := a.limit, a.reserve()
	if a.tight { // what is free below the limit is not for this process
		limit, reserve = a.total, 0
	}
	if limit == netpath.None || l.Shadow {
		return victims
	}
	for a.counted()-a.reclaiming+a.waiting > limit-reserve && a.reclaiming < a.waiting+reserve {
		v := l.longestIdleLocked(now, a)
		if v.flow == nil {
			break
		}
		v.flow.reclaimed = true
		for _, d := range v.flow.debts() {
			d.account.reclaiming++
			d.share.reclaiming++
		}
		victims = append(victims, v)
	}
	return victims
}

const (
	// unfair is how long a flow must have been idle before it is ended for an
	// owner who holds fewer. In less than that it may be lent again.
	unfair = 100 * time.Millisecond

	// starving is how long, if that owner holds one flow less, none at all.
	starving = time.Second
)

// longestIdleLocked returns the parked flow of a that is worth ending, if there
// is one; else a.reclaimAt says when there will be. Ending a flow costs its
// hold. So it is done soon if its owner holds at least two more than the
// poorest who waits, later if that one has nothing at all, and otherwise only if
// the flow has been idle for longer than its port will be held.
func (l *Ledger) longestIdleLocked(now time.Time, a *account) (best victim) {
	poorest, waiting := a.total, 0
	for _, s := range a.shares {
		if s.claims.Len() > 0 {
			poorest = min(poorest, s.flows)
			waiting++
		}
	}
	poorest += a.reclaiming / max(1, waiting) // what they will get of those on their way
	a.reclaimAt = time.Time{}
	var since time.Time
	l.eachFlowLocked(a, func(f *flow, s *share) {
		c := f.conn.Value()
		if c == nil || f.reclaimed {
			return
		}
		parked, ok := c.Parked()
		if !ok || best.flow != nil && !parked.Before(since) {
			return
		}
		patience := max(unfair, l.soonestHold())
		switch {
		case s.flows-s.reclaiming >= poorest+2:
			patience = unfair
		case poorest == 0:
			patience = min(starving, patience)
		}
		if due := parked.Add(patience); !due.After(now) {
			best, since = victim{f, c, a}, parked
		} else if a.reclaimAt.IsZero() || due.Before(a.reclaimAt) {
			a.reclaimAt = due
		}
	})
	return best
}

// eachFlowLocked calls f for every flow of a that does not cool yet.
func (l *Ledger) eachFlowLocked(a *account, f func(*flow, *share)) {
	visit := func(of *account) {
		for fl := of.live.head; fl != nil; fl = fl.next {
			for _, d := range fl.debts() {
				if d.account == a {
					f(fl, d.share)
				}
			}
		}
	}
	if a.key.Dest.IsValid() {
		visit(a)
		for source := range l.sources {
			if of := l.accounts[netpath.Key{Source: source, Dest: a.key.Dest, Network: a.key.Network}]; of != nil && of != a {
				visit(of)
			}
		}
		return
	}
	for _, of := range l.accounts {
		visit(of)
	}
}

// revokedLocked returns the parked flows whose grant the Budget wants back. It is asked
// about the closed ones first that come back sooner than any that is ended now; then about
// those that are idle for longest; and about those in use when they are parked.
func (l *Ledger) revokedLocked(now time.Time) (victims []victim) {
	if l.Budget == nil {
		return nil
	}
	for i := range l.cool {
		for f := l.cool[i].head; f != nil && f.release.Sub(now) <= l.soonestHold(); f = f.next {
			f.revoked()
		}
	}
	for _, a := range l.accounts {
		if first := a.idlest(now); first != nil && first.revoked() {
			victims = a.revokedIdle(now, victims)
		}
	}
	return victims
}

// idlest returns the parked flow of a that is idle for longest.
func (a *account) idlest(now time.Time) (idlest *flow) {
	var since time.Time
	for f := a.live.head; f != nil; f = f.next {
		if _, at, ok := f.parked(now); ok && (idlest == nil || at.Before(since)) {
			idlest, since = f, at
		}
	}
	return idlest
}

// revokedIdle adds to victims the parked flows of a that the Budget wants back: those that
// are idle for longest, until it wants no more.
func (a *account) revokedIdle(now time.Time, victims []victim) []victim {
	type parked struct {
		victim
		since time.Time
	}
	var idle []parked
	for f := a.live.head; f != nil; f = f.next {
		if c, since, ok := f.parked(now); ok {
			idle = append(idle, parked{victim{f, c, nil}, since})
		}
	}
	slices.SortFunc(idle, func(a, b parked) int { return a.since.Compare(b.since) })
	for _, p := range idle {
		if !p.flow.revoked() {
			break
		}
		victims = append(victims, p.victim)
	}
	return victims
}

// revoked reports whether the Budget wants f back.
func (f *flow) revoked() bool { return f.grant != nil && f.grant.Revoked() }

// parked returns the connection of f and since when it is parked, if it is, and is not about
// to be ended. One that is new is about to be lent for the first time.
func (f *flow) parked(now time.Time) (c *keepalive.Conn, since time.Time, ok bool) {
	if f.stage != open || f.grant == nil || f.reclaimed {
		return nil, time.Time{}, false
	}
	if c = f.conn.Value(); c != nil {
		since, ok = c.Parked()
	}
	return c, since, ok && (f.keeper.uses.Load() > 0 || now.Sub(since) >= unfair)
}

// retire ends those victims that are still parked. Their owners find out at the
// next Unpark, or by their pending Read.
func (l *Ledger) retire(victims []victim) {
	for _, v := range victims {
		retire := v.conn.Retire
		if l.resetIsSooner() {
			retire = v.conn.RetireSoonest
		}
		if retire() {
			if v.why != nil {
				l.mu.Lock()
				v.why.reclaimed++
				l.mu.Unlock()
			}
			v.conn.Close()
			continue
		}
		if v.why != nil { // its owner was faster
			l.mu.Lock()
			now := time.Now()
			v.flow.reclaimed = false
			for _, d := range v.flow.debts() {
				d.account.reclaiming--
				d.share.reclaiming--
				if d.account.waiting > 0 {
					l.lookSoonLocked(now, d.account)
				}
			}
			l.armLocked(now)
			l.mu.Unlock()
		}
	}
}

// resetIsSooner reports whether the path frees a port sooner after a RST than
// after a FIN.
func (l *Ledger) resetIsSooner() bool { return l.path.Hold.RST < l.path.Hold.FIN }

func (l *Ledger) soonestHold() time.Duration { return min(l.path.Hold.RST, l.path.Hold.FIN) }
