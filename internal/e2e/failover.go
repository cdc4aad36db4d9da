package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/sqlx"
)

const (
	crew      = 50                    // connections of each client
	rate      = 5 * time.Millisecond  // between two queries
	takes     = 10 * time.Millisecond // each of them
	before    = time.Second
	outage    = time.Second // then another server is started, or the path works again
	after     = 6 * time.Second
	afterFull = 45 * time.Second

	patience = 5 * time.Second // of ours with connects that fail
	side     = 2               // sqlx.Dialer.Side, unless it says otherwise
)

// An accident is what happens to all connections at once, and how it ends.
type accident struct {
	name         string
	strike, mend func(st *stage) error
}

var accidents = []accident{
	{"server killed", (*stage).kill, (*stage).start},
	{"path gone", (*stage).darken, (*stage).lighten},
}

// kill ends both servers at once: the kernel ends their connections.
func (st *stage) kill() error {
	st.each((*servers.Server).Kill)
	return nil
}

func (st *stage) start() error {
	st.each((*servers.Server).Start)
	return nil
}

// darken has every packet vanish.
func (st *stage) darken() error { return st.Blackhole(netip.AddrPort{}, true) }

// lighten lets packets pass, of new flows.
func (st *stage) lighten() error {
	return errors.Join(st.Forget(), st.Blackhole(netip.AddrPort{}, false))
}

// failover is figure by figure what package main says of it. Clients of one kind are
// there at a time, so that none connects again while others need the machine for that.
func failover(r *work.Report) error {
	lasts := after
	if r.Full {
		lasts = afterFull
	}
	kinds := []string{ours, plain, pgxPool}
	addresses := len(kinds) * len(drivers.Names)
	return perform(addresses, work.Path().Idle, func(st *stage) error {
		for _, a := range accidents {
			met := make(map[pool]*stream)
			for i, who := range kinds {
				if err := st.meet(a, who, i*len(drivers.Names), lasts, met); err != nil {
					return err
				}
			}
			for _, driver := range drivers.Names {
				noteFailover(r, a, met[pool{ours, driver}], met[pool{plain, driver}])
			}
			noteFailover(r, a, met[pool{ours, drivers.PGX}], met[pool{pgxPool, drivers.PGX}])
		}
		return nil
	})
}

// A pool is whose, and of which driver.
type pool struct{ who, driver string }

// meet has the clients of one kind meet with an accident. Their addresses begin at
// first.
func (st *stage) meet(a accident, who string, first int, lasts time.Duration, met map[pool]*stream) error {
	var streams []*stream
	for i, driver := range drivers.Names {
		if who == pgxPool && driver != drivers.PGX {
			continue
		}
		c, err := st.join(terms{
			who: who, driver: driver, address: first + i, conns: crew,
			path: work.Path(), config: sqlx.Config{Patience: patience}, keepAlive: goes,
		})
		if err != nil {
			return err
		}
		s := newStream(c)
		streams = append(streams, s)
		met[pool{who, driver}] = s
	}
	return errors.Join(st.run(streams, a, lasts), st.leave())
}

// run has each client ask all the time, with an accident in between.
func (st *stage) run(streams []*stream, a accident, lasts time.Duration) error {
	var all sync.WaitGroup
	errs := make([]error, len(streams))
	for i, s := range streams {
		all.Go(func() { errs[i] = s.fill(context.Background(), crew) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	begin := time.Now()
	for _, s := range streams {
		all.Go(func() { s.Flow(begin, before+lasts, s.askAt) })
	}
	work.Until(context.Background(), begin.Add(before))
	err := st.befall(streams, a)
	all.Wait()
	for _, s := range streams {
		err = errors.Join(err, st.mark(s, &s.over))
	}
	return err
}

// befall is the accident.
func (st *stage) befall(streams []*stream, a accident) error {
	struck := time.Now()
	for _, s := range streams {
		if err := st.mark(s, &s.struck); err != nil {
			return err
		}
	}
	if err := a.strike(st); err != nil {
		return err
	}
	work.Until(context.Background(), struck.Add(outage))
	err := a.mend(st)
	for _, s := range streams {
		err = errors.Join(err, st.mark(s, &s.mended))
	}
	return err
}

// mark notes that something has happened to a client.
func (st *stage) mark(s *stream, m *mark) (err error) {
	m.at = time.Now()
	m.dials, err = st.opened(s.client)
	return err
}

// noteFailover notes what an accident has done to ours, and to a peer.
func noteFailover(r *work.Report, a accident, own, peer *stream) {
	note := func(figure, unit string, of func(s *stream) work.Reading) work.Measurement {
		return work.Told(figure, unit, of(own)).At(own.driver, a.name).Beside(peer.who, of(peer))
	}
	mine, theirs := own.late(), peer.late()
	r.Note(note("queries from then on", "", func(s *stream) work.Reading { return work.Number(s.late().All()) }))
	r.Note(note("failed", "", func(s *stream) work.Reading { return work.Number(s.late().Failed) }).
		Said(mine.Causes.Err(), theirs.Causes.Err()))
	r.Note(note("late by, p99", "s", func(s *stream) work.Reading { return s.late().Quantile(0.99) }))
	r.Note(note("it was over after", "s", func(s *stream) work.Reading { return work.Seconds(s.mended.at.Sub(s.struck.at)) }))
	r.Note(note("all well again after", "s", (*stream).recovery))
	r.Note(note("connections dialed until it was over", "", func(s *stream) work.Reading { return work.Number(s.mended.dials - s.struck.dials) }))
	dialed := note("connections dialed from then on", "", func(s *stream) work.Reading { return work.Number(s.over.dials - s.struck.dials) })
	if peer.who == plain { // one bound is enough where there are two peers
		dialed = dialed.AtMost(crew + side)
	}
	r.Note(dialed)
}
