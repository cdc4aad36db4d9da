package main

import (
	"context"
	"errors"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

const (
	reallyIdle   = 6 * time.Second
	shorterConns = 50
	shorterPause = 8 * time.Second // longer than that, and shorter than what natwise was told allows
	shorterDue   = 10 * time.Second
)

// shorterPath forgets sooner than natwise was told.
func shorterPath(r *work.Report) (err error) {
	path := roomy()
	path.Idle = reallyIdle
	st, err := open(natlab.Config{Path: path, Servers: 8})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	misled := func(plan keepalive.Plan) *dialer.Dialer {
		return &dialer.Dialer{Ledger: &dialer.Ledger{Path: roomy(), Ramp: -1}, Plan: plan, Dial: st.Dial}
	}
	probed := newRows(misled(keepalive.Plan{}), st.dialAsGo, st.tls, st.servers(8)[:4])
	silent := newRows(misled(keepalive.Plan{Idle: -1}), st.Dial, st.tls, st.servers(8)[4:])
	rows := append(probed, silent...)
	for _, w := range rows {
		defer w.close()
		if err := w.open(ctx, shorterConns); err != nil {
			return err
		}
	}
	time.Sleep(shorterPause)
	each(rows, func(w *row) { w.use(ctx, shorterConns, shorterDue) })
	for _, w := range probed {
		r.Note(w.failed(tuned).At(w.over, "probes go on"))
	}
	for _, w := range silent {
		m := w.measured("the slowest request, which fails", deadBound, tunedSilent, func(s side) work.Reading { return w.after[s].slowest() })
		m.Unit = "s"
		if w.after[ours].failed == 0 {
			m.Miss("none failed: nothing was forgotten")
		}
		r.Note(m.At(w.over, "no probes"))
	}
	each(silent, func(w *row) { w.use(ctx, shorterConns, shorterDue) })
	for _, w := range silent {
		r.Note(w.failed(tunedSilent).At(w.over, "no probes, then once more"))
	}
	return nil
}
