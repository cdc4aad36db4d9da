package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
)

// What is asked where data is unacknowledged and nothing comes.
const (
	suspectBound = 1.0 // s
	deadBound    = 3.0 // s
	every        = 100 * time.Millisecond
)

// busyBeside is a flow that goes black alone, beside others to the same address.
func busyBeside(r *report) error { return busy(r, true) }

// busyAlone is one without any other to the same address.
func busyAlone(r *report) error { return busy(r, false) }

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

func busy(r *report, beside bool) (err error) {
	st, err := open(natlab.Config{Servers: 2 * len(uses) * len(three)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), r.patience()+20*time.Second)
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
	limit, stop := context.WithDeadline(ctx, since.Add(r.patience()))
	defer stop()
	for _, t := range trials {
		r.notePair(limit, st, t, since)
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
func (r *report) notePair(ctx context.Context, st *stage, t trial, since time.Time) {
	dead, err := t.ours.end().after(ctx, since)
	peer, also := t.peer.end().after(ctx, since)

	suspect := st.heard.first(dialer.Suspected, t.ours.local(), since)
	r.note(measured("until it is suspect", "s", suspect, suspectBound).over(t.over, t.use.name))

	m := measured("until it is known to be dead", "s", dead, deadBound).
		beside(goDefaults, peer).over(t.over, t.use.name).said(err, also)
	if !dead.More {
		m.wantBlackhole("Read", err)
	}
	if s, ok := t.ours.(*stream); ok && !dead.More {
		m.wantBlackhole("Write", s.write())
	}
	r.note(m)
}

// wantBlackhole misses if err does not tell of a black hole.
func (m *Measurement) wantBlackhole(from string, err error) {
	if !errors.Is(err, keepalive.ErrBlackhole) {
		m.miss("%s: %v is not keepalive.ErrBlackhole", from, err)
	}
}
