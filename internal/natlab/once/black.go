package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
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
		s := newStream(c)
		streams = append(streams, s)
		all.Go(func() { s.park(parked) })
	}
	all.Wait()
	begin := time.Now()
	for _, s := range streams {
		all.Go(func() { s.Flow(begin, before+lasts, s.askAt) })
	}
	work.Until(context.Background(), begin.Add(before))
	if err := st.Forget(); err != nil {
		return err
	}
	forgotten := time.Now()
	all.Wait()
	own := streams[0].Between(forgotten, never)
	for _, other := range streams[1:] {
		noteLate(r, over, own, other.client.who, other.Between(forgotten, never))
		own.Causes = nil // they are told once
	}
	// A machine that is too busy to keep up before is no witness of what comes after.
	r.Note(told(over, "later by, p99, until then", "s", streams[0].Between(begin, forgotten).Quantile(0.99)))
	return nil
}

// never is when nothing is answered any more.
var never time.Time

// A stream is what one client is asked.
type stream struct {
	work.Stream
	client *client
}

func newStream(of *client) *stream {
	return &stream{client: of, Stream: work.Stream{Every: rate, Deadline: deadline}}
}

// park asks n times at once, so that there are as many connections.
func (s *stream) park(n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { s.ask(time.Now(), parkTime) })
	}
	wg.Wait()
}

func (s *stream) askAt(due time.Time) { s.ask(due, rand.N(most)) }

func (s *stream) ask(due time.Time, takes time.Duration) {
	s.Ask(due, takes, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/wait?for=%v", s.client.base, takes), nil)
		if err != nil {
			return err
		}
		return s.client.answered(req, fmt.Sprint(due.UnixNano()))
	})
}

// noteLate notes what became of ours, and of a peer's.
func noteLate(r *work.Report, over string, own work.Lateness, peer string, other work.Lateness) {
	r.Note(told(over, "requests answered later", "", work.Number(own.All())).Beside(peer, work.Number(other.All())))
	r.Note(told(over, "failed", "", work.Number(own.Failed)).Beside(peer, work.Number(other.Failed)).Said(own.Causes.Err(), other.Causes.Err()).AtMost(0))
	r.Note(told(over, "later by more than 1 s, or failed", "", work.Number(own.Over(time.Second))).Beside(peer, work.Number(other.Over(time.Second))))
	r.Note(told(over, "later by, p99", "s", own.Quantile(0.99)).Beside(peer, other.Quantile(0.99)))
	r.Note(told(over, "later by, p99.9", "s", own.Quantile(0.999)).Beside(peer, other.Quantile(0.999)).AtMost(lateBound))
	r.Note(told(over, "later by at most", "s", own.Quantile(1)).Beside(peer, other.Quantile(1)))
}
