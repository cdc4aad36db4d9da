package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

const (
	idleConns  = 8
	idlePath   = 3 * time.Second
	silences   = 5 // times idlePath
	longer     = 20
	idleTakes  = 200 * time.Millisecond // of each query, so that every connection gets one
	impatience = 5 * time.Second        // of a query
)

// What keeps idle connections known to the path.
const (
	heartbeats = "heartbeats" // and nothing else does
	probes     = "probes"
)

// idle is figure by figure what package main says of it.
func idle(r *work.Report) error {
	silence := silences * idlePath
	if r.Full {
		silence = longer * idlePath
	}
	all := idleTerms()
	return perform(len(all), idlePath, func(st *stage) error {
		naps := make([]nap, len(all))
		for i, t := range all {
			c, err := st.join(t.terms)
			if err != nil {
				return err
			}
			naps[i] = nap{client: c, kept: t.kept}
		}
		if err := st.sleep(naps, silence); err != nil {
			return err
		}
		for i := 0; i < len(naps); i += 2 {
			noteNaps(r, &naps[i], &naps[i+1])
		}
		return nil
	})
}

// An idler is a client whose connections something keeps, or not.
type idler struct {
	terms
	kept string
}

// idleTerms are ours and a peer for each driver and for each that may keep connections.
func idleTerms() (all []idler) {
	path := work.Path()
	path.Idle = idlePath
	silent := path
	silent.Counts = netpath.Bytes
	for _, kept := range []string{heartbeats, probes} {
		for _, driver := range drivers.Names {
			own, peer := terms{who: ours, driver: driver, conns: idleConns}, terms{who: plain, driver: driver, conns: idleConns}
			if kept == heartbeats {
				own.path = silent
				own.plan = keepalive.Plan{Idle: -1} // the gateway would count its probes
			} else {
				own.path = path
				own.config = sqlx.Config{Heartbeat: -1}
				peer.keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second}
			}
			for _, t := range []terms{own, peer} {
				t.address = len(all)
				all = append(all, idler{t, kept})
			}
		}
	}
	return all
}

// A nap is a client whose connections were idle, and what became of them.
type nap struct {
	*client
	kept string

	before, after int // flows opened until the silence, and until all is over

	mu     sync.Mutex // guards the fields below
	failed int
	causes work.Causes
	latest time.Duration
}

// sleep lets each client open its connections, be silent, and use them all.
func (st *stage) sleep(naps []nap, silence time.Duration) error {
	err := everyone(naps, func(n *nap) error { return n.fill(context.Background(), idleConns) })
	if err != nil {
		return err
	}
	for i := range naps {
		if naps[i].before, err = st.opened(naps[i].client); err != nil {
			return err
		}
	}
	work.Until(context.Background(), time.Now().Add(silence))
	everyone(naps, func(n *nap) error { n.use(); return nil })
	for i := range naps {
		if naps[i].after, err = st.opened(naps[i].client); err != nil {
			return err
		}
	}
	return nil
}

// everyone does something with all at a time.
func everyone(naps []nap, do func(n *nap) error) error {
	errs := make([]error, len(naps))
	var all sync.WaitGroup
	for i := range naps {
		all.Go(func() { errs[i] = do(&naps[i]) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// use asks something on every connection at a time.
func (n *nap) use() {
	var all sync.WaitGroup
	for range idleConns {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), impatience)
			defer cancel()
			begin := time.Now()
			err := n.ask(ctx, idleTakes)
			late := time.Since(begin) - idleTakes
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.latest = max(n.latest, late); err != nil {
				n.failed++
				n.causes.Add(err)
			}
		})
	}
	all.Wait()
}

// lateness is how late the last answer was, if all came.
func (n *nap) lateness() work.Reading {
	if n.failed > 0 {
		return work.MoreThan(impatience)
	}
	return work.Seconds(n.latest)
}

func noteNaps(r *work.Report, own, peer *nap) {
	note := func(m work.Measurement) { r.Note(m.At(own.driver, own.kept)) }
	note(work.Told("queries that failed", "", work.Number(own.failed)).Beside(plain, work.Number(peer.failed)).
		Said(own.causes.Err(), peer.causes.Err()).AtMost(0))
	note(work.Told("late by at most", "s", own.lateness()).Beside(plain, peer.lateness()))
	note(work.Told("connections opened again", "", work.Number(own.after-own.before)).Beside(plain, work.Number(peer.after-peer.before)))
}
