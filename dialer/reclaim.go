package dialer

import (
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
	victims := l.revokedLocked(f)
	for _, d := range f.debts() {
		if d.account.waiting > 0 {
			victims = l.reclaimLocked(now, d.account, victims)
		}
	}
	l.mu.Unlock()
	l.retire(victims)
}

// reclaimLocked adds to victims a parked flow of a, the longest idle, to be
// ended for the owner who waits there with the fewest flows. Ending one costs
// its hold, so it must be worth it: its owner holds at least two more, or it
// has been idle for longer than its port will be held. No more are ended than
// dials are waiting.
func (l *Ledger) reclaimLocked(now time.Time, a *account, victims []victim) []victim {
	if a.limit == netpath.None || l.Shadow || a.reclaiming >= a.waiting || a.asked+a.dialing >= maxDialing {
		return victims
	}
	poorest := l.poorestLocked(a)
	var best victim
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
		if s.flows >= poorest+2 || now.Sub(parked) > l.soonestHold() {
			best, since = victim{f, c, a}, parked
		}
	})
	if best.flow == nil {
		return victims
	}
	best.flow.reclaimed = true
	for _, d := range best.flow.debts() {
		d.account.reclaiming++
	}
	return append(victims, best)
}

// poorestLocked is how many flows the poorest owner who waits for a has there.
func (l *Ledger) poorestLocked(a *account) int {
	poorest := a.total
	for _, s := range a.shares {
		if s.claims.Len() > 0 {
			poorest = min(poorest, s.flows)
		}
	}
	return poorest
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
	if s := a.key.Scope(); s == netpath.Destination || s == netpath.SourceDestination {
		visit(a)
		return
	}
	for _, of := range l.accounts {
		visit(of)
	}
}

// revokedLocked returns the flows whose grant the Budget wants back and which
// are parked: of fs, or of all.
func (l *Ledger) revokedLocked(fs ...*flow) []victim {
	if l.Budget == nil {
		return nil
	}
	var victims []victim
	look := func(f *flow) {
		for _, g := range f.grants {
			if c := f.conn.Value(); g.Revoked() && c != nil && !f.reclaimed {
				victims = append(victims, victim{f, c, nil})
				return
			}
		}
	}
	for _, f := range fs {
		look(f)
	}
	if len(fs) == 0 {
		for _, a := range l.accounts {
			for f := a.live.head; f != nil; f = f.next {
				look(f)
			}
		}
	}
	return victims
}

// retire ends those victims that are still parked. Their owners find out at the
// next Unpark, or by their pending Read.
func (l *Ledger) retire(victims []victim) {
	for _, v := range victims {
		if v.conn.Retire() {
			if l.resetIsSooner() {
				v.conn.EndSoonest()
			}
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
			v.flow.reclaimed = false
			for _, d := range v.flow.debts() {
				d.account.reclaiming--
			}
			l.mu.Unlock()
		}
	}
}

// resetIsSooner reports whether the path frees a port sooner after a RST than
// after a FIN.
func (l *Ledger) resetIsSooner() bool { return l.path.Hold.RST < l.path.Hold.FIN }

func (l *Ledger) soonestHold() time.Duration { return min(l.path.Hold.RST, l.path.Hold.FIN) }
