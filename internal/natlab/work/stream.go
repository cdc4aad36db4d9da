package work

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
)

// A Stream is requests that come whether others are answered or not. It may be used by
// many goroutines; its fields do not change meanwhile.
type Stream struct {
	Every    time.Duration // between two
	Deadline time.Duration // of each, from when it is due

	mu    sync.Mutex // guards asked
	asked []asked
}

// An asked is one request.
type asked struct {
	due, over time.Time
	late      time.Duration // later than it had to be
	err       error
}

// Flow has each request sent when it is due, for so long, and returns when all are
// answered.
func (s *Stream) Flow(begin time.Time, lasts time.Duration, send func(due time.Time)) {
	var all sync.WaitGroup
	for at := time.Duration(0); at < lasts; at += s.Every {
		due := begin.Add(at)
		Until(context.Background(), due)
		all.Go(func() { send(due) })
	}
	all.Wait()
}

// Ask calls f, which sends the request that was due then and asks the other side to take
// some time.
func (s *Stream) Ask(due time.Time, takes time.Duration, f func(ctx context.Context) error) {
	ctx, cancel := context.WithDeadline(context.Background(), due.Add(s.Deadline))
	defer cancel()
	err := f(ctx)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, asked{due, now, now.Sub(due) - takes, err})
}

// Between returns how late those requests were that were over, answered or not, within
// that time. A zero end is never.
func (s *Stream) Between(begin, end time.Time) Lateness {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Lateness{deadline: s.Deadline}
	for _, a := range s.asked {
		switch {
		case a.over.Before(begin) || !end.IsZero() && a.over.After(end):
		case a.err != nil:
			l.Failed++
			l.Causes.Add(a.err)
		default:
			l.late = append(l.late, a.late)
		}
	}
	slices.Sort(l.late)
	return l
}

// Recovery is how long after an accident the last request was over that failed or was late
// by more than inTime. That is known if all was well for as long as calm before the end.
func (s *Stream) Recovery(struck time.Time, inTime, calm time.Duration) Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad, last := struck, struck
	for _, a := range s.asked {
		if last.Before(a.due) {
			last = a.due
		}
		if (a.err != nil || a.late > inTime) && bad.Before(a.over) {
			bad = a.over
		}
	}
	if bad.After(last.Add(-calm)) {
		return MoreThan(last.Sub(struck))
	}
	return Seconds(bad.Sub(struck))
}

// A Lateness is how late requests were. Those that have failed are later than all.
type Lateness struct {
	Failed int
	Causes Causes // of those

	late     []time.Duration // sorted
	deadline time.Duration
}

// All is how many requests there were.
func (l Lateness) All() int { return len(l.late) + l.Failed }

// Quantile returns the lateness that q of the requests do not exceed.
func (l Lateness) Quantile(q float64) Reading {
	i := max(1, int(math.Ceil(q*float64(l.All())))) - 1
	if i < len(l.late) {
		return Seconds(l.late[i])
	}
	return MoreThan(l.deadline)
}

// Over returns how many requests were later than d, or failed.
func (l Lateness) Over(d time.Duration) int {
	i, _ := slices.BinarySearch(l.late, d+1)
	return l.All() - i
}
