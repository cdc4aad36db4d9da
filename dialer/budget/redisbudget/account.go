package redisbudget

import (
	"math"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// An account is what this instance holds to one destination, and its lease. All of it is
// guarded by the Budget's mutex.
type account struct {
	budget *Budget
	key    netpath.Key

	held   int // grants that are out
	called int // of those: grants that were called back

	leased   int      // beyond the floor, until the deadline
	deadline deadline // of the lease, or of the hope for one
	lost     bool     // the deadline has passed, and Redis does not answer
	answered time.Time

	// What is asked for next.
	short        bool          // the last answer was less than was asked for
	refused      bool          // a Take has failed since the last answer
	eager        int           // so many grants make it ask ahead of need
	ahead        bool          // they were reached
	extra        int           // how many more a refusal makes it ask for; doubles while that is too few
	peak, before int           // most held beyond the floor since the last turn, and in the one before
	turned       time.Time     // when
	due          time.Time     // the next renewal
	soon         time.Time     // when to ask instead if a Take is refused
	pause        time.Duration // until then; doubles while nothing comes

	quarantined int // of all instances, by the last answer
}

// A deadline has passed when either clock says so. The monotonic one stands still while a
// machine is suspended; the wall's may be set back.
type deadline struct{ monotonic, wall time.Time }

func deadlineAt(t time.Time) deadline { return deadline{t, t.Round(0)} }

func (d deadline) passed(now time.Time) bool {
	return !now.Before(d.monotonic) || !now.Round(0).Before(d.wall)
}

func (b *Budget) openLocked(key netpath.Key) *account {
	a := &account{budget: b, key: key, eager: math.MaxInt}
	if b.accounts == nil {
		b.accounts = make(map[netpath.Key]*account)
	}
	b.accounts[key] = a
	return a
}

// forgetLocked drops an account with nothing in it.
func (a *account) forgetLocked() {
	b := a.budget
	if _, hot := b.hot[a]; hot || a.held > 0 {
		return
	}
	delete(b.accounts, a.key)
	if len(b.accounts) == 0 {
		b.accounts = nil // a map keeps the memory of its largest day
	}
}

// roomLocked reads no clock below the floor.
func (a *account) roomLocked() bool {
	b := a.budget
	if a.held < a.sureLocked() {
		return true
	}
	return a.held < b.floor+a.leased && !a.deadline.passed(time.Now())
}

// sureLocked is how many grants take no lease.
func (a *account) sureLocked() int {
	if a.budget.lost {
		switch a.budget.cfg.Fail {
		case FailOpen:
			return a.budget.cfg.Ports
		case FailClosed:
			return 0
		}
	}
	return a.budget.floor
}

// beyondLocked is how many grants are out that take a lease.
func (a *account) beyondLocked() int { return max(0, a.held-a.budget.floor) }

func (a *account) grantLocked() *grant {
	const slab = 64 // one allocation for so many
	b := a.budget
	if len(b.spare) == 0 {
		b.spare = make([]grant, slab)
	}
	g := &b.spare[0]
	b.spare = b.spare[1:]
	g.account = a
	a.held++
	a.peak = max(a.peak, a.held-b.floor)
	if a.held >= a.eager {
		a.eager = math.MaxInt
		a.ahead = true
		b.wakeLocked(a)
	}
	return g
}

func (a *account) refuseLocked() {
	b := a.budget
	if a.refused || b.closed || b.pool == 0 {
		return
	}
	a.refused = true
	b.wakeLocked(a)
}

// recallLocked is how many grants more are to be called back.
func (a *account) recallLocked() int {
	return a.held - a.called - max(a.sureLocked(), a.budget.floor+a.leased)
}

func (a *account) reportLocked(r *budget.Report, now time.Time) {
	r.Held += a.held
	r.Quarantined += a.quarantined
	b := a.budget
	may := a.sureLocked()
	if !a.deadline.passed(now) {
		r.Leased += a.leased
		may = max(may, b.floor+a.leased)
	}
	if !b.lost && !a.short && !now.Before(b.learning) { // what is asked for comes in milliseconds
		may = max(may, b.floor+b.pool)
	}
	if !b.closed {
		r.Room += max(0, may-a.held)
	}
	if !a.answered.IsZero() {
		r.Age = max(r.Age, now.Sub(a.answered))
	}
}

// A grant is the permission to hold one port. Its account's mutex guards it.
type grant struct {
	account  *account
	released bool
	called   bool // back; it stays so
}

var _ budget.Grant = (*grant)(nil)

func (g *grant) Release() {
	a := g.account
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.released {
		return
	}
	g.released = true
	a.held--
	if g.called {
		a.called--
	}
	a.forgetLocked()
	if b.refused {
		b.tellLocked()
	}
}

func (g *grant) Revoked() bool {
	a := g.account
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.released || g.called {
		return g.called
	}
	if a.recallLocked() > 0 {
		g.called = true
		a.called++
	}
	return g.called
}
