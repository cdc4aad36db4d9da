package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

// What is asked where data is unacknowledged and nothing comes.
const (
	suspectBound = 1.0 // s
	deadBound    = 3.0 // s
	every        = 100 * time.Millisecond
)

// busyBeside is a flow that goes black alone, beside others to the same address.
func busyBeside(r *work.Report) error { return busy(r, true) }

// busyAlone is one without any other to the same address.
func busyAlone(r *work.Report) error { return busy(r, false) }

// A use is what a busy connection does.
type use struct {
	name  string
	early bool // it has begun while all was well
	begin func(ctx context.Context, l line)
}

var uses = []use{
	{"a write each 100 ms", true, func(ctx context.Context, l line) { go repeat(ctx, l.write) }},
	{"one request", false, func(ctx context.Context, l line) { go request(ctx, l) }},
}

// repeat calls f every 100 ms until it fails or ctx is done.
func repeat(ctx context.Context, f func() error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for f() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// request asks once. For the user of a request, its failure is the line's fate.
func request(ctx context.Context, l line) {
	if err := l.ask(ctx); err != nil && ctx.Err() == nil {
		l.end().is(err)
	}
}

// A trial is one pair in one use.
type trial struct {
	pair
	use
}

func busy(r *work.Report, beside bool) (err error) {
	st, err := open(natlab.Config{Servers: 2 * len(uses) * len(three)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience(r)+20*time.Second)
	defer cancel()
	var trials []trial
	for i, u := range uses {
		pairs, err := st.pairs(ctx, three, 2*len(three)*i)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			trials = append(trials, trial{p, u})
		}
	}
	if beside {
		if err := st.accompany(ctx, trials); err != nil {
			return err
		}
	}
	begin := func(early bool) {
		for _, t := range trials {
			if t.early == early {
				t.begin(ctx, t.ours)
				t.begin(ctx, t.peer)
			}
		}
	}
	begin(true)
	settle()
	if err := st.darken(trials); err != nil {
		return err
	}
	since := time.Now()
	begin(false)
	limit, stop := context.WithDeadline(ctx, since.Add(patience(r)))
	defer stop()
	for _, t := range trials {
		notePair(limit, r, st, t, since)
	}
	return nil
}

// accompany opens another line to the server of each of ours, on which something
// is asked all the time.
func (st *stage) accompany(ctx context.Context, trials []trial) error {
	for _, t := range trials {
		l, err := st.lineTo(ctx, ours, t.over, t.ours.remote().Addr())
		if err != nil {
			return err
		}
		go repeat(ctx, func() error { return l.ask(ctx) })
	}
	return nil
}

// darken drops all packets of the trials' flows, and of no others.
func (st *stage) darken(trials []trial) error {
	var rules strings.Builder
	for _, t := range trials {
		for _, l := range []line{t.ours, t.peer} {
			near, far := l.local(), l.remote()
			fmt.Fprintf(&rules, "add rule ip lab dark ip daddr %s tcp dport %d tcp sport %d drop; ", far.Addr(), far.Port(), near.Port())
			fmt.Fprintf(&rules, "add rule ip lab dark ip saddr %s tcp sport %d tcp dport %d drop; ", far.Addr(), far.Port(), near.Port())
		}
	}
	return st.nft(rules.String())
}

// notePair notes when a trial's line of ours was suspect and dead, and what its
// peer did.
func notePair(ctx context.Context, r *work.Report, st *stage, t trial, since time.Time) {
	dead, err := t.ours.end().after(ctx, since)
	peer, also := t.peer.end().after(ctx, since)

	suspect := st.heard.first(dialer.Suspected, t.ours.local(), since)
	r.Note(measured("until it is suspect", "s", suspect, suspectBound).At(t.over, t.use.name))

	m := measured("until it is known to be dead", "s", dead, deadBound).
		Beside(goDefaults, peer).At(t.over, t.use.name).Said(err, also)
	if !dead.More {
		wantBlackhole(&m, "Read", err)
	}
	if s, ok := t.ours.(*stream); ok && !dead.More {
		wantBlackhole(&m, "Write", s.write())
	}
	r.Note(m)
}

// wantBlackhole misses if err does not tell of a black hole.
func wantBlackhole(m *work.Measurement, from string, err error) {
	if !errors.Is(err, keepalive.ErrBlackhole) {
		m.Miss("%s: %v is not keepalive.ErrBlackhole", from, err)
	}
}
