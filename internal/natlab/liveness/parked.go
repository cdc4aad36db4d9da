package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// probesBound is how many packets a parked connection may cost in a quarter of
// the path's memory.
const probesBound = 1.2

// openingDue is how long a crowd may take to open its connections.
const openingDue = 20 * time.Second

const (
	tuned       = "http.Transport" // that keeps as many connections
	tunedSilent = "http.Transport without keepalive"
)

// parked is how many connections are, and for how long.
func parked(r *work.Report) (n int, lasts time.Duration) {
	if r.Full {
		return 1000, 2 * time.Minute
	}
	return 200, 40 * time.Second
}

// roomy is the path with ports for all connections of a scenario.
func roomy() netpath.Profile {
	p := work.Path()
	p.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 4096}}
	return p
}

// kept parks connections for longer than the path remembers.
func kept(r *work.Report) error { return park(r, keepalive.Plan{}) }

// retired does so without probes.
func retired(r *work.Report) error { return park(r, keepalive.Plan{Idle: -1}) }

// crowded is held by who has thousands of connections: twice as many are more
// files than a process may have open on many machines.
var crowded sync.Mutex

// park parks connections, and then uses all of them at once.
func park(r *work.Report, plan keepalive.Plan) (err error) {
	if r.Full {
		crowded.Lock()
		defer crowded.Unlock()
	}
	st, err := open(natlab.Config{Path: roomy(), Servers: 4})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	st.dialer.Plan = plan
	n, lasts := parked(r)
	ctx, cancel := context.WithTimeout(context.Background(), lasts+time.Minute)
	defer cancel()
	dial := st.dialAsGo
	if plan.Idle < 0 {
		dial = st.Dial
	}
	rows := newRows(st.dialer, dial, st.tls, st.servers(4))
	for _, w := range rows {
		defer w.close()
		if err := w.open(ctx, n); err != nil {
			return err
		}
	}
	settle()
	for i, server := range st.servers(4) {
		if err := st.count(fmt.Sprint("server", i), "ip daddr "+server.String()); err != nil {
			return err
		}
	}
	begin := time.Now()
	time.Sleep(lasts)
	packets, err := st.counted()
	if err != nil {
		return err
	}
	quarters := time.Since(begin).Seconds() / (work.Path().Idle / 4).Seconds()
	each(rows, func(w *row) { w.use(ctx, n, answerDue) })
	for i, w := range rows {
		if plan.Idle < 0 {
			r.Note(w.failed(tunedSilent))
			r.Note(w.stale())
			continue
		}
		r.Note(w.failed(tuned))
		r.Note(w.measured("connections lost", 0, tuned, func(s side) work.Reading { return work.Number(n - again(w.before[s], w.after[s])) }))
		r.Note(w.measured("packets for each connection and T/4", probesBound, tuned, func(s side) work.Reading {
			return work.Ratio(float64(packets[fmt.Sprint("server", 2*i+int(s))]), float64(n)*quarters)
		}))
	}
	return nil
}

// A row is a crowd of natwise's beside one of net/http's.
type row struct {
	over          string
	crowds        [2]crowd   // by side
	before, after [2]turnout // the first time that all were used, and the last
}

// newRows returns rows over plain TCP and TLS: natwise's in a conns.Pool, net/http's
// over HTTP/1. Each crowd has a server of its own.
func newRows(d *dialer.Dialer, dial dialFunc, client *tls.Config, servers []netip.Addr) (rows []*row) {
	for i, over := range []string{plain, overTLS} {
		rows = append(rows, &row{over: over, crowds: [2]crowd{
			ours: pooled(d, config(over, client), servers[2*i], over),
			peer: transported(transport(dial, client), servers[2*i+1], asHTTP[over]),
		}})
	}
	return rows
}

// asHTTP is what comes closest in HTTP.
var asHTTP = map[string]string{plain: http1, overTLS: https1, http2: http2}

// open opens n connections of each side.
func (w *row) open(ctx context.Context, n int) (err error) {
	for s, c := range w.crowds {
		w.before[s] = useAll(ctx, c, n, openingDue)
		err = errors.Join(err, w.before[s].err)
	}
	return err
}

// each calls f for all rows at once.
func each(rows []*row, f func(w *row)) {
	var all sync.WaitGroup
	for _, w := range rows {
		all.Go(func() { f(w) })
	}
	all.Wait()
}

// use uses n connections of each side at once.
func (w *row) use(ctx context.Context, n int, due time.Duration) {
	var both sync.WaitGroup
	for s, c := range w.crowds {
		both.Go(func() { w.after[s] = useAll(ctx, c, n, due) })
	}
	both.Wait()
}

func (w *row) close() {
	for _, c := range w.crowds {
		c.close()
	}
}

// measured makes a Measurement of what of tells of each side.
func (w *row) measured(figure string, bound float64, against string, of func(side) work.Reading) work.Measurement {
	return measured(figure, "", of(ours), bound).Beside(against, of(peer)).At(w.over, "").
		Said(w.after[ours].err, w.after[peer].err)
}

func (w *row) failed(against string) work.Measurement {
	return w.measured("requests failed", 0, against, func(s side) work.Reading { return work.Number(w.after[s].failed) })
}

// stale is for connections that the path has forgotten.
func (w *row) stale() work.Measurement {
	return w.measured("stale ones lent", 0, tunedSilent, func(s side) work.Reading { return work.Number(again(w.before[s], w.after[s])) })
}
