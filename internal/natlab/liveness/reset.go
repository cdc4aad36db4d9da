package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

const (
	resets     = 100
	resetBound = 10.0 // ms
	never      = time.Second
)

// resetOnIdle resets connections that are parked.
func resetOnIdle(r *work.Report) (err error) {
	st, err := open(natlab.Config{Path: roomy()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, over := range []string{plain, overTLS, http2} {
		own, err := st.resetAll(ctx, st.parker(ours, over))
		if err != nil {
			return err
		}
		other, err := st.resetAll(ctx, st.parker(peer, over))
		if err != nil {
			return err
		}
		for _, q := range []struct {
			name string
			of   float64
		}{{"median", 0.5}, {"worst", 1}} {
			r.Note(measured("from the RST until it is dropped, "+q.name, "ms", own.took(q.of), resetBound).
				Beside(tuned, other.took(q.of)).At(over, ""))
		}
		r.Note(measured("requests failed at that moment", "", work.Number(own.failed), 0).
			Beside(tuned, work.Number(other.failed)).At(over, "").Said(own.err, other.err))
	}
	return nil
}

// A parker parks connections that can be reset.
type parker interface {
	// park parks a connection as the next to be lent. The server's end goes by
	// that name; what is told when it is dropped is sent on the channel.
	park(ctx context.Context, as string) (dropped <-chan time.Time, err error)
	ask(ctx context.Context) error
	close()
}

// A wreck is what became of connections that were reset.
type wreck struct {
	dropped []time.Duration // after the RST
	failed  int             // requests
	err     error
}

func (w wreck) took(q float64) work.Reading {
	d := w.dropped[int(q*float64(len(w.dropped)))-1]
	if d >= never {
		v := milliseconds(never)
		v.More = true
		return v
	}
	return milliseconds(d)
}

// resetAll resets parked connections one after the other: half of them to see
// when they are dropped, and half to ask something else at that very moment.
func (st *stage) resetAll(ctx context.Context, p parker) (w wreck, err error) {
	defer p.close()
	for i := range 2 * resets {
		as := fmt.Sprint("victim ", i)
		dropped, err := p.park(ctx, as)
		if err != nil {
			return w, err
		}
		at, err := st.origin.reset(as)
		if err != nil {
			return w, err
		}
		if i%2 == 1 {
			if err := p.ask(ctx); err != nil {
				w.failed, w.err = w.failed+1, err
			}
		}
		took := waitFor(dropped, at)
		if i%2 == 0 {
			w.dropped = append(w.dropped, took)
		}
	}
	slices.Sort(w.dropped)
	return w, nil
}

// waitFor returns how long after at the connection was dropped, or never.
func waitFor(dropped <-chan time.Time, at time.Time) time.Duration {
	t := time.NewTimer(never)
	defer t.Stop()
	select {
	case then := <-dropped:
		return then.Sub(at)
	case <-t.C:
		return never
	}
}

// parker returns one of natwise's or of net/http's. net/http has no connections
// without HTTP.
func (st *stage) parker(who side, over string) parker {
	if who == ours && over != http2 {
		return st.poolParker(over)
	}
	return &webParker{stage: st, who: who, over: asHTTP[over]}
}

// A poolParker parks in a conns.Pool.
type poolParker struct {
	*conns.Pool
	address string
	closed  chan time.Time
}

func (st *stage) poolParker(over string) *poolParker {
	p := &poolParker{closed: make(chan time.Time, 1)}
	cfg := config(over, st.tls)
	cfg.Observe = func(_ string, e pool.Event) {
		if e.Kind != pool.Closed {
			return
		}
		select {
		case p.closed <- time.Now():
		default: // in the end, when nobody listens
		}
	}
	p.Pool = conns.New(st.dialer, cfg)
	p.address = at(st.Server(0), over).String()
	return p
}

// park leaves another connection idle too.
func (p *poolParker) park(ctx context.Context, as string) (<-chan time.Time, error) {
	victim, err := p.use(ctx, name, as)
	if err != nil {
		return nil, err
	}
	if err := p.ask(ctx); err != nil {
		return nil, err
	}
	victim.Put()
	return p.closed, nil
}

func (p *poolParker) ask(ctx context.Context) error {
	c, err := p.use(ctx, answer, "")
	if err == nil {
		c.Put()
	}
	return err
}

func (p *poolParker) use(ctx context.Context, what byte, text string) (*conns.Conn, error) {
	c, err := p.Get(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if err := exchange(c, what, text, time.Now().Add(answerDue)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (p *poolParker) close() { p.Pool.Close(context.Background()) }

// A webParker parks in an http.Transport, a new one each time, whose only
// connection it is.
type webParker struct {
	stage *stage
	who   side
	over  string
	now   line
}

func (p *webParker) park(ctx context.Context, as string) (<-chan time.Time, error) {
	p.close()
	l, err := p.stage.line(ctx, p.who, p.over, 0)
	if err != nil {
		return nil, err
	}
	p.now = l
	if err := l.name(ctx, as); err != nil {
		return nil, err
	}
	dropped := make(chan time.Time, 1)
	go func() {
		<-l.end().over
		dropped <- l.end().at
	}()
	return dropped, nil
}

func (p *webParker) ask(ctx context.Context) error { return p.now.ask(ctx) }

func (p *webParker) close() {
	if p.now != nil {
		p.now.close()
	}
}
