package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// What is asked after an outage.
const (
	healBound = 1.0 // s
	synsASec  = 1.0 // on average, while a path is down
)

func outage(lasts time.Duration) func(r *work.Report) error {
	return func(r *work.Report) error { return down(r, lasts) }
}

// down takes the whole path away while one request is outstanding on each line.
// Who waits for longer between two retransmissions than the path remembers, as Go's
// defaults do after half a minute, finds its flow forgotten when the path is back.
func down(r *work.Report, lasts time.Duration) (err error) {
	st, err := open(natlab.Config{Servers: 2 * len(three)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), lasts+patience(r)+20*time.Second)
	defer cancel()
	pairs, err := st.pairs(ctx, three, 0)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if err := errors.Join(st.countSYNs("ours_"+p.over, p.ours), st.countSYNs("peer_"+p.over, p.peer)); err != nil {
			return err
		}
	}
	settle()
	if err := st.Blackhole(netip.AddrPort{}, true); err != nil {
		return err
	}
	answered := make(map[line]*fate)
	for _, p := range pairs {
		for _, l := range []line{p.ours, p.peer} {
			f := newFate()
			answered[l] = f
			go func() { f.is(l.ask(ctx)) }()
		}
	}
	time.Sleep(lasts)
	syns, err := st.counted()
	if err != nil {
		return err
	}
	if err := st.Blackhole(netip.AddrPort{}, false); err != nil {
		return err
	}
	since := time.Now()
	limit, stop := context.WithDeadline(ctx, since.Add(patience(r)-lasts))
	defer stop()
	for _, p := range pairs {
		took, failed := answered[p.ours].answer(limit, since)
		beside, also := answered[p.peer].answer(limit, since)
		r.Note(measured("from the heal to the answer", "s", took, healBound).
			Beside(goDefaults, beside).At(p.over, "").Said(failed, also))
		r.Note(measured("connections lost", "", work.Number(st.lost(p.ours)), 0).
			Beside(goDefaults, work.Number(st.lost(p.peer))).At(p.over, ""))
		r.Note(measured("SYNs meanwhile", "", work.Number(syns["ours_"+p.over]), synsASec*lasts.Seconds()).
			Beside(goDefaults, work.Number(syns["peer_"+p.over])).At(p.over, ""))
	}
	return nil
}

// answer is after, where only an answer counts: a failure is none.
func (f *fate) answer(ctx context.Context, since time.Time) (work.Reading, error) {
	v, err := f.after(ctx, since)
	if err != nil {
		v = work.MoreThan(time.Since(since))
	}
	return v, err
}

// lost is 1 if the line has lost its connection.
func (st *stage) lost(l line) int {
	select {
	case <-l.end().over:
		return 1
	default:
	}
	return len(st.heard.of(dialer.Ended, l.local()))
}
