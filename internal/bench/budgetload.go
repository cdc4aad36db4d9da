package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	plenty = 128 // ports, for all who want some
	scarce = 8   // and too few

	inMemory  = 800 // batches in a turn, some milliseconds
	bySocket  = 8
	batch     = 64                     // Takes: as many grants as Host, and redisbudget, allocate at a time
	crowdTurn = 100 * time.Millisecond // among other processes: each of them runs several times
	leastIn   = 100                    // grants in such a turn, however long they take
	mostIn    = 1 << 19
)

// grantKey is the account that all want ports of.
var grantKey = netpath.Key{Dest: netip.MustParseAddrPort("192.0.2.1:443"), Network: "tcp"}

var errNoGrant = errors.New("no grant where there is room")

// A grantSource is a budget, and how many batches of Takes make a turn.
type grantSource struct {
	budget.Budget
	batches int
}

// perKey is a budget that is not shared. Some ports are held, so that the account lasts.
func perKey(held int) grantSource {
	b := budget.PerKey(plenty)
	for range held {
		b.Take(grantKey)
	}
	return grantSource{b, inMemory}
}

// cycle takes and releases n times.
func (s grantSource) cycle(n int) error {
	for range n {
		g, ok := s.Take(grantKey)
		if !ok {
			return errNoGrant
		}
		g.Release()
	}
	return nil
}

// cost is the time of one in nanoseconds: the median of a turn's batches, most of which are
// over before the scheduler has this process wait for another.
func (s grantSource) cost() (float64, error) {
	var all []float64
	var err error
	for range s.batches {
		all = append(all, nanosOf(func(n int) { err = s.cycle(n) }, batch))
		if err != nil {
			return 0, err
		}
	}
	return work.Median(all), nil
}

func (s grantSource) allocs() float64 {
	return allocsOf(func(n int) { s.cycle(n) }, s.batches*batch)
}

// ratioTo says which way a ratio is easier to read: a daemon is so many times slower.
func (s grantSource) ratioTo(peer grantSource) string {
	if s.batches > peer.batches {
		return peerToOurs
	}
	return oursToPeer
}

// inTurns measures both in pairs, which take turns in who begins.
func inTurns[T any](pairs int, ours, peer func() (T, error)) (mine, theirs []T, err error) {
	both, found := [2]func() (T, error){ours, peer}, [2][]T{}
	for pair := range pairs {
		for turn := range both {
			i := (pair + turn) % 2
			one, err := both[i]()
			if err != nil {
				return nil, nil, err
			}
			found[i] = append(found[i], one)
		}
	}
	return found[0], found[1], nil
}

// A singles is what came of a turn in which each Take with its Release was timed by itself, in
// nanoseconds.
type singles struct {
	median, p99      float64
	granted, refused int
}

func figures(turns []singles, of func(singles) float64) (all []float64) {
	for _, t := range turns {
		all = append(all, of(t))
	}
	return all
}

func percentRefused(turns []singles) float64 {
	granted, refused := 0, 0
	for _, t := range turns {
		granted += t.granted
		refused += t.refused
	}
	return 100 * float64(refused) / float64(granted+refused)
}

// time takes and releases for a while, and asks again at once where it is refused. The clock
// is read once for each: its own time is in the figures, ours and the peer's.
func (s grantSource) time(room []time.Duration) (singles, error) {
	took, refused := room[:0], 0
	begin := time.Now()
	for at := time.Duration(0); (at < crowdTurn || len(took) < leastIn) && len(took) < cap(took); {
		g, ok := s.Take(grantKey)
		if ok {
			g.Release()
		}
		now := time.Since(begin)
		if ok {
			took = append(took, now-at)
		} else {
			refused++
		}
		if at = now; at > stuck {
			return singles{}, fmt.Errorf("%d grants in %v, and %d refused", len(took), at, refused)
		}
	}
	slices.Sort(took)
	return singles{
		median:  float64(work.Percentile(took, 0.5)),
		p99:     float64(work.Percentile(took, 0.99)),
		granted: len(took), refused: refused,
	}, nil
}
