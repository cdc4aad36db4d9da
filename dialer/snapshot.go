package dialer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"weak"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// Accounts returns a copy of every account in which something is booked or
// wanted, or was beyond the limit (Shadow), ordered by key. It looks at every
// flow; a page or a scrape may call it every second.
func (l *Ledger) Accounts() []Account {
	accounts := l.booked()
	for i, a := range accounts {
		accounts[i].Shared = l.sharedOf(a.Key)
	}
	return accounts
}

// booked returns the accounts without what the Budget says of them, which takes as long
// again and is no matter of the lock.
func (l *Ledger) booked() []Account {
	if !l.Used() || l.init() != nil {
		return nil
	}
	l.mu.Lock()
	now := time.Now()
	l.expireLocked(now)
	next := make(map[*account]time.Time)
	for i := range l.cool {
		for f := l.cool[i].head; f != nil; f = f.next {
			for _, d := range f.debts() {
				if t, ok := next[d.account]; !ok || f.release.Before(t) {
					next[d.account] = f.release
				}
			}
		}
	}
	accounts := make([]Account, 0, len(l.accounts))
	for _, a := range l.accounts {
		accounts = append(accounts, l.describeLocked(now, a, next[a]))
	}
	l.mu.Unlock()
	slices.SortFunc(accounts, func(a, b Account) int {
		if c := a.Key.Dest.Compare(b.Key.Dest); c != 0 {
			return c
		}
		return strings.Compare(a.Key.String(), b.Key.String())
	})
	return accounts
}

// Obstacle returns what the dials of an owner (WithOwner) wait for, while they do:
// a *BudgetError with the account that is most in the way of the first of them, or
// why its addresses fail where all of them do. Nil: none of the owner's dials waits.
// A pool that has waited in vain for its dial can say why, before that gives up.
func (l *Ledger) Obstacle(by any) error {
	if !l.Used() || l.init() != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.firstOfLocked(owner{by: by})
	if w == nil {
		return nil
	}
	if failed := l.failureLocked(w.request); failed != nil {
		return failed
	}
	return l.refusalLocked(time.Now(), w, nil)
}

// Obstacle is that of the dialer's ledger.
func (d *Dialer) Obstacle(by any) error { return d.ledger().Obstacle(by) }

// Trouble says what speaks against one more connection to address: that the last dials
// to all its addresses have failed, or that one which is there is suspect. Nil: nothing
// that is known. It may look the address up, as DialContext does.
func (d *Dialer) Trouble(ctx context.Context, network, address string) error {
	t, err := d.target(ctx, network, address)
	if err != nil {
		return err
	}
	l := d.ledger()
	if err := l.init(); err != nil {
		return err
	}
	r := request{candidates: l.owing(network, t.candidates)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.failureLocked(r); err != nil {
		return err
	}
	for _, c := range r.candidates {
		if len(c.owes) > 0 && l.suspectLocked(c.owes[0]) {
			return errSuspect
		}
	}
	return nil
}

var errSuspect = errors.New("dialer: what is sent there is not acknowledged")

// suspectLocked reports whether a connection of the account is suspect.
func (l *Ledger) suspectLocked(k netpath.Key) (suspect bool) {
	a := l.accounts[k]
	if a == nil {
		return false
	}
	l.eachFlowLocked(a, func(f *flow, _ *share) {
		c := f.conn.Value()
		suspect = suspect || c != nil && !c.Closed() && c.Suspect()
	})
	return suspect
}

// snapshotLocked returns a copy of one account.
func (l *Ledger) snapshotLocked(now time.Time, a *account) Account {
	var next time.Time
	for i := range l.cool {
		for f := l.cool[i].head; f != nil && (next.IsZero() || f.release.Before(next)); f = f.next {
			for _, d := range f.debts() {
				if d.account == a {
					next = f.release
				}
			}
		}
	}
	s := l.describeLocked(now, a, next)
	s.Shared = l.sharedOf(a.key)
	return s
}

func (l *Ledger) describeLocked(now time.Time, a *account, nextFree time.Time) Account {
	s := Account{
		Key: a.key, Limit: a.limit, Grade: a.gradeOf(l.path), Asked: a.asked, Dialing: a.dialing, Cooling: a.cooling,
		Waiting: a.waiting, Opened: a.opened, Failed: a.failed, Reclaimed: a.reclaimed, Exceeded: a.exceeded,
	}
	if a.limit != netpath.None && !l.Shadow {
		if s.Kept = a.left(); !a.tight {
			s.Kept = min(s.Kept, a.limit-l.rampedLocked(now, a)+a.reserve())
		}
		s.Kept = max(0, s.Kept)
	}
	if !nextFree.IsZero() {
		s.NextFree = max(0, nextFree.Sub(now))
	}
	s.Forgets = l.learner.Path(netpath.Key{Source: a.key.Source, Dest: a.key.Dest, Network: "tcp"}, l.path).Idle
	s.Learned = s.Forgets != l.path.Idle
	for _, share := range a.shares {
		if front := share.claims.Front(); front != nil {
			s.OldestWait = max(s.OldestWait, now.Sub(front.Value.(*claim).waiter.since))
		}
	}
	l.eachFlowLocked(a, func(f *flow, _ *share) {
		switch f.state() {
		case Active:
			s.Active++
		case Idle:
			s.Idle++
		case Closing:
			s.Closing++
		}
	})
	return s
}

// A State is where a flow is in its life.
type State uint8

const (
	Asked   State = iota // permission given, no SYN sent yet
	Dialing              // SYN sent, no answer yet
	Active               // in use
	Idle                 // parked
	Closing              // closed by us, the last FIN is on its way
	Cooling              // ended, the NAT still holds the port
)

var states = [...]string{"asked", "dialing", "active", "idle", "closing", "cooling"}

// String returns the state as telemetry names it: "cooling".
func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return "unknown"
}

// A Flow is one booked port, at one moment.
type Flow struct {
	Local  netip.AddrPort // zero until connected
	Remote netip.AddrPort
	Host   string // as it was asked for, with its port
	State  State
	How    keepalive.How // for Cooling
	Free   time.Duration // for Cooling: until the port comes free

	Age    time.Duration // of a connection
	Uses   uint64        // exchanges that pools have begun on it
	Serves int           // of those under way
	Trace  string        // the trace in which it was opened, if there is one

	conn weak.Pointer[keepalive.Conn]
}

// Info returns what the kernel knows of a flow's connection. The error is an
// error if it has none, or does not tell.
func (f Flow) Info() (keepalive.Info, error) {
	if c := f.conn.Value(); c != nil {
		return c.Info()
	}
	return keepalive.Info{}, net.ErrClosed
}

// Flows returns a copy of every flow that holds a port, in no order.
func (l *Ledger) Flows() []Flow {
	if !l.Used() || l.init() != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.expireLocked(now)
	var flows []Flow
	for _, a := range l.accounts {
		for f := a.live.head; f != nil; f = f.next {
			flows = append(flows, f.describe(now))
		}
	}
	for i := range l.cool {
		for f := l.cool[i].head; f != nil; f = f.next {
			flows = append(flows, Flow{Local: f.local, Remote: f.remote, Host: f.host, State: Cooling, How: f.how, Free: f.release.Sub(now)})
		}
	}
	return flows
}

// A Wait is one dial that waits for a port, at one moment.
type Wait struct {
	Host  string        // as it was asked for, with its port
	For   time.Duration // how long it has waited
	Keys  []netpath.Key // the accounts that it waits in: it takes the first port that comes free
	Owned bool          // by one of natwise's pools, where requests wait for it
}

// Waits returns a copy of every dial that waits for a port, in no order.
func (l *Ledger) Waits() []Wait {
	if !l.Used() || l.init() != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	seen := make(map[*waiter]bool)
	var waits []Wait
	for a := range l.crowded {
		for _, w := range l.waitersLocked(a) {
			if seen[w] {
				continue
			}
			seen[w] = true
			wait := Wait{Host: w.address, For: now.Sub(w.since), Owned: !w.itself}
			for _, c := range w.claims {
				wait.Keys = append(wait.Keys, c.account.key)
			}
			waits = append(waits, wait)
		}
	}
	return waits
}

func (f *flow) describe(now time.Time) Flow {
	d := Flow{Local: f.local, Remote: f.remote, Host: f.host, State: f.state(), conn: f.conn}
	if k := f.keeper; k != nil {
		d.Age, d.Uses, d.Serves = now.Sub(k.born), k.uses.Load(), int(k.serves.Load())
		if d.Serves == 0 && d.Uses > 0 && d.State == Active {
			d.Serves = 1
		}
		if at := k.target.setup.Context(); at.IsValid() {
			d.Trace = at.TraceID().String()
		}
	}
	return d
}

func (f *flow) state() State {
	switch f.stage {
	case asked:
		return Asked
	case dialing:
		return Dialing
	case cooling:
		return Cooling
	}
	c := f.conn.Value()
	if c == nil || c.Closed() {
		return Closing
	}
	if _, parked := c.Parked(); parked {
		return Idle
	}
	return Active
}
