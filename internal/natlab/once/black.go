package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	rate     = 5 * time.Millisecond  // between two requests of a client
	most     = 95 * time.Millisecond // that the origin is asked to take
	parked   = 64
	parkTime = 200 * time.Millisecond // that each of those takes, so that all are there at once
	before   = 2 * time.Second
	after    = 10 * time.Second
	longer   = 60 * time.Second

	lateBound = 4.0 // s
)

// black is of one protocol what package main says of it.
func black(over string) func(r *work.Report) error {
	return func(r *work.Report) error {
		lasts := after
		if r.Full {
			lasts = longer
		}
		return blacken(r, over, lasts)
	}
}

func blacken(r *work.Report, over string, lasts time.Duration) (err error) {
	st, err := open(work.Path().Idle, []string{over}, ours, byDefault, tuned)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	var streams []*stream
	var all sync.WaitGroup
	for _, c := range st.clients {
		s := &stream{client: c}
		streams = append(streams, s)
		all.Go(func() { s.park(parked) })
	}
	all.Wait()
	begin := time.Now()
	for _, s := range streams {
		all.Go(func() { s.flow(begin, before+lasts) })
	}
	until(context.Background(), begin.Add(before))
	if err := st.Forget(); err != nil {
		return err
	}
	forgotten := time.Now()
	all.Wait()
	own := streams[0].between(forgotten, never)
	for _, other := range streams[1:] {
		noteLate(r, over, own, other.client.who, other.between(forgotten, never))
		own.causes = nil // they are told once
	}
	// A machine that is too busy to keep up before is no witness of what comes after.
	r.Note(told(over, "later by, p99, until then", "s", streams[0].between(begin, forgotten).quantile(0.99)))
	return nil
}

// never is when nothing is answered any more.
var never = time.Now().Add(24 * time.Hour)

// A stream is requests that come whether others are answered or not.
type stream struct {
	client *client

	mu   sync.Mutex // guards asks
	asks []ask
}

// An ask is one request.
type ask struct {
	due, over time.Time
	late      time.Duration // later than it had to be
	err       error
}

// park asks n times at once, so that there are as many connections.
func (s *stream) park(n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { s.ask(time.Now(), parkTime) })
	}
	wg.Wait()
}

// flow asks at the rate and returns when all is answered.
func (s *stream) flow(begin time.Time, lasts time.Duration) {
	var wg sync.WaitGroup
	for due := time.Duration(0); due < lasts; due += rate {
		until(context.Background(), begin.Add(due))
		wg.Go(func() { s.ask(begin.Add(due), rand.N(most)) })
	}
	wg.Wait()
}

func (s *stream) ask(due time.Time, takes time.Duration) {
	ctx, cancel := context.WithDeadline(context.Background(), due.Add(deadline))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/wait?for=%v", s.client.base, takes), nil)
	if err == nil {
		err = s.client.answered(req, fmt.Sprint(due.UnixNano()))
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks = append(s.asks, ask{due, now, now.Sub(due) - takes, err})
}

// between returns what was over, answered or not, within that time.
func (s *stream) between(begin, end time.Time) lateness {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l lateness
	for _, a := range s.asks {
		switch {
		case a.over.Before(begin) || a.over.After(end):
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

// A lateness is how late requests were. Those that have failed are later than all.
type lateness struct {
	late   []time.Duration // sorted
	failed int
	causes work.Causes
}

func (l lateness) all() int { return len(l.late) + l.failed }

// quantile returns the lateness that q of the requests do not exceed.
func (l lateness) quantile(q float64) work.Reading {
	i := max(1, int(math.Ceil(q*float64(l.all())))) - 1
	if i < len(l.late) {
		return work.Seconds(l.late[i])
	}
	return work.Reading{Value: deadline.Seconds(), More: true}
}

// over returns how many requests were later than d, or failed.
func (l lateness) over(d time.Duration) int {
	i, _ := slices.BinarySearch(l.late, d+1)
	return l.all() - i
}

// noteLate notes what became of ours, and of a peer's.
func noteLate(r *work.Report, over string, own lateness, peer string, other lateness) {
	r.Note(told(over, "requests answered later", "", work.Number(own.all())).Beside(peer, work.Number(other.all())))
	r.Note(told(over, "failed", "", work.Number(own.failed)).Beside(peer, work.Number(other.failed)).Said(own.causes.Err(), other.causes.Err()).AtMost(0))
	r.Note(told(over, "later by more than 1 s, or failed", "", work.Number(own.over(time.Second))).Beside(peer, work.Number(other.over(time.Second))))
	r.Note(told(over, "later by, p99", "s", own.quantile(0.99)).Beside(peer, other.quantile(0.99)))
	r.Note(told(over, "later by, p99.9", "s", own.quantile(0.999)).Beside(peer, other.quantile(0.999)).AtMost(lateBound))
	r.Note(told(over, "later by at most", "s", own.quantile(1)).Beside(peer, other.quantile(1)))
}
