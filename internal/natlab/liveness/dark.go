package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

// idleDeath is when a connection on which nothing is unacknowledged is to be known
// as dead: after the first probe's silence and three more that nobody answers,
// with one interval to spare.
func idleDeath() float64 {
	plan := keepalive.For(work.Path())
	return (plan.Idle + 4*plan.Interval).Seconds()
}

// parkedReader is black while nobody has asked anything.
func parkedReader(r *work.Report) error {
	return allBlack(r, func(line) error { return nil })
}

// unanswered is black while an answer is due, the request being acknowledged.
func unanswered(r *work.Report) error {
	return allBlack(r, line.hang)
}

func allBlack(r *work.Report, before func(line) error) (err error) {
	st, err := open(natlab.Config{Servers: 2 * len(three)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience(r)+20*time.Second)
	defer cancel()
	pairs, err := st.pairs(ctx, three, 0)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if err := errors.Join(before(p.ours), before(p.peer)); err != nil {
			return err
		}
	}
	settle()
	if err := st.Blackhole(netip.AddrPort{}, true); err != nil {
		return err
	}
	since := time.Now()
	ctx, cancel = context.WithDeadline(ctx, since.Add(patience(r)))
	defer cancel()
	for _, p := range pairs {
		took, err := p.ours.end().after(ctx, since)
		beside, also := p.peer.end().after(ctx, since)
		r.Note(measured("until it is known to be dead", "s", took, idleDeath()).
			Beside(goDefaults, beside).At(p.over, "").Said(err, also))
	}
	return nil
}
