package main

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

const (
	sampleLasts = 12 * time.Millisecond
	leastRounds = 40 // so that a thousand goroutines do more than meet each other
	warmUps     = 10 // parts of a sample; one of them goes before it

	// stuck ends a Get that nobody will ever answer. No load comes near it.
	stuck = 30 * time.Second
)

// A load is how a contender is used.
type load struct {
	goroutines, values int
	hold               func() // between Get and Put; may be nil
}

// A sample is what one run of a contender under a load took.
type sample struct {
	ops     int
	took    time.Duration
	mallocs uint64
}

func (s sample) nanos() float64 { return float64(s.took) / float64(s.ops) }

// run has each goroutine get and put n times. Before that all of them do a part
// of it together unmeasured, so that whatever is made for the first wait, or again
// after a garbage collection, is there. The garbage of whoever ran before is
// collected first.
func (l load) run(c contender, n int) (sample, error) {
	runtime.GC()
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()

	errs := make([]error, l.goroutines)
	warm, measured := newLap(l.goroutines), newLap(l.goroutines)
	for i := range l.goroutines {
		go func() {
			// A context for each goroutine, as requests have: a channel that all
			// wait for is a lock that all wait for.
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			ctx.Done() // makes the channel
			warm.run(func() { errs[i] = c.cycle(ctx, n/warmUps+1, l.hold) })
			measured.run(func() {
				if errs[i] == nil {
					errs[i] = c.cycle(ctx, n, l.hold)
				}
			})
		}()
	}
	warm.start()
	measured.ready.Wait()

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	measured.start()
	measured.done.Wait()
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	return sample{n * l.goroutines, took, after.Mallocs - before.Mallocs}, errors.Join(errs...)
}

// A lap is begun by many goroutines at once.
type lap struct {
	ready, done sync.WaitGroup
	gate        chan struct{}
}

func newLap(runners int) *lap {
	l := &lap{gate: make(chan struct{})}
	l.ready.Add(runners)
	l.done.Add(runners)
	return l
}

// run waits for the start.
func (l *lap) run(f func()) {
	l.ready.Done()
	<-l.gate
	f()
	l.done.Done()
}

// start lets all runners go once the last of them is there.
func (l *lap) start() {
	l.ready.Wait()
	close(l.gate)
}

// rounds finds out how many rounds of every goroutine make a sample.
func (l load) rounds(c contender) (int, error) {
	for n := 1; ; n *= 2 {
		s, err := l.run(c, n)
		if err != nil {
			return 0, err
		}
		if s.took > sampleLasts/4 {
			return max(leastRounds, int(float64(n)*float64(sampleLasts)/float64(s.took))), nil
		}
	}
}

// A series is the samples of one contender beside another.
type series []sample

func (s series) nanos() []float64 {
	var each []float64
	for _, one := range s {
		each = append(each, one.nanos())
	}
	return each
}

// allocs returns the allocations of an operation, over all samples.
func (s series) allocs() float64 {
	var mallocs, ops float64
	for _, one := range s {
		mallocs += float64(one.mallocs)
		ops += float64(one.ops)
	}
	return mallocs / ops
}

// turns measures a and b in pairs. Each pair is of new pools: how one of them
// happens to lie in memory is part of the noise, and must not be in every pair.
func (l load) turns(a, b entry, pairs int) (as, bs series, err error) {
	both := [2]entry{a, b}
	var rounds [2]int
	for i, e := range both {
		err := l.with(e, func(c contender) (err error) {
			rounds[i], err = l.rounds(c)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	var found [2]series
	for pair := range pairs {
		for turn := range 2 {
			i := (pair + turn) % 2
			err := l.with(both[i], func(c contender) error {
				s, err := l.run(c, rounds[i])
				found[i] = append(found[i], s)
				return err
			})
			if err != nil {
				return nil, nil, err
			}
		}
	}
	return found[0], found[1], nil
}

// with calls f with a new contender.
func (l load) with(e entry, f func(contender) error) error {
	c, err := l.open(e)
	if err != nil {
		return err
	}
	if err := f(c); err != nil {
		return err // and c may be waiting for a value that was lost
	}
	return closeAll([]contender{c})
}

// open opens a contender and has it open all its values, so that nobody does
// while being measured.
func (l load) open(e entry) (contender, error) {
	c, err := e.open(l.values)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	var out, back sync.WaitGroup
	errs := make([]error, l.values)
	out.Add(l.values)
	for i := range l.values {
		back.Go(func() {
			errs[i] = c.use(ctx, func(*conn) {
				out.Done()
				out.Wait() // for the others, so that each has a value of its own
			})
			if errs[i] != nil {
				out.Done()
			}
		})
	}
	back.Wait()
	return c, errors.Join(errs...)
}

// closeAll does not wait for ever for a value that was lost.
func closeAll(pools []contender) error {
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	var errs []error
	for _, p := range pools {
		errs = append(errs, p.close(ctx))
	}
	return errors.Join(errs...)
}
