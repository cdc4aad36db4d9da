package main

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/sqlx"
)

const (
	inTime = 250 * time.Millisecond // later is not well
	calm   = time.Second            // for so long all has to be well before the end, or it is not known when it was
)

// A stream is queries that come whether others are answered or not.
type stream struct {
	*client

	// The accident, its end, and the end of all.
	struck, mended, over mark

	mu    sync.Mutex // guards asked
	asked []asked
}

// A mark is a time, and how many connections were dialed until then.
type mark struct {
	at    time.Time
	dials int
}

// An asked is one query.
type asked struct {
	due, over time.Time
	late      time.Duration // later than it had to be
	err       error
}

// flow asks at the rate and returns when all is answered.
func (s *stream) flow(begin time.Time, lasts time.Duration) {
	var all sync.WaitGroup
	for at := time.Duration(0); at < lasts; at += rate {
		due := begin.Add(at)
		until(context.Background(), due)
		all.Go(func() { s.askAt(due) })
	}
	all.Wait()
}

// askAt asks what is no harm to ask twice, which only ours can be told.
func (s *stream) askAt(due time.Time) {
	ctx, cancel := context.WithDeadline(sqlx.Idempotent(context.Background()), due.Add(impatience))
	defer cancel()
	err := s.ask(ctx, takes)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, asked{due, now, now.Sub(due) - takes, err})
}

// late returns how late those queries were that were over after the accident.
func (s *stream) late() (l lateness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		switch {
		case a.over.Before(s.struck.at):
		case a.err != nil:
			l.failed++
			l.causes.Add(a.err)
		default:
			l.late = append(l.late, a.late)
		}
	}
	slices.Sort(l.late)
	return l
}

// recovery is how long after the accident the last query was over that failed or came
// late.
func (s *stream) recovery() work.Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	struck := s.struck.at
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
		return work.MoreThan(last.Sub(struck))
	}
	return work.Seconds(bad.Sub(struck))
}

// A lateness is how late queries were. Those that have failed are later than all.
type lateness struct {
	late   []time.Duration // sorted
	failed int
	causes work.Causes
}

func (l lateness) all() int { return len(l.late) + l.failed }

// quantile returns the lateness that q of the queries do not exceed.
func (l lateness) quantile(q float64) work.Reading {
	i := max(1, int(math.Ceil(q*float64(l.all())))) - 1
	if i < len(l.late) {
		return work.Seconds(l.late[i])
	}
	return work.MoreThan(impatience)
}
