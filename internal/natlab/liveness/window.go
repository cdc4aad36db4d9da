package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
)

const (
	shutFor    = 30 * time.Second
	windowSize = 64 << 10
	uploadSize = 8 << 20 // more than the client's send buffer (4 MiB, tcp_wmem) and the window hold
)

// zeroWindow writes to a server that does not read for 30 s.
func zeroWindow(r *report) (err error) {
	st, err := open(natlab.Config{Servers: 2 * len(three)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	st.origin.delay, st.origin.window = shutFor, windowSize
	ctx, cancel := context.WithTimeout(context.Background(), shutFor+r.patience())
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
		m := measured("bytes lost", "", number(int(uploadSize-own[i].came)), 0).
			beside(goDefaults, number(int(uploadSize-others[i].came))).over(p.over, "").said(own[i].err, others[i].err)
		if own[i].err == nil && own[i].took < shutFor {
			m.miss("the buffers took everything within %v", own[i].took)
		}
		r.note(m)
		r.note(measured("connections lost", "", number(st.lost(p.ours)), 0).
			beside(goDefaults, number(st.lost(p.peer))).over(p.over, ""))
		r.note(measured("suspicions", "", number(len(st.heard.of(dialer.Suspected, p.ours.local()))), 0).over(p.over, ""))
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
