package telemetry

import (
	"slices"
	"sync"
	"time"
)

// bounds are those of the buckets of waits: the half powers of two of a tenth of a
// millisecond, up to 105 s, since a request waits for 30 s by default. What took longer has a
// bucket of its own.
var bounds = func() (b [41]time.Duration) {
	for i := range b {
		b[i] = 100 * time.Microsecond << (i / 2)
		if i%2 == 1 {
			b[i] = b[i] * 1414 / 1000
		}
	}
	return b
}()

// waits count how long waits were, in this minute and in the one before.
type waits struct {
	mu     sync.Mutex // guards the fields below
	began  time.Time  // this minute
	counts [2]counted // this minute's, and those of the one before
}

type counted struct {
	in      [len(bounds) + 1]uint64
	longest time.Duration
}

func (w *waits) add(took time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], took)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turnLocked(time.Now())
	w.counts[0].in[i]++
	w.counts[0].longest = max(w.counts[0].longest, took)
}

// turnLocked begins a new minute if this one is over. Nobody else sees to it: a name on which
// nobody waits costs nothing.
func (w *waits) turnLocked(now time.Time) {
	switch old := now.Sub(w.began); {
	case old < time.Minute:
		return
	case old < 2*time.Minute:
		w.began, w.counts[1] = w.began.Add(time.Minute), w.counts[0]
	default:
		w.began, w.counts[1] = now, counted{}
	}
	w.counts[0] = counted{}
}

// Waits are how long requests waited for a connection to one name, of those that did
// wait, within the last minute or two.
type Waits struct {
	Count    uint64
	P50, P99 time.Duration // to the next half power of two, or the longest
}

// recent returns the waits since the minute before the present one began.
func (w *waits) recent(now time.Time) (r Waits) {
	w.mu.Lock()
	w.turnLocked(now)
	all, before := w.counts[0], &w.counts[1]
	for i, n := range before.in {
		all.in[i] += n
	}
	all.longest = max(all.longest, before.longest)
	w.mu.Unlock()
	for _, n := range all.in {
		r.Count += n
	}
	r.P50, r.P99 = all.quantile(r.Count, 50), all.quantile(r.Count, 99)
	return r
}

// quantile returns what so many percent of the waits are no longer than.
func (c *counted) quantile(total, percent uint64) time.Duration {
	left := (total*percent + 99) / 100
	for i, n := range c.in {
		if n >= left && i < len(bounds) {
			return min(bounds[i], c.longest)
		}
		left -= n
	}
	return c.longest
}

// Waits returns those of every name on which somebody has waited lately, by host:port.
func (s *Scope) Waits() map[string]Waits {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := make(map[string]Waits, len(s.names))
	for address, n := range s.names {
		if w := n.recent.recent(now); w.Count > 0 {
			all[address] = w
		}
	}
	return all
}
