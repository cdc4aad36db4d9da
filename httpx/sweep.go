package httpx

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/pool"
)

const (
	// sweepEvery is how often names are looked up again, less up to a quarter.
	sweepEvery = time.Minute

	// missingFor is in how many look-ups in a row that agree an address must be missing
	// before its connections go.
	missingFor = 3
)

// errMoved says that the name does not lead to the connection's address any more.
var errMoved = errors.New("httpx: its address is no longer in the record of its name")

// A sweeper looks, while there are connections, after those that nobody uses. The zero
// sweeper is at rest.
type sweeper struct {
	mu      sync.Mutex  // guards the fields below
	timer   *time.Timer // of the next sweep, or of the one under way; nil: at rest
	stopped bool
	end     context.CancelFunc // of the sweep under way
	records map[route]string   // what names led to at the last look-up
}

// wake has the stock be swept from time to time.
func (s *stock) wake() {
	w := &s.sweeper
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil && !w.stopped {
		w.timer = time.AfterFunc(sweepEvery-rand.N(sweepEvery/4), s.sweep)
	}
}

func (w *sweeper) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.end != nil {
		w.end()
	}
}

// sweep retires connections that lead to where their name does not lead any more, or on
// which the server takes no more requests. When none is left it rests.
func (s *stock) sweep() {
	ctx, ok := s.sweeper.begin()
	if !ok {
		return
	}
	s.group.Retire(errSpent, (*conn).spent)
	for r, p := range s.group.Pools() {
		if !s.drain(ctx, r, p) {
			break // nobody can tell: the next one would take as long
		}
	}
	s.sweeper.rest()
	for range s.group.Pools() { // only now: a connection that was opened meanwhile has woken nobody
		s.wake()
		break
	}
}

// begin returns the context of a sweep, unless there are to be none any more.
func (w *sweeper) begin() (ctx context.Context, ok bool) {
	ctx, end := context.WithCancel(context.Background())
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		end()
		return nil, false
	}
	w.end = end
	return ctx, true
}

// rest ends the sweep under way, so that the next one can be planned.
func (w *sweeper) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
	w.timer, w.end = nil, nil
}

// drain retires the connections on r whose address is in the record no more. It reports
// whether names can be looked up.
func (s *stock) drain(ctx context.Context, r route, p *pool.Pool[*conn]) bool {
	address, ok := r.name()
	if !ok {
		return true
	}
	addrs, err := s.dialer.Remotes(ctx, "tcp", address)
	if err != nil {
		return errors.As(err, new(*net.DNSError)) && !errors.Is(err, context.DeadlineExceeded)
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare) // servers turn them round
	same := s.sweeper.recall(r, fmt.Sprint(addrs))
	p.Retire(errMoved, func(c *conn) bool {
		remote, err := netip.ParseAddrPort(c.flow.RemoteAddr().String())
		if err != nil || !same || slices.Contains(addrs, netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())) {
			c.missing.Store(0)
			return false
		}
		return c.missing.Add(1) >= missingFor
	})
	return true
}

// recall remembers the record of r, and reports whether it is the same as last time. One
// that varies tells some of many addresses at a time, and says nothing of the others.
func (w *sweeper) recall(r route, record string) (same bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.records == nil || len(w.records) >= maxCarries {
		w.records = make(map[route]string)
	}
	was := w.records[r]
	w.records[r] = record
	return was == record
}

// name returns what r dials, if that has a name that is looked up: an address leads where it
// does, even if a connection's other end has another one (of 0.0.0.0, 127.0.0.1).
func (r route) name() (address string, ok bool) {
	address, err := r.dials()
	if err != nil {
		return "", false
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", false
	}
	_, err = netip.ParseAddr(host)
	return address, err != nil
}
