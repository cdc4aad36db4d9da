package dialer

import (
	"container/list"
	"net/netip"
	"time"
	"weak"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// maxKeys is how many accounts one flow can owe: one for each scope.
const maxKeys = 4

type stage uint8

const (
	asked stage = iota
	dialing
	open // active, parked or closing: the Conn knows
	cooling
)

// A flow is one port, from the permission to the end of its hold. Its fields
// are guarded by Ledger.mu.
type flow struct {
	at    [maxKeys]debt
	owes  int
	grant budget.Grant // nil without a Budget

	stage     stage
	trial     bool // the one dial to an address that fails
	control   bool
	sent      time.Time // the first SYN
	reclaimed bool
	how       keepalive.How // when cooling
	release   time.Time     // when cooling
	pressed   bool          // four fifths of a limit were taken with it
	conn      weak.Pointer[keepalive.Conn]
	keeper    *keeper        // while there is a connection
	host      string         // as it was asked for, with its port
	local     netip.AddrPort // zero until connected
	remote    netip.AddrPort

	prev, next *flow // in the account's live list, or in a cooling queue
}

// A debt is a flow's place in one account.
type debt struct {
	account *account
	share   *share
}

func (f *flow) debts() []debt { return f.at[:f.owes] }

// A flowList is a list of flows linked through themselves.
type flowList struct{ head, tail *flow }

func (l *flowList) push(f *flow) {
	f.prev, f.next = l.tail, nil
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *flowList) remove(f *flow) {
	if f.prev == nil {
		l.head = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.tail = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
}

// A waiter is one dial that waits for a port at any of its candidates.
type waiter struct {
	request
	claims []*claim
	ahead  int          // how many waited before it when it came
	ready  chan granted // capacity one: whoever grants never waits for whoever receives
}

// A request is what a dial asks of the ledger.
type request struct {
	owner      owner
	address    string // as it was asked for
	full       bool   // as target.full
	control    bool
	itself     bool        // nobody else counts the wait: those for whom a pool dials wait there
	patient    bool        // WithoutMaxWait
	since      time.Time   // it was asked for, whatever has become of it meanwhile
	candidates []candidate // best first
}

// A candidate is one way to the destination.
type candidate struct {
	src    netip.Addr // zero: the system chooses
	device string     // the interface to leave by; empty: the routes decide
	dst    netip.AddrPort

	owes []netpath.Key // the accounts of a flow there; none: exempt
}

type granted struct {
	flow *flow
	at   int // index of the candidate
	err  error
}

// A claim is a waiter's place in one account.
type claim struct {
	waiter  *waiter
	account *account
	share   *share
	place   *list.Element // in share.claims
}
