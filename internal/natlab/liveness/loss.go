package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	lossyLines = 40                    // over each
	lossyEvery = 50 * time.Millisecond // each asks
	lossyTime  = 45 * time.Second      // of all
	lossyDue   = 30 * time.Second      // an answer
)

// loss asks on a path that loses a share of the packets each way, and sees how
// often that is taken for a black hole. At most most of the requests may raise
// a suspicion.
func loss(share, most float64) func(r *work.Report) error {
	return func(r *work.Report) (err error) {
		st, err := open(natlab.Config{Path: roomy(), Servers: len(three)})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close()) }()
		ctx, cancel := context.WithTimeout(context.Background(), lossy(r)+lossyDue)
		defer cancel()
		var lines []line
		for i, over := range three {
			for range lossyLines {
				l, err := st.line(ctx, ours, over, i)
				if err != nil {
					return err
				}
				lines = append(lines, l)
			}
		}
		if err := st.Lose(share); err != nil {
			return err
		}
		asked, failed, why := askAll(ctx, lines, time.Now().Add(lossy(r)))
		use := fmt.Sprintf("%d requests", asked)
		r.Note(measured("suspicions a request", "", work.Ratio(float64(st.heard.count(dialer.Suspected)), float64(asked)), most).
			At("all three", use))
		r.Note(work.Told("requests failed", "", work.Number(failed)).At("all three", use).Said(why, nil))
		return nil
	}
}

func lossy(r *work.Report) time.Duration {
	if r.Full {
		return 4 * lossyTime
	}
	return lossyTime
}

// askAll asks on all lines, again and again, until an instant. A line that fails
// asks no more.
func askAll(ctx context.Context, lines []line, until time.Time) (asked, failed int, why error) {
	var n atomic.Int64
	var mu sync.Mutex // guards failed and why
	var all sync.WaitGroup
	for _, l := range lines {
		all.Go(func() {
			tick := time.NewTicker(lossyEvery)
			defer tick.Stop()
			for time.Now().Before(until) {
				n.Add(1)
				if err := l.ask(ctx); err != nil {
					mu.Lock()
					failed, why = failed+1, err
					mu.Unlock()
					return
				}
				<-tick.C
			}
		})
	}
	all.Wait()
	return int(n.Load()), failed, why
}
