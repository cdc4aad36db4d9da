package dialer

import (
	"container/list"
	"fmt"
	"strings"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// An Account is what the ledger knows of the flows that a NAT counts together,
// at one moment. It is a copy: keep it, print it.
type Account struct {
	Key   netpath.Key
	Limit int           // this process's part, or netpath.None
	Grade netpath.Grade // of Limit: Path's own, or netpath.Learned, from dials that found no port

	// Each flow is in one of these states, and each takes up one port.
	Asked   int                 // permission given, no SYN sent yet
	Dialing int                 // SYN sent, no answer yet
	Active  int                 // in use
	Idle    int                 // parked
	Closing int                 // closed by us, the last FIN is on its way
	Cooling [keepalive.Hows]int // ended in this way, the NAT still holds the port

	// Kept is how many free ports are kept back: for control connections and newcomers,
	// because a fresh ledger does not know what is left in the NAT (Ledger.Ramp), or since the
	// Budget has refused them.
	Kept int

	Waiting    int           // dials that wait for a port
	OldestWait time.Duration // how long the first of them has waited
	NextFree   time.Duration // until the next cooling port comes free; 0: none is cooling

	// Forgets is the silence after which the path forgets a flow, or netpath.None. Learned:
	// that is from flows of this process, and not what Path says.
	Forgets time.Duration
	Learned bool

	// Shared is how the account stands with the Budget, if that is a budget.Engine.
	Shared []budget.Report

	// Since the account was last empty.
	Opened    uint64 // flows that connected
	Failed    uint64 // dials that did not
	Reclaimed uint64 // parked flows ended for somebody who waited

	// Exceeded is how many grants there ever were beyond the limit, in Shadow only: up to 256
	// accounts that had some are not forgotten when they are empty.
	Exceeded uint64
}

// Taken is how many ports the account holds.
func (a Account) Taken() int {
	n := a.Asked + a.Dialing + a.Active + a.Idle + a.Closing
	for _, c := range a.Cooling {
		n += c
	}
	return n
}

// String says who holds the ports: "tcp 20.1.2.3:443: 128 of 128 ports taken
// (3 active, 1 idle, 124 cooling, next free in 12s), 7 waiting".
func (a Account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %d ", a.Key, a.Taken())
	if a.Limit != netpath.None {
		fmt.Fprintf(&b, "of %d ", a.Limit)
	}
	b.WriteString("ports taken")
	kept := a.Kept
	if a.Waiting == 0 {
		kept = 0 // nobody asks
	}
	cooling := a.Taken() - a.Asked - a.Dialing - a.Active - a.Idle - a.Closing
	var parts []string
	if a.Limit != netpath.None && a.Grade == netpath.Learned {
		parts = append(parts, "a learned limit")
	}
	for _, p := range []struct {
		n    int
		what string
	}{
		{a.Asked + a.Dialing, "dialing"}, {a.Active, "active"}, {a.Idle, "idle"},
		{a.Closing, "closing"}, {cooling, "cooling"}, {kept, "kept back"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if cooling > 0 {
		parts = append(parts, "next free in "+a.NextFree.Round(time.Millisecond).String())
	}
	if len(parts) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(parts, ", "))
	}
	if a.Waiting > 0 {
		fmt.Fprintf(&b, ", %d waiting", a.Waiting)
	}
	for _, r := range a.Shared {
		fmt.Fprintf(&b, ", %v", r)
	}
	return b.String()
}

const (
	// maxDialing is how many dials of an account with a limit may be under way
	// at once, so that ports are not spent on SYNs that nobody answers, and
	// whoever asks next is chosen as late as possible.
	maxDialing = 16

	// smallAccount is too small to keep ports back for newcomers.
	smallAccount = 16
)

// An account is the ledger's own record. Everything in it is guarded by
// Ledger.mu.
type account struct {
	key   netpath.Key
	limit int

	total   int // flows of all states
	asked   int
	dialing int
	cooling [keepalive.Hows]int

	shares  []*share // who holds or wants a flow here
	waiting int      // claims in all shares
	live    flowList // asked to closing, where this account is the flow's first
	failing *failing // dials to this address fail; nil: they do not
	lesson  *lesson  // what limit was learned from; nil: it is what Path says
	most    int      // flows that it held when a dial was answered
	tight   bool     // the Budget has refused the last flow that was asked for

	reclaiming int       // flows ended for somebody who waited, their ports not free yet
	reclaimAt  time.Time // when to look for the next; zero: not before something happens

	opened, failed, reclaimed, exceeded uint64
	remembered                          bool // for what it has exceeded, when it is empty
}

// An owner is whom a flow belongs to, for fairness: by default a Dialer and a
// host name.
type owner struct {
	by   any
	host string
}

// A share is one owner's part of an account.
type share struct {
	owner      owner
	flows      int
	reclaiming int       // of flows
	claims     list.List // of *claim, longest wait first
}

func (a *account) share(o owner) *share {
	for _, s := range a.shares {
		if s.owner == o {
			return s
		}
	}
	return nil
}

// closeShare forgets s if nothing is in it.
func (a *account) closeShare(s *share) (closed bool) {
	if s.flows > 0 || s.claims.Len() > 0 {
		return false
	}
	for i, other := range a.shares {
		if other == s {
			last := len(a.shares) - 1
			a.shares[i] = a.shares[last]
			a.shares[last] = nil
			a.shares = a.shares[:last]
			return true
		}
	}
	return false
}

// reserve is how many ports of a limit are kept for control connections and for
// owners that hold none yet.
func reserve(limit, owners int) int {
	switch {
	case limit < smallAccount:
		return 0
	case owners < 2:
		return 1
	}
	return max(1, limit/20)
}

func (a *account) reserve() int { return reserve(a.limit, len(a.shares)) }

// full reports whether an owner with that many flows may not have another.
func (a *account) full(limit, flows int, control bool) bool {
	if a.limit == netpath.None {
		return false
	}
	if a.asked+a.dialing >= maxDialing {
		return true
	}
	if control || flows == 0 {
		return a.counted() >= limit
	}
	return a.counted() >= limit-a.reserve()
}

// counted is how many flows count for the limit: by one that was learned, only those that were
// answered, or may be yet. By others do the NAT's ports.
func (a *account) counted() int {
	if a.lesson != nil {
		return a.total - a.cooling[keepalive.Unanswered]
	}
	return a.total
}

// left is how many ports may be taken yet.
func (a *account) left() int {
	if a.limit == netpath.None {
		return unlimited
	}
	return a.limit - a.counted()
}

// scarce reports whether a port that comes free soon is worth something.
func (a *account) scarce() bool {
	return a.tight || a.limit != netpath.None && (a.waiting > 0 || a.total*5 >= a.limit*4)
}

// empty reports whether the account can be forgotten.
func (a *account) empty() bool {
	return a.total == 0 && a.waiting == 0 && a.failing == nil
}
