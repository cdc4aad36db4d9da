package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	shutFor    = 30 * time.Second
	windowSize = 64 << 10
	uploadSize = 8 << 20 // more than the client's send buffer (4 MiB, tcp_wmem) and the window hold
)

// zeroWindow writes to a server that does not read for 30 s.
func zeroWindow(r *work.Report) (err error) {
	st, err := open(natlab.Config{Servers: 2 * len(three)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	st.origin.delay, st.origin.window = shutFor, windowSize
	ctx, cancel := context.WithTimeout(context.Background(), shutFor+patience(r))
	defer cancel()
	pairs, err := st.pairs(ctx, three, 0)
	if err != nil {
		return err
	}
	own, others := make([]upload, len(pairs)), make([]upload, len(pairs))
	var all sync.WaitGroup
	for i, p := range pairs {
		all.Go(func() { own[i].perform(ctx, p.ours) })
		all.Go(func() { others[i].perform(ctx, p.peer) })
	}
	all.Wait()
	for i, p := range pairs {
		m := measured("bytes lost", "", work.Number(int(uploadSize-own[i].came)), 0).
			Beside(goDefaults, work.Number(int(uploadSize-others[i].came))).At(p.over, "").Said(own[i].err, others[i].err)
		if own[i].err == nil && own[i].took < shutFor {
			m.Miss("the buffers took everything within %v", own[i].took)
		}
		r.Note(m)
		r.Note(measured("connections lost", "", work.Number(st.lost(p.ours)), 0).
			Beside(goDefaults, work.Number(st.lost(p.peer))).At(p.over, ""))
		r.Note(measured("suspicions", "", work.Number(len(st.heard.of(dialer.Suspected, p.ours.local()))), 0).At(p.over, ""))
	}
	return nil
}

// An upload is what became of one.
type upload struct {
	came int64
	took time.Duration // until the last byte was written
	err  error
}

func (u *upload) perform(ctx context.Context, l line) {
	begin := time.Now()
	var written time.Time
	u.came, written, u.err = l.upload(ctx, uploadSize)
	u.took = written.Sub(begin)
}
