package main

import (
	"context"
	"errors"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

const (
	staleConns = 120 // nearly all ports
	staleAsked = 16  // at once: each that hangs would rid the others of a stale socket
	stalePause = 6 * time.Second
	staleLimit = 1500 * time.Millisecond
	staleDue   = 15 * time.Second

	tunedLate = "http.Transport, IdleConnTimeout 19 s"
)

// staleServers has a NAT use its port numbers again whose flows have idled out:
// their servers still hold the old connections, and new ones hang on them. Who has
// kept its connections, or ended them in time, has left none. net/http ends them
// too late here: nobody has told it how long the path remembers.
func staleServers(r *work.Report) (err error) {
	st, err := open(natlab.Config{Reuse: true, Servers: 8})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute+staleDue)
	defer cancel()

	mine := func(plan keepalive.Plan) *dialer.Dialer {
		return &dialer.Dialer{Ledger: &dialer.Ledger{Path: work.Path(), Ramp: -1}, Plan: plan, Dial: st.Dial}
	}
	probed, silent := mine(keepalive.Plan{}), mine(keepalive.Plan{Idle: -1})
	uses := []string{"kept by probes", "kept by probes", "no probes", "no probes"}
	var rows []*row
	for i, own := range []crowd{
		pooled(probed, config(plain, nil), st.Server(0), plain),
		transported(httpx.Wrap(transport(nil, st.tls), probed), st.Server(2), http1),
		pooled(silent, config(plain, nil), st.Server(4), plain),
		transported(httpx.Wrap(transport(nil, st.tls), silent), st.Server(6), http1),
	} {
		late := transport(st.Dial, st.tls)
		late.IdleConnTimeout = work.Path().Idle + stalePause/2
		other := transported(late, st.Server(2*i+1), http1)
		w := &row{over: own.over, crowds: [2]crowd{ours: own, peer: other}}
		rows = append(rows, w)
		defer w.close()
		if err := w.open(ctx, staleConns); err != nil {
			return err
		}
	}
	time.Sleep(work.Path().Idle + stalePause)
	each(rows, func(w *row) { w.use(ctx, staleAsked, staleDue) })
	for i, w := range rows {
		slowest := w.measured("the slowest request", staleLimit.Seconds(), tunedLate, func(s side) work.Reading { return w.after[s].slowest() })
		slowest.Unit = "s"
		r.Note(slowest.At(w.over, uses[i]))
		r.Note(w.measured("requests over 1.5 s", 0, tunedLate, func(s side) work.Reading { return work.Number(w.after[s].beyond(staleLimit)) }).
			At(w.over, uses[i]))
		r.Note(w.failed(tunedLate).At(w.over, uses[i]))
	}
	return nil
}
