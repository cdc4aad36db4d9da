package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

// waits returns how long each Get took where every goroutine gets a value n
// times and works with it.
func (l load) waits(c contender, n int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()

	var done sync.WaitGroup
	errs := make([]error, l.goroutines)
	waited := make([]time.Duration, l.goroutines*n)
	for i := range l.goroutines {
		mine := waited[i*n : (i+1)*n]
		done.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			for k := range mine {
				start := time.Now()
				err := c.use(ctx, func(*conn) {
					mine[k] = time.Since(start)
					l.hold()
				})
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	done.Wait()
	return waited, errors.Join(errs...)
}

// p99s measures the 99th percentile of each contender's waits, in milliseconds,
// all of them in turn, as often as there are rounds. Who begins moves on by one
// each round.
func (l load) p99s(all []entry, rounds, n int) (map[string][]float64, error) {
	pools := make([]contender, len(all))
	for i, e := range all {
		var err error
		if pools[i], err = l.open(e); err != nil {
			return nil, err
		}
	}
	found := make(map[string][]float64)
	for round := range rounds {
		for turn := range all {
			i := (round + turn) % len(all)
			waited, err := l.waits(pools[i], n)
			if err != nil {
				return nil, err
			}
			p99 := work.Percentile(waited, 0.99)
			found[all[i].name] = append(found[all[i].name], float64(p99)/float64(time.Millisecond))
		}
	}
	return found, closeAll(pools)
}

// best returns the name of the one with the smallest median.
func best(of []entry, figures map[string][]float64) string {
	return slices.MinFunc(of, func(a, b entry) int {
		if median(figures[a.name]) < median(figures[b.name]) {
			return -1
		}
		return 1
	}).name
}
