package dialer

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// accountsOf returns the accounts that a flow to c owes, opened where they are
// not.
func (l *Ledger) accountsOf(c candidate) []*account {
	accounts := make([]*account, len(c.owes))
	for i, k := range c.owes {
		if accounts[i] = l.accounts[k]; accounts[i] == nil {
			accounts[i] = l.openLocked(k)
		}
	}
	return accounts
}

// openLocked opens the account of k, which has none.
func (l *Ledger) openLocked(k netpath.Key) *account {
	a := l.spareAccount
	if l.spareAccount = nil; a == nil {
		a = new(account)
	}
	a.key, a.limit = k, l.limit[k.Scope()]
	if a.lesson = l.lessons[k]; a.lesson != nil {
		a.limit = a.lesson.limit
	}
	l.accounts[k] = a
	if k.Source.IsValid() {
		l.sources[k.Source]++
	}
	l.widest = max(l.widest, len(l.accounts))
	return a
}

// shareLocked returns o's share of a, opened if it is not.
func (l *Ledger) shareLocked(a *account, o owner) *share {
	s := a.share(o)
	if s == nil {
		if s, l.spareShare = l.spareShare, nil; s == nil {
			s = new(share)
		}
		*s = share{owner: o}
		a.shares = append(a.shares, s)
	}
	return s
}

// closeShareLocked forgets s if nothing is in it.
func (l *Ledger) closeShareLocked(a *account, s *share) {
	if a.closeShare(s) {
		l.spareShare = s
	}
}

// forgetLocked drops an empty account, and from time to time the map, which
// would keep the memory of its largest day.
func (l *Ledger) forgetLocked(a *account) {
	if !a.empty() || l.accounts[a.key] != a || a.exceeded > 0 && l.remembersLocked(a) {
		return
	}
	delete(l.accounts, a.key)
	if src := a.key.Source; src.IsValid() {
		if l.sources[src]--; l.sources[src] == 0 {
			delete(l.sources, src)
		}
	}
	*a = account{shares: a.shares[:0]}
	l.spareAccount = a
	if l.widest > 1024 && len(l.accounts) < l.widest/4 {
		fresh := make(map[netpath.Key]*account, len(l.accounts))
		for k, a := range l.accounts {
			fresh[k] = a
		}
		l.accounts, l.widest = fresh, len(fresh)
	}
}

// maxExceeded is how many empty accounts are kept for what they have exceeded.
const maxExceeded = 256

// remembersLocked makes a one of those if there is room, and reports whether it is one.
func (l *Ledger) remembersLocked(a *account) bool {
	if !a.remembered && l.remembered < maxExceeded {
		a.remembered = true
		l.remembered++
	}
	return a.remembered
}

// bookLocked books a flow for the candidate with the most room, if any has
// some. A new dial does not pass those who wait: only the queue asks with
// fresh false.
func (l *Ledger) bookLocked(now time.Time, r *request, fresh bool) (*flow, int) {
	if len(r.candidates) > 1 {
		return l.bookBestLocked(now, r, fresh)
	}
	var room room
	if l.roomLocked(now, r, r.candidates[0], fresh, &room); room.ports < 0 {
		return nil, 0
	}
	return l.openFlowLocked(now, r, r.candidates[0], &room), 0
}

func (l *Ledger) bookBestLocked(now time.Time, r *request, fresh bool) (*flow, int) {
	best, most, equal := -1, -1, 0
	var rooms [2]room // the best one, and the next to be looked at
	found, look := &rooms[0], &rooms[1]
	for i, c := range r.candidates {
		l.roomLocked(now, r, c, fresh, look)
		switch {
		case look.ports < 0 || look.ports < most || best >= 0 && !sameFamily(c, r.candidates[best]):
			continue
		case look.ports > most:
			equal = 0
		case c.dst != r.candidates[best].dst: // the resolver prefers those before it
			continue
		}
		if equal++; rand.IntN(equal) == 0 { // of several Sources any, so that none fills up first
			best, most = i, look.ports
			found, look = look, found
		}
	}
	if best < 0 {
		return nil, 0
	}
	if f := l.openFlowLocked(now, r, r.candidates[best], found); f != nil {
		return f, best
	}
	for i, c := range r.candidates { // the Budget refuses the best
		if l.roomLocked(now, r, c, fresh, look); i != best && look.ports >= 0 {
			if f := l.openFlowLocked(now, r, c, look); f != nil {
				return f, i
			}
		}
	}
	return nil, 0
}

func sameFamily(a, b candidate) bool { return a.dst.Addr().Is4() == b.dst.Addr().Is4() }

const unlimited = 1 << 30

// A room is what one candidate has left.
type room struct {
	ports    int               // negative: it may not have one
	accounts [maxKeys]*account // that the candidate owes; nil: not open
}

// roomLocked finds out how many ports candidate c has left for r.
func (l *Ledger) roomLocked(now time.Time, r *request, c candidate, fresh bool, room *room) {
	room.ports = unlimited
	for i, k := range c.owes {
		a := l.accounts[k]
		room.accounts[i] = a
		if a == nil {
			if n := l.limit[k.Scope()]; n != netpath.None {
				room.ports = min(room.ports, n)
			}
			continue
		}
		if i == 0 && a.failing != nil && !l.Shadow && !a.failing.mayTry(now) {
			room.ports = -1
			return
		}
		flows := 0
		if s := a.share(r.owner); s != nil {
			flows = s.flows
		}
		more := a.moreLocked(now)
		limit := l.rampedLocked(now, a) + more
		if !l.Shadow && (a.full(limit, flows, r.control || more > 0) || fresh && a.waiting > 0 && flows > 0 && !r.control) {
			room.ports = -1
			return
		}
		if a.limit != netpath.None {
			room.ports = min(room.ports, max(0, limit-a.counted()))
		}
	}
}

// takeLocked asks the Budget, if there is one, for the account of the flow's destination: of
// all who go there where the path counts it, else of this source.
func (l *Ledger) takeLocked(c candidate, room *room) (g budget.Grant, ok bool) {
	if l.Budget == nil || len(c.owes) == 0 {
		return nil, true
	}
	at := max(0, slices.IndexFunc(c.owes, func(k netpath.Key) bool { return k.Scope() == netpath.Destination }))
	g, ok = l.Budget.Take(c.owes[at])
	if a := room.accounts[at]; a != nil {
		a.tight = !ok
	}
	return g, ok || l.Shadow
}

// openFlowLocked books a flow on every account of c, which has room, or on none
// if the Budget refuses.
func (l *Ledger) openFlowLocked(now time.Time, r *request, c candidate, room *room) *flow {
	grant, ok := l.takeLocked(c, room)
	if !ok {
		return nil
	}
	f := l.spareFlow
	if l.spareFlow = nil; f == nil {
		f = new(flow)
	}
	*f = flow{owes: len(c.owes), grant: grant, control: r.control, host: r.address, remote: c.dst}
	if l.began.IsZero() {
		l.began = now
	}
	for i, k := range c.owes {
		a := room.accounts[i]
		if a == nil {
			a = l.openLocked(k)
		}
		s := l.shareLocked(a, r.owner)
		f.at[i] = debt{a, s}
		if l.Shadow && a.limit != netpath.None && a.total >= a.limit {
			a.exceeded++
		}
		a.total++
		a.asked++
		f.pressed = f.pressed || a.limit != netpath.None && a.total*5 >= a.limit*4
		s.flows++
		if i == 0 {
			a.live.push(f)
			if a.failing != nil {
				a.failing.trying, f.trial = true, true
			}
		}
	}
	return f
}
