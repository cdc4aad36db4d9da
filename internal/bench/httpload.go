package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Turns are short, so that there are many: what the machine does otherwise comes
	// and goes within seconds, and then meets both of a pair.
	turnLasts = 50 * time.Millisecond
	turnWarms = 10 * time.Millisecond // before it, with nobody counting

	// A client is made anew after so many turns: how it happens to lie in memory is
	// part of the noise, and must not be in every turn.
	turnsOfClient = 10

	httpDeadline = 10 * time.Second // of a request that has one
)

// An httpLoad is how a client is used.
type httpLoad struct {
	Protocol    protocol `json:"protocol"`
	Concurrency int      `json:"concurrency"` // goroutines, each of which asks again at once
	Deadline    bool     `json:"deadline"`    // the context of every request has one
}

// request is one of the load's, and what it takes to make its context.
func (l httpLoad) request(c httpClient, url string) error {
	ctx := context.Background()
	if l.Deadline {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, httpDeadline)
		defer cancel()
	}
	return c.get(ctx, url)
}

// requests are those of one goroutine until time is over.
func (l httpLoad) requests(c httpClient, url string, over *atomic.Bool) (n int, err error) {
	for !over.Load() {
		if err := l.request(c, url); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// turn counts requests for as long as a turn lasts. The garbage of whoever ran
// before is collected first.
func (l httpLoad) turn(c httpClient, url string) (sample, error) {
	runtime.GC()
	var warm, over atomic.Bool
	ns, errs := make([]int, l.Concurrency), make([]error, l.Concurrency)
	warming, measured := newLap(l.Concurrency), newLap(l.Concurrency)
	for i := range l.Concurrency {
		go func() {
			warming.run(func() { _, errs[i] = l.requests(c, url, &warm) })
			measured.run(func() {
				if errs[i] == nil {
					ns[i], errs[i] = l.requests(c, url, &over)
				}
			})
		}()
	}
	time.AfterFunc(turnWarms, func() { warm.Store(true) })
	warming.start()
	if err := within(stuck, measured.ready.Wait); err != nil {
		over.Store(true) // for those that come back some day
		close(measured.gate)
		return sample{}, err
	}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	time.AfterFunc(turnLasts, func() { over.Store(true) })
	measured.start()
	if err := within(stuck, measured.done.Wait); err != nil {
		return sample{}, err
	}
	s := sample{took: time.Since(begin)}
	runtime.ReadMemStats(&after)
	s.mallocs = after.Mallocs - before.Mallocs
	for _, n := range ns {
		s.ops += n
	}
	if s.ops == 0 {
		errs = append(errs, errors.New("no request was answered"))
	}
	return s, errors.Join(errs...)
}

// within calls wait, and fails if it does not return in time: a client that hangs
// must not hang the bench.
func within(limit time.Duration, wait func()) error {
	done := make(chan struct{})
	go func() {
		wait()
		close(done)
	}()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		return fmt.Errorf("requests are stuck for %v", limit)
	}
}

// open makes a client that has a connection for each goroutine. Of HTTP/2 it needs a
// few only, and opens them as it likes.
func (l httpLoad) open(m httpEntry, o *origin) (httpClient, error) {
	trust, err := o.trust()
	if err != nil {
		return nil, err
	}
	n := l.Concurrency
	if l.Protocol == second {
		n = 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	c := m.open(trust)
	url := fmt.Sprintf("%s/meet/%d", o.URLs[l.Protocol], n)
	errs := make([]error, n)
	var back sync.WaitGroup
	for i := range n {
		back.Go(func() { errs[i] = c.get(ctx, url) })
	}
	back.Wait()
	return c, errors.Join(errs...)
}

// An httpResult is what a client has made of its turns.
type httpResult struct {
	series
	err error // after which it had none
}

// perSecond returns the requests of a second, of each turn.
func (r httpResult) perSecond() []float64 {
	var each []float64
	for _, s := range r.series {
		each = append(each, float64(s.ops)/s.took.Seconds())
	}
	return each
}

// allocsEach returns the allocations of a request, of each turn.
func (r httpResult) allocsEach() []float64 {
	var each []float64
	for _, s := range r.series {
		each = append(each, series{s}.allocs())
	}
	return each
}

// play gives every client a turn in each round. The order is drawn by lot, and that
// of every second round is the one before it backwards.
func (l httpLoad) play(ms []httpEntry, rounds int, o *origin) []httpResult {
	found := make([]httpResult, len(ms))
	for ; rounds > 0; rounds -= turnsOfClient {
		clients := make([]httpClient, len(ms))
		for i, m := range ms {
			if found[i].err == nil {
				clients[i], found[i].err = l.open(m, o)
			}
		}
		var order []int
		for round := range min(rounds, turnsOfClient) {
			if round%2 == 0 {
				order = rand.Perm(len(ms))
			} else {
				slices.Reverse(order)
			}
			for _, i := range order {
				found[i].take(l, clients[i], o)
			}
		}
		for i, c := range clients {
			found[i].end(c)
		}
	}
	return found
}

func (r *httpResult) take(l httpLoad, c httpClient, o *origin) {
	if r.err != nil {
		return
	}
	s, err := l.turn(c, o.URLs[l.Protocol])
	r.series, r.err = append(r.series, s), err
}

// end closes a client; nil: there is none.
func (r *httpResult) end(c httpClient) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	r.err = errors.Join(r.err, c.close(ctx))
}
