package telemetry

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// bounds are those of the buckets of waits: the half powers of two of a tenth of a
// millisecond, up to 6.5 s. What took longer has a bucket of its own.
var bounds = func() (b [33]time.Duration) {
	for i := range b {
		b[i] = 100 * time.Microsecond << (i / 2)
		if i%2 == 1 {
			b[i] = b[i] * 1414 / 1000
		}
	}
	return b
}()

// waits count how long waits were.
type waits struct {
	total [len(bounds) + 1]atomic.Uint64

	mu    sync.Mutex                 // guards the fields below
	at    [2]time.Time               // when these were noted:
	noted [2][len(bounds) + 1]uint64 // what total was, once a minute
}

func (w *waits) add(took time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], took)
	w.total[i].Add(1)
}

// Waits are how long requests waited for a connection to one name, of those that did
// wait, within the last minute or two if somebody has looked meanwhile.
type Waits struct {
	Count    uint64
	P50, P99 time.Duration // to the next half power of two
}

// recent returns the waits since the minute before the present one began.
func (w *waits) recent(now time.Time) (r Waits) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var since [len(bounds) + 1]uint64
	for i := range since {
		since[i] = w.total[i].Load()
	}
	if now.Sub(w.at[1]) >= time.Minute {
		w.at[0], w.noted[0] = w.at[1], w.noted[1]
		w.at[1], w.noted[1] = now, since
	}
	for i := range since {
		since[i] -= w.noted[0][i]
		r.Count += since[i]
	}
	r.P50, r.P99 = quantile(since[:], r.Count, 50), quantile(since[:], r.Count, 99)
	return r
}

// quantile returns what so many percent of the counts are no longer than.
func quantile(counts []uint64, total, percent uint64) time.Duration {
	left := (total*percent + 99) / 100
	for i, n := range counts {
		if n >= left && total > 0 {
			return bounds[min(i, len(bounds)-1)]
		}
		left -= n
	}
	return 0
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
