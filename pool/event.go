package pool

import (
	"context"
	"time"
)

// A Reason is why a value was closed. It is also the cause that Close is told
// where nobody gave another one.
type Reason uint8

const (
	Discarded Reason = iota // by who had it
	Idled                   // idle for MaxIdle or IdleFor
	Aged                    // as old as its MaxLife
	Failed                  // it did not pass a Check or a Beat
	Spent                   // its Capacity was zero or less, or Watch told its end
	Reclaimed               // for somebody else, who needs its room
	Purged                  // by Reset
	Retired                 // by Retire
	Shut                    // by the pool's Close

	Reasons // how many there are
)

var reasons = [Reasons]string{"discarded", "idled", "aged", "failed", "spent", "reclaimed", "purged", "retired", "shut"}

// String returns the reason as telemetry names it: "discarded".
func (r Reason) String() string {
	if r < Reasons {
		return reasons[r]
	}
	return "unknown"
}

func (r Reason) Error() string { return "pool: " + r.String() }

// An Event is something that has happened in a pool, told to Config.Observe.
type Event struct {
	Kind   EventKind
	Took   time.Duration // Waited: in Get. Opened, OpenFailed, Beaten: since it was begun. Closed: the value's age. Leaked: since it was taken
	Err    error         // Waited: in vain. OpenFailed. Closed: the cause. Beaten: in vain
	Reason Reason        // Closed

	Context context.Context // Waited: the Get's
	Ahead   int             // Waited: how many had come before, and were waiting
	Place   string          // Leaked: the function and line that took the lease
}

// EventKind is what an Event tells.
type EventKind uint8

const (
	Waited     EventKind = iota // a Get that found nothing idle
	Opened                      // a value is there
	OpenFailed                  // none is
	Closed                      // and its Close has returned
	Leaked                      // a lease is out for LeakAfter
	Beaten                      // an idle value was asked by Beat
)

var kinds = [...]string{"waited", "opened", "open failed", "closed", "leaked", "beaten"}

// String returns the kind as telemetry names it: "opened".
func (k EventKind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return "unknown"
}

func (p *Pool[T]) observe(e Event) {
	if p.cfg.Observe != nil {
		p.cfg.Observe(e)
	}
}

// Stats is what a pool knows of itself at one moment. It is a copy.
type Stats struct {
	// Values. Each is idle, leased, being opened or being closed; Max bounds Size.
	Size       int
	Idle       int // leased to nobody
	Asking     int // permission is being asked for
	Connecting int // being opened
	Closing    int // their Close has not returned

	InUse      int           // leases that are out; more than values where these are shared
	Waiting    int           // Gets that wait
	OldestWait time.Duration // of those that wait now

	Opened     uint64          // values
	OpenFailed uint64          // Ask or Open in vain
	Closed     [Reasons]uint64 // values, by Reason
	Reused     uint64          // leases of a value that somebody had before
	Waited     uint64          // Gets that found nothing idle, with those that wait now
	WaitTime   time.Duration   // of those that wait no more
}

// Stats returns the pool's figures now.
func (p *Pool[T]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.statsLocked()
}

func (p *Pool[T]) statsLocked() Stats {
	s := Stats{
		Size: p.size, Idle: p.idleLocked(), Connecting: p.connecting + p.overdue, Closing: p.closing,
		InUse: int(p.lent - p.ended), Waiting: p.waiters.len,
		Opened: p.opened, OpenFailed: p.openFailed, Closed: p.closed, Reused: p.lent - p.fresh,
		Waited: p.waited, WaitTime: time.Duration(p.waitTime.Load()),
	}
	if p.asking != nil {
		s.Asking = 1
	}
	if w := p.waiters.front(); w != nil {
		now := p.clock()
		s.OldestWait = now - w.sinceLocked(now)
	}
	return s
}
