package main

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	sampling = 10 * time.Millisecond
	drainage = 30 * time.Second // for the last hold to be over
)

// An audit compares a stage's ledger with its gateway until both are empty.
type audit struct {
	samples  int
	missing  int    // flows in samples
	example  string // the first of them
	most     int    // flows to one destination
	follower *follower

	gateway, ledger float64 // flow-seconds
	apart           []time.Duration

	over chan struct{} // closed when nothing more begins
	done chan error
}

// begin starts an audit, whose end is for the caller to wait for.
func begin(st *work.Stage) *audit {
	a := &audit{follower: newFollower(), over: make(chan struct{}), done: make(chan error, 1)}
	go func() { a.done <- a.run(st) }()
	return a
}

// end lets the audit go on until all ports are free.
func (a *audit) end() error {
	close(a.over)
	return <-a.done
}

func (a *audit) run(st *work.Stage) error {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	over := a.over
	var late <-chan time.Time
	var reuse []natlab.Flow
	last := time.Now()
	for {
		s, err := look(st.Lab, st.Ledger, reuse)
		if err != nil {
			return err
		}
		a.add(s, s.gatewayAt.Sub(last))
		last, reuse = s.gatewayAt, s.gateway
		if over == nil && len(s.gateway)+len(s.ledger) == 0 {
			return nil
		}
		select {
		case <-over:
			over, late = nil, time.After(drainage)
			continue
		case <-late:
			return fmt.Errorf("%v after the last request the gateway holds %d flows, the ledger %d",
				drainage, len(s.gateway), len(s.ledger))
		case <-tick.C:
		}
	}
}

func (a *audit) add(s sample, since time.Duration) {
	a.samples++
	a.apart = append(a.apart, since)
	for _, g := range s.missing() {
		if a.missing++; a.example == "" {
			a.example = fmt.Sprintf("%v to %v, %v, %v left", g.Source, g.Dest, g.State, g.Left)
		}
	}
	a.most = max(a.most, s.most())
	a.gateway += float64(len(s.gateway)) * since.Seconds()
	a.ledger += float64(len(s.ledger)) * since.Seconds()
	a.follower.add(s)
}
