package dialer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Ledger books every flow of one egress, so that the NAT is never asked for a
// port that it does not have. It counts flows as the NAT does, by resolved
// address, and remembers for how long the NAT holds the port of a closed one.
// Dials that find no port wait in its queue.
//
// The zero Ledger is ready to use: it keeps accounts and caps nothing. Set its
// fields before the first dial, not after. It may be used by many goroutines
// and Dialers, must not be copied, and needs no Close.
type Ledger struct {
	// Path is what lies between this process and its destinations. The zero
	// Profile is netpath.Unknown.
	Path netpath.Profile

	// Budget, if not nil, must allow each flow too, besides the limits of Path:
	// one that is shared with other processes, for instance.
	Budget budget.Budget

	// MaxWait is how long a dial waits for a port, if its context does not end
	// before. Zero: 30 s. Negative: as long as its context lasts.
	MaxWait time.Duration

	// Shadow keeps accounts and refuses nothing, for adopting natwise safely:
	// Account.Exceeded tells what would have waited.
	Shadow bool

	// Ramp is how long a fresh ledger takes to use its whole limit, where that
	// is 1,024 or less: the NAT may still hold the ports of the process that
	// was here before. It begins with half. Zero: the path's longest hold.
	// Negative: there was no such process.
	Ramp time.Duration

	crowds atomic.Int32 // accounts with waiters: len(crowded), without the lock

	once  sync.Once
	bad   error // Path does not validate
	path  netpath.Profile
	told  chan struct{} // Budget's signal; nil without a Budget
	limit [maxKeys]int  // by scope

	mu       sync.Mutex // guards the fields below; never held while connecting, closing or calling back
	began    time.Time  // the first booking
	accounts map[netpath.Key]*account
	widest   int                   // how many accounts there were since the map was made
	cool     [2 * hows]flowList    // one queue a kind of ending, in order of release
	crowded  map[*account]struct{} // those with waiters
	failing  map[*account]struct{} // those whose address fails
	timer    *time.Timer
	wakeAt   time.Time // when timer fires; zero: it is not set

	// The last ones that became free, so that asking in vain costs no memory.
	spareFlow    *flow
	spareAccount *account
	spareShare   *share

	// While connections hold grants of the Budget, one goroutine listens to it:
	// a grant may be revoked when nobody waits.
	revocable int
	deaf      chan struct{} // closed when none holds a grant any more
}

const hows = int(keepalive.Hows)

// DefaultLedger is shared by all Dialers that name no other: what it models,
// this process's part of the NAT, is one thing too.
var DefaultLedger = new(Ledger)

const (
	defaultMaxWait = 30 * time.Second

	// margin is added to each hold, for the way from here to the NAT and the
	// coarseness of timers on both sides. Measured by internal/natlab/fidelity:
	// enough for no undercount.
	margin = 20 * time.Millisecond

	rampLimit = 1024
	rampSteps = 32
)

func (l *Ledger) init() error {
	l.once.Do(func() {
		if l.bad = l.Path.Validate(); l.bad != nil {
			return
		}
		l.path = l.Path.Effective()
		for s := range l.limit {
			l.limit[s] = l.path.Limit(netpath.Scope(s))
		}
		l.accounts = make(map[netpath.Key]*account)
		l.crowded = make(map[*account]struct{})
		l.failing = make(map[*account]struct{})
		if l.Budget != nil {
			l.told = make(chan struct{}, 1)
			l.Budget.Notify(l.told)
		}
	})
	return l.bad
}

// owing returns copies of the candidates that know the accounts which a flow to
// them owes.
func (l *Ledger) owing(network string, candidates []candidate) []candidate {
	cs := slices.Clone(candidates)
	for i, c := range cs {
		cs[i].owes = l.path.Keys(nil, c.src, c.dst, network)
	}
	return cs
}

// reserve returns a flow for the first candidate that has room, and waits for
// one where none has.
func (l *Ledger) reserve(ctx context.Context, r request) (f *flow, at int, waited bool, err error) {
	if err := l.init(); err != nil {
		return nil, 0, false, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, 0, false, err // done before it began: even where a port is free
	}
	l.mu.Lock()
	now := time.Now()
	l.expireLocked(now)
	if f, at := l.bookLocked(now, &r, true); f != nil {
		l.mu.Unlock()
		return f, at, false, nil
	}
	w := l.enqueueLocked(now, r)
	for _, c := range w.claims { // those before it may wait for something else
		if c.account.waiting > 1 {
			l.pumpAccountLocked(now, c.account)
		}
	}
	var victims []victim
	for _, c := range w.claims {
		if c.share.claims.Len() == 1 {
			victims = l.reclaimLocked(now, c.account, victims)
		} else {
			l.lookSoonLocked(now, c.account)
		}
	}
	l.armLocked(now)
	l.mu.Unlock()
	l.retire(victims)
	f, at, err = l.wait(ctx, w)
	return f, at, true, err
}

// tryReserve books a flow for one candidate now or not at all, and only where a
// fifth of the ports is free: a race must not cost what somebody waits for.
func (l *Ledger) tryReserve(r request) *flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.expireLocked(now)
	for _, k := range r.candidates[0].owes {
		if a := l.accounts[k]; a != nil && a.limit != netpath.None && (a.limit-a.total)*5 < a.limit {
			return nil
		}
	}
	f, _ := l.bookLocked(now, &r, true)
	return f
}

var errMaxWait = errors.New("dialer: no port came free within Ledger.MaxWait")

func (l *Ledger) wait(ctx context.Context, w *waiter) (*flow, int, error) {
	var expired <-chan time.Time
	if d := l.MaxWait; d >= 0 {
		if d == 0 {
			d = defaultMaxWait
		}
		t := time.NewTimer(d)
		defer t.Stop()
		expired = t.C
	}
	for {
		var why error
		select {
		case g := <-w.ready:
			return g.flow, g.at, g.err
		case <-l.told:
			l.recheck()
			continue
		case <-ctx.Done():
			why = context.Cause(ctx)
		case <-expired:
			why = errMaxWait
		}
		return nil, 0, l.giveUp(w, why)
	}
}

// giveUp takes w out of the queue. A grant that came meanwhile goes to the next.
func (l *Ledger) giveUp(w *waiter, why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	select {
	case g := <-w.ready:
		if g.flow != nil {
			l.dropLocked(now, g.flow)
		}
		return why
	default:
	}
	defer l.dequeueLocked(w)
	if failed := l.failureLocked(w.request); failed != nil {
		return errors.Join(why, failed)
	}
	if !timeout(why) {
		return why // called off: nobody asks who holds the ports
	}
	return &BudgetError{Account: l.snapshotLocked(now, l.fullestLocked(w)), Err: why}
}

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
	l.accounts[k] = a
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
	if !a.empty() || l.accounts[a.key] != a {
		return
	}
	delete(l.accounts, a.key)
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

// rampedLocked is the limit that holds while the ramp lasts.
func (l *Ledger) rampedLocked(now time.Time, a *account) int {
	step := l.rampStep()
	if step <= 0 || a.limit < 2 || a.limit > rampLimit {
		return a.limit
	}
	half := (a.limit + 1) / 2
	steps := int64(0)
	if !l.began.IsZero() {
		steps = min(int64(now.Sub(l.began)/step), rampSteps)
	}
	return half + int(int64(a.limit-half)*steps/rampSteps)
}

// rampStep is how long the limit stays the same while the ramp lasts.
func (l *Ledger) rampStep() time.Duration {
	ramp := l.Ramp
	if ramp == 0 {
		ramp = l.longestHold()
	}
	return ramp / rampSteps
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
	best, most := -1, -1
	var rooms [2]room // the best one, and the next to be looked at
	found, look := &rooms[0], &rooms[1]
	for i, c := range r.candidates {
		l.roomLocked(now, r, c, fresh, look)
		if look.ports > most && (best < 0 || sameFamily(c, r.candidates[best])) {
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
		if i == 0 && a.failing != nil && !a.failing.mayTry(now) {
			room.ports = -1
			return
		}
		flows := 0
		if s := a.share(r.owner); s != nil {
			flows = s.flows
		}
		limit := l.rampedLocked(now, a)
		if !l.Shadow && (a.full(limit, flows, r.control) || fresh && a.waiting > 0 && flows > 0 && !r.control) {
			room.ports = -1
			return
		}
		if a.limit != netpath.None {
			room.ports = min(room.ports, max(0, limit-a.total))
		}
	}
}

// openFlowLocked books a flow on every account of c, which has room, or on none
// if the Budget refuses.
func (l *Ledger) openFlowLocked(now time.Time, r *request, c candidate, room *room) *flow {
	var grants []budget.Grant
	if l.Budget != nil {
		for _, k := range c.owes {
			g, ok := l.Budget.Take(k)
			if !ok && !l.Shadow {
				for _, g := range grants {
					g.Release()
				}
				return nil
			}
			if ok {
				grants = append(grants, g)
			}
		}
	}
	f := l.spareFlow
	if l.spareFlow = nil; f == nil {
		f = new(flow)
	}
	*f = flow{owes: len(c.owes), grants: grants, remote: c.dst}
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
		if a.limit != netpath.None && a.total >= a.limit {
			a.exceeded++
		}
		a.total++
		a.asked++
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

// dial says that the SYN of f is about to be sent.
func (l *Ledger) dial(f *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.stage = dialing
	for _, d := range f.debts() {
		d.account.asked--
		d.account.dialing++
	}
}

// connected says that f carries a connection.
func (l *Ledger) connected(f *flow, c *keepalive.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	f.stage = open
	f.conn = weak.Make(c)
	f.local = addrPort(c.LocalAddr())
	for _, d := range f.debts() {
		d.account.dialing--
		d.account.opened++
	}
	if len(f.grants) > 0 {
		if l.revocable++; l.revocable == 1 {
			l.deaf = make(chan struct{})
			go l.listen(l.deaf)
		}
	}
	l.succeededLocked(f)
	l.pumpLocked(now, f.debts())
}

// listen looks at all flows whenever the Budget asks for it, until deaf.
func (l *Ledger) listen(deaf <-chan struct{}) {
	for {
		select {
		case <-l.told:
			l.recheck()
		case <-deaf:
			return
		}
	}
}

// drop gives back a flow whose SYN was never sent: nothing is held for it.
func (l *Ledger) drop(f *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var now time.Time // of interest only to those who wait
	if len(l.crowded) > 0 {
		now = time.Now()
	}
	l.dropLocked(now, f)
}

func (l *Ledger) dropLocked(now time.Time, f *flow) {
	if f.stage == asked {
		for _, d := range f.debts() {
			d.account.asked--
		}
	} else {
		for _, d := range f.debts() {
			d.account.dialing--
		}
	}
	if f.trial {
		f.at[0].account.failing.trying = false
	}
	if f.owes > 0 {
		f.at[0].account.live.remove(f)
	}
	l.closeLocked(now, f)
	l.spareFlow = f
}

// failed says how the dial of f went wrong after its SYN. An inconclusive
// failure, such as the caller's own impatience, says nothing about the address.
func (l *Ledger) failed(f *flow, how keepalive.How, err error, conclusive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, d := range f.debts() {
		d.account.dialing--
		d.account.failed++
	}
	if conclusive {
		l.failedLocked(now, f, err)
	} else if f.trial {
		f.at[0].account.failing.trying = false
	}
	l.coolLocked(now, f, keepalive.Ending{How: how})
}

// ended says that the connection of f is closed. It reports whether the ledger
// itself had wanted that.
func (l *Ledger) ended(f *flow, e keepalive.Ending) (reclaimed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reclaimed = f.reclaimed
	l.coolLocked(time.Now(), f, e)
	return reclaimed
}

// coolLocked begins the hold of f.
func (l *Ledger) coolLocked(now time.Time, f *flow, e keepalive.Ending) {
	if f.owes == 0 {
		return // exempt
	}
	f.at[0].account.live.remove(f)
	if f.stage == open && len(f.grants) > 0 {
		if l.revocable--; l.revocable == 0 {
			close(l.deaf)
		}
	}
	hold := l.hold(e)
	if hold <= 0 {
		l.closeLocked(now, f)
		return
	}
	var buf [2 * maxKeys]debt
	free, held := buf[:0:maxKeys], buf[maxKeys:maxKeys]
	for _, d := range f.debts() {
		if d.account.key.Scope() == netpath.Sockets {
			free = append(free, d) // no port: a closed socket leaves at once
			continue
		}
		held = append(held, d)
		d.account.cooling[e.How]++
	}
	if len(held) == 0 {
		l.closeLocked(now, f)
		return
	}
	f.owes = copy(f.at[:], held)
	f.stage, f.how, f.release = cooling, e.How, now.Add(hold)
	queue := int(e.How)
	if e.Unsure {
		queue += hows
	}
	l.cool[queue].push(f)
	l.payLocked(now, f, free)
	l.pumpLocked(now, f.debts()) // one dial less is under way
	l.armLocked(now)
}

// hold is how long the NAT keeps the port after such an ending, and a margin.
func (l *Ledger) hold(e keepalive.Ending) time.Duration {
	h := l.path.Hold
	d := l.longestHold()
	if !e.Unsure {
		switch e.How {
		case keepalive.FINByUs, keepalive.FINByPeer:
			d = h.FIN
		case keepalive.RSTByUs, keepalive.RSTByPeer, keepalive.Refused:
			d = h.RST
		case keepalive.Unanswered:
			d = h.SYN
		case keepalive.Forgotten:
			d = h.Idle
		}
	}
	if d <= 0 {
		return 0
	}
	return d + margin
}

// longestHold is for an ending of which we do not know what the NAT has seen.
func (l *Ledger) longestHold() time.Duration {
	return max(l.path.Hold.FIN, l.path.Hold.RST, l.path.Hold.Idle)
}

// closeLocked ends a flow: its ports and its grants are given back.
func (l *Ledger) closeLocked(now time.Time, f *flow) {
	for _, g := range f.grants {
		g.Release()
	}
	l.payLocked(now, f, f.debts())
	f.owes = 0
}

// payLocked gives back ports of f and lets those who wait have them.
func (l *Ledger) payLocked(now time.Time, f *flow, debts []debt) {
	for _, d := range debts {
		d.account.total--
		d.share.flows--
		if f.reclaimed {
			d.account.reclaiming--
			d.share.reclaiming--
		}
		l.closeShareLocked(d.account, d.share)
	}
	l.pumpLocked(now, debts)
	for _, d := range debts {
		l.forgetLocked(d.account)
	}
}

// expireLocked ends the holds that are over.
func (l *Ledger) expireLocked(now time.Time) {
	for i := range l.cool {
		queue := &l.cool[i]
		for f := queue.head; f != nil && !f.release.After(now); f = queue.head {
			queue.remove(f)
			for _, d := range f.debts() {
				d.account.cooling[f.how]--
			}
			l.closeLocked(now, f)
		}
	}
	if len(l.failing) == 0 {
		return // the usual case, without an iterator
	}
	for a := range l.failing {
		if a.failing.over(now) && a.waiting == 0 {
			l.forgiveLocked(a)
			l.forgetLocked(a)
		}
	}
}

// armLocked sets the timer for what comes next, while somebody waits for it.
func (l *Ledger) armLocked(now time.Time) {
	if len(l.crowded) == 0 && l.Budget == nil {
		return
	}
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for i := range l.cool {
		if f := l.cool[i].head; f != nil {
			sooner(f.release)
		}
	}
	for a := range l.crowded {
		if a.failing != nil && !a.failing.trying && a.failing.next.After(now) {
			sooner(a.failing.next)
		}
		if !a.reclaimAt.IsZero() {
			sooner(a.reclaimAt)
		}
		if l.rampedLocked(now, a) < a.limit {
			sooner(now.Add(l.rampStep()))
		}
	}
	if next.IsZero() || !l.wakeAt.IsZero() && !l.wakeAt.After(next) {
		return // nothing to come, or the timer fires before it
	}
	l.wakeAt = next
	if l.timer == nil {
		l.timer = time.AfterFunc(next.Sub(now), l.recheck)
	} else {
		l.timer.Reset(next.Sub(now))
	}
}

// recheck looks at the clock and at everybody who waits. It is the timer's
// function, and what a signal of the Budget asks for.
func (l *Ledger) recheck() {
	l.mu.Lock()
	now := time.Now()
	l.wakeAt = time.Time{}
	l.expireLocked(now)
	victims := l.revokedLocked()
	for a := range l.crowded {
		l.pumpAccountLocked(now, a)
		if a.waiting > 0 && !a.reclaimAt.IsZero() && !a.reclaimAt.After(now) {
			victims = l.reclaimLocked(now, a, victims)
		}
	}
	l.armLocked(now)
	l.mu.Unlock()
	l.retire(victims)
}
