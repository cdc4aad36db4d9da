package budget

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// An Engine is a Budget that several processes share. What is asked of a Budget is asked
// of its methods too.
type Engine interface {
	Budget

	// Reports tells how the engine stands with one account, or with all of them together
	// where key is zero. There are several reports where several engines were joined by All.
	Reports(key netpath.Key) []Report

	// SetHold says for how long the NAT may keep the port of a flow whose process is gone:
	// until then nobody else is to have it. A Ledger says so, from its Path, before its
	// first Take; the longest that was said counts.
	SetHold(d time.Duration)
}

// A Report tells how an Engine stands. Ports are counted for one account, or added up over
// all accounts that this process has asked for.
type Report struct {
	Engine string // "host" or "redis"

	Sharers int // processes or instances that share, this one included, as far as is known
	Limit   int // ports of all sharers together to one account

	Floor       int // that this process may hold without asking anybody
	Leased      int // beyond the floor: lent by the others until they want it, or for a time
	Held        int // by this process, those that the NAT still holds for it included
	Room        int // that it may be granted beyond those, by what is known now
	Quarantined int // left by processes that are gone, and not free before the NAT's hold is over

	// Age is how long ago the last answer came that Leased rests on. Zero: there is no
	// server to ask.
	Age time.Duration

	// Degraded says why this process does not get more than its floor, or "".
	Degraded string

	// Remembers reports whether the engine knows what earlier processes have left in the
	// NAT. If so, a new one need not begin slowly (Ledger.Ramp).
	Remembers bool

	// Since the engine was made: answers that came, and calls that failed.
	Renewals, Failures uint64
}

// String says who shares, and how many ports are whose: "shared by host with 7 others: 20 held
// of 128, floor 16, 4 leased".
func (r Report) String() string {
	others := "others"
	if r.Sharers == 2 {
		others = "other"
	}
	s := fmt.Sprintf("shared by %s with %d %s: %d held of %d, floor %d", r.Engine, max(0, r.Sharers-1), others, r.Held, r.Limit, r.Floor)
	if r.Leased > 0 {
		s += fmt.Sprintf(", %d leased", r.Leased)
	}
	if r.Quarantined > 0 {
		s += fmt.Sprintf(", %d kept for processes that are gone", r.Quarantined)
	}
	if r.Degraded != "" {
		s += ", degraded: " + r.Degraded
	}
	return s
}
