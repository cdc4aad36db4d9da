package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

// What a middlebox lies to, and what is asked then.
const (
	liedTo       = 4 // connections
	beatEvery    = 2 * time.Second
	probeTimeout = time.Second

	heartbeatBound = (beatEvery + probeTimeout) / time.Second // the next heartbeat is not answered
	recoverBound   = 1.0                                      // s, after the end of the lie
	missBound      = 1                                        // the request by which it is known
)

// lyingProxy acknowledges everything, hands on nothing, and after 19 s sends a
// FIN.
func lyingProxy(r *work.Report) (err error) {
	st, err := open(natlab.Config{Servers: 6})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience(r))
	defer cancel()

	var all sync.WaitGroup
	errs := make(chan error, 5)
	play := func(f func(ctx context.Context, r *work.Report, over string, first int) error, over string, first int) {
		all.Go(func() { errs <- f(ctx, r, over, first) })
	}
	for _, over := range []string{plain, overTLS} { // at ports of their own
		play(st.heartbeats, over, 0)
		play(st.deadlines, over, 2)
	}
	play(st.deadlines, http2, 4)
	all.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// beaten is the Config of a pool that asks its idle connections.
func (st *stage) beaten(over string) conns.Config {
	cfg := config(over, st.tls)
	cfg.BeatEvery, cfg.ProbeTimeout = beatEvery, probeTimeout
	cfg.Beat = func(_ context.Context, c net.Conn) error {
		return exchange(c, answer, "", time.Now().Add(probeTimeout))
	}
	return cfg
}

// heartbeats has connections lied to that are parked and asked now and then.
// Beside them somebody waits for an answer, without a deadline.
func (st *stage) heartbeats(ctx context.Context, r *work.Report, over string, first int) error {
	known := newFate()
	var closed atomic.Int32
	cfg := st.beaten(over)
	cfg.Observe = func(_ string, e pool.Event) {
		if e.Kind == pool.Closed && closed.Add(1) == liedTo {
			known.is(e.Err)
		}
	}
	c := pooled(st.dialer, cfg, st.Server(first), over)
	defer c.close()
	liar, err := st.Proxy(at(st.Server(first), over))
	if err != nil {
		return err
	}
	defer liar.Close()
	beside, err := st.Proxy(at(st.Server(first+1), asHTTP[over]))
	if err != nil {
		return err
	}
	defer beside.Close()
	if t := useAll(ctx, c, liedTo, answerDue); t.failed > 0 {
		return t.err
	}
	other, err := st.line(ctx, peer, asHTTP[over], first+1)
	if err != nil {
		return err
	}
	settle()
	liar.Lie(true)
	beside.Lie(true)
	since := time.Now()
	other.hang()
	took, why := known.after(ctx, since)
	liar.Lie(false)
	again, _, err := untilAnswered(ctx, c)
	theirs, also := other.end().after(ctx, since)
	const use = "parked, asked every 2 s"
	r.Note(measured("until all that are lied to are dropped", "s", took, float64(heartbeatBound)).
		Beside("http.Transport, waiting", theirs).At(over, use).Said(why, also))
	r.Note(measured("from the end of the lie to an answer", "s", again, recoverBound).At(over, use).Said(err, nil))
	return nil
}

// deadlines has connections lied to that are used, with a deadline for each
// answer. The lie is over when the first is missed.
func (st *stage) deadlines(ctx context.Context, r *work.Report, over string, first int) error {
	var crowds [2]crowd
	if over == http2 {
		tr := transport(nil, st.tls)
		tr.ForceAttemptHTTP2 = true
		crowds[ours] = transported(httpx.Wrap(tr, st.dialer), st.Server(first), over)
	} else {
		crowds[ours] = pooled(st.dialer, st.beaten(over), st.Server(first), over)
	}
	tr := transport(st.dialAsGo, st.tls)
	tr.ForceAttemptHTTP2 = over == http2
	crowds[peer] = transported(tr, st.Server(first+1), asHTTP[over])
	var took [2]work.Reading
	var missed [2]int
	var errs, fatal [2]error
	var all sync.WaitGroup
	for i, c := range crowds {
		defer c.close()
		all.Go(func() {
			took[i], missed[i], errs[i], fatal[i] = st.betray(ctx, c, first+i)
		})
	}
	all.Wait()
	if err := errors.Join(fatal[:]...); err != nil {
		return err
	}
	const use = "an answer due in 2 s"
	r.Note(measured("from the end of the lie to an answer", "s", took[ours], recoverBound).
		Beside(tuned, took[peer]).At(over, use).Said(errs[ours], errs[peer]))
	r.Note(measured("requests failed", "", work.Number(missed[ours]), missBound).
		Beside(tuned, work.Number(missed[peer])).At(over, use))
	return nil
}

// betray lies to a crowd until a request has failed, and returns how long after
// that the next answer comes, and how many requests have failed.
func (st *stage) betray(ctx context.Context, c crowd, server int) (took work.Reading, missed int, why, err error) {
	liar, err := st.Proxy(at(st.Server(server), c.over))
	if err != nil {
		return took, 0, nil, err
	}
	defer liar.Close()
	if t := useAll(ctx, c, liedTo, answerDue); t.failed > 0 {
		return took, 0, nil, t.err
	}
	settle()
	liar.Lie(true)
	if c.once(ctx) == nil {
		return took, 0, nil, errors.New("a request through a liar was answered")
	}
	liar.Lie(false)
	took, missed, why = untilAnswered(ctx, c)
	return took, 1 + missed, why, nil
}

var errAnswered = errors.New("answered")

// untilAnswered asks again and again, and returns how long it took until an
// answer came, how many requests failed before, and why the last of them did.
func untilAnswered(ctx context.Context, c crowd) (took work.Reading, failed int, why error) {
	since := time.Now()
	repeat(ctx, func() error {
		err := c.once(ctx)
		if err == nil {
			took = work.Seconds(time.Since(since))
			return errAnswered
		}
		took, failed, why = work.MoreThan(time.Since(since)), failed+1, err
		return nil
	})
	return took, failed, why
}
