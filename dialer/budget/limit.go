package budget

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A Limit allows each account the same number of flows in this process. PerKey
// makes one; the zero Limit allows nothing until SetLimit. It may be used by
// many goroutines.
type Limit struct {
	mu     sync.Mutex // guards the fields below
	n      int
	held   map[netpath.Key]int
	denied bool // a Take has failed since the last signal
	notify []chan<- struct{}
}

var _ Budget = (*Limit)(nil)

// PerKey returns a Limit of n flows for each account. It panics if n is
// negative.
func PerKey(n int) *Limit {
	l := new(Limit)
	l.SetLimit(n)
	return l
}

// SetLimit moves the limit. Grants beyond a lower one are not taken back. It
// panics if n is negative.
func (l *Limit) SetLimit(n int) {
	if n < 0 {
		panic(fmt.Sprintf("budget: limit is %d, want 0 or more", n))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n = n
	l.signalLocked()
}

// Take returns a grant while fewer than the limit are out.
func (l *Limit) Take(key netpath.Key) (Grant, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[key] >= l.n {
		l.denied = true
		return nil, false
	}
	if l.held == nil {
		l.held = make(map[netpath.Key]int)
	}
	l.held[key]++
	return &grant{limit: l, key: key}, true
}

// Notify makes l tell c of room.
func (l *Limit) Notify(c chan<- struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notify = append(l.notify, c)
}

func (l *Limit) release(key netpath.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[key]--; l.held[key] == 0 {
		delete(l.held, key)
	}
	if len(l.held) == 0 {
		l.held = nil // a map keeps the memory of its largest day
	}
	l.signalLocked()
}

func (l *Limit) signalLocked() {
	if !l.denied {
		return
	}
	l.denied = false
	for _, c := range l.notify {
		select {
		case c <- struct{}{}:
		default: // told already, and has not looked yet
		}
	}
}

type grant struct {
	limit    *Limit
	key      netpath.Key
	released atomic.Bool
}

func (g *grant) Release() {
	if g.released.CompareAndSwap(false, true) {
		g.limit.release(g.key)
	}
}

func (g *grant) Revoked() bool { return false }
