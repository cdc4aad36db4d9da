package fauxnat

import (
	"container/heap"
	"io"
	"net/netip"
	"syscall"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// An account is what the flows of one key hold. Its fields belong to nat.mu.
type account struct {
	limit int // zero or less: none
	Counts
}

// A flow is a line of the table. Its fields belong to nat.mu.
type flow struct {
	nat      *NAT
	src, dst netip.AddrPort
	ports    []*account // that it holds until it is gone; the total is one
	sockets  []*account // that it holds while our socket is open
	state    state
	conn     *conn // nil until it is live

	last      time.Time // last sign of life, while live
	probed    bool      // keepalive probes break its silence
	asked     bool      // the last byte was the client's
	forgotten bool      // it was silent for too long
	timer     *time.Timer

	due   time.Time // closing: when its port is free. Live: when to look again
	index int       // in nat.schedule; -1: not there
}

// A state is where a flow is in its life.
type state uint8

const (
	dialing state = iota // its SYN has passed
	live                 // established, until it ends or is forgotten
	closing              // its port is held
	gone                 // so is the line of the table
)

// bookLocked books f as live in its accounts, or counts a refusal in those
// that are full.
func (n *NAT) bookLocked(f *flow, accounts []*account) bool {
	full := false
	for _, a := range accounts {
		if a.limit > 0 && a.Held >= a.limit {
			a.RefusedSYNs++
			full = true
		}
	}
	if full {
		n.total.RefusedSYNs++
		return false
	}
	for _, a := range accounts {
		a.Opened++
		a.Live++
		a.Held++
		a.Peak = max(a.Peak, a.Held)
	}
	n.flows[f] = struct{}{}
	return true
}

// liveLocked begins a flow's life, or its life after it was forgotten.
func (n *NAT) liveLocked(f *flow) {
	f.state = live
	f.forgotten = false
	f.conn.strayLocked(f.conn.dark)
	f.last = time.Now()
	if n.path.Idle == netpath.None {
		return
	}
	f.due = f.last.Add(n.path.Idle)
	n.scheduleLocked(f)
	// Whoever looks at a silent flow finds out that it was forgotten. Only what
	// happens to it unasked needs a timer.
	if n.path.AtIdle == netpath.ResetBoth || n.path.AtIdle == netpath.Close {
		f.timer = time.AfterFunc(n.path.Idle, f.silent)
	}
}

// resumeLocked brings a forgotten flow back to life, if the path does that and
// has room for it.
func (n *NAT) resumeLocked(f *flow) bool {
	if !n.path.Resumes {
		return false
	}
	if f.state == closing {
		for _, a := range f.ports {
			a.Live++
		}
	} else if !n.bookLocked(f, f.ports) {
		return false
	}
	n.liveLocked(f)
	f.conn.cond.Broadcast()
	return true
}

// endLocked begins a live flow's hold, in effect since at.
func (n *NAT) endLocked(f *flow, at time.Time, hold time.Duration) {
	if f.state > live {
		return // nothing shortens a hold
	}
	for _, a := range f.ports {
		a.Live--
	}
	f.state = closing
	f.due = at.Add(max(0, hold))
	n.scheduleLocked(f)
}

// closeSocketLocked books that the client's socket is closed.
func (n *NAT) closeSocketLocked(f *flow) {
	for _, a := range f.sockets {
		a.Live--
		a.Held--
	}
	f.sockets = nil
	if f.timer != nil {
		f.timer.Stop()
	}
}

// expireLocked brings the table up to date and returns the time. Whoever takes
// the mutex calls it first, so that no timer has to.
func (n *NAT) expireLocked() time.Time {
	now := time.Now()
	for len(n.schedule) > 0 && !n.schedule[0].due.After(now) {
		f := n.schedule[0]
		if f.state == closing {
			n.freeLocked(f)
			continue
		}
		if f.probed {
			f.last = now
		}
		f.due = f.last.Add(n.path.Idle)
		if f.due.After(now) {
			heap.Fix(&n.schedule, f.index)
			continue
		}
		n.forgetLocked(f)
	}
	return now
}

func (n *NAT) freeLocked(f *flow) {
	for _, a := range f.ports {
		a.Held--
	}
	f.state = gone
	delete(n.flows, f)
	heap.Remove(&n.schedule, f.index)
}

func (n *NAT) forgetLocked(f *flow) {
	f.forgotten = true
	f.conn.strayLocked(n.path.AtIdle == netpath.Drop || n.path.AtIdle == netpath.ResetNext)
	switch n.path.AtIdle {
	case netpath.ResetBoth:
		f.conn.dead = syscall.ECONNRESET
	case netpath.Close:
		f.conn.dead = io.EOF
	}
	f.conn.cond.Broadcast()
	n.endLocked(f, f.due, n.path.Hold.Idle)
}

// silent runs when a flow may have been silent for too long, on a path that
// ends it then.
func (f *flow) silent() {
	f.nat.mu.Lock()
	f.nat.expireLocked()
	if f.state == live {
		f.timer.Reset(time.Until(f.due))
	}
	end := f.forgotten && !f.conn.closed
	f.nat.mu.Unlock()
	if end {
		f.conn.kill(f.nat.path.AtIdle == netpath.ResetBoth)
	}
}

// untilLocked is when time will change f; zero: never, or nobody knows.
func (n *NAT) untilLocked(f *flow) time.Time {
	switch {
	case f.state == closing:
		return f.due
	case f.state == live && !f.probed && n.path.Idle != netpath.None:
		return f.last.Add(n.path.Idle)
	}
	return time.Time{}
}

func (n *NAT) scheduleLocked(f *flow) {
	if f.index < 0 {
		heap.Push(&n.schedule, f)
	} else {
		heap.Fix(&n.schedule, f.index)
	}
}

// A schedule is a heap of flows, the soonest due first.
type schedule []*flow

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *schedule) Push(f any) {
	f.(*flow).index = len(*s)
	*s = append(*s, f.(*flow))
}

func (s *schedule) Pop() any {
	last := len(*s) - 1
	f := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	f.index = -1
	return f
}
