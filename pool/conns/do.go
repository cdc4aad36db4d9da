package conns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// Do calls f with a connection to address, and puts it back if f returns nil or an
// error marked by pool.Clean. After any other error, and after a panic, it is
// closed. What f does on the connection ends with ctx; an error of f's then matches
// the context's cause too. Errors of Get are Do's.
func (p *Pool) Do(ctx context.Context, network, address string, f func(ctx context.Context, c *Conn) error) error {
	c, err := p.Get(ctx, network, address)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, f)
	return err
}

// do calls f. It reports whether that was done, which an answer that says no is too.
func (c *Conn) do(ctx context.Context, f func(ctx context.Context, c *Conn) error) (done bool, err error) {
	defer c.Close() // does nothing after Put
	stop := context.AfterFunc(ctx, func() {
		c.calledOff.Store(!errors.Is(ctx.Err(), context.DeadlineExceeded))
		c.SetDeadline(past)
	})
	defer stop()
	err = f(ctx, c)
	switch {
	case err == nil:
		c.Put()
	case pool.IsClean(err):
		c.Put()
		return true, errors.Unwrap(err)
	default:
		c.close(err)
		if cause := context.Cause(ctx); keepalive.FaultOf(err) == keepalive.Deadline && !errors.Is(err, cause) && cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}
	return err == nil, err
}

// suspectAfter is after how many retransmission timeouts of silence a connection
// is suspect: keepalive.Detector.
const suspectAfter = 3

// errOutrun is the cause of a run whose result nobody needs.
var errOutrun = errors.New("conns: the other run was first")

// Hedge is Do for what may be done twice, even at the same time. If the connection
// becomes suspect while f runs, because what it sent is not acknowledged though three
// retransmission timeouts have passed, f runs once more, beside itself, on an idle
// connection with fresh proof: on which the far end has answered within those
// timeouts, and so when this one was silent already. Then the path is alive and
// not slow, and it is this flow that is lost. As long as there is no such connection
// f does not run again: none is opened for it, and one that proved itself before the
// silence may have been lost with this one.
//
// The first run that returns nil, or an error marked by pool.Clean, wins. The
// other one's context is canceled with its Reads and Writes, and its connection is
// closed. If both fail, their errors are joined, in the order in which they came.
// Hedge returns when both have.
func (p *Pool) Hedge(ctx context.Context, network, address string, f func(ctx context.Context, c *Conn) error) error {
	c, err := p.Get(ctx, network, address)
	if err != nil {
		return err
	}
	r := &race{pool: p, key: key{network, address}, f: f, late: make(chan struct{})}
	r.ctx, r.stop = context.WithCancelCause(ctx)
	defer r.second.Wait() // after a panic; else there is nothing left to do
	defer r.stop(nil)
	flow := c.conn.flow
	flow.WhenSuspect(func(suspect bool) {
		if suspect {
			r.join(flow)
		}
	})
	r.run(c, func(ctx context.Context, c *Conn) error {
		defer close(r.late)
		defer r.begin()             // or rather: no second run begins any more
		defer flow.WhenSuspect(nil) // before somebody else has the connection
		return f(ctx, c)
	})
	r.second.Wait()
	return r.result()
}

// A race is one piece of work that is done twice if need be.
type race struct {
	pool *Pool
	key  key
	f    func(ctx context.Context, c *Conn) error

	ctx    context.Context // of both runs; ends when one has won
	stop   context.CancelCauseFunc
	second sync.WaitGroup
	late   chan struct{} // closed when the first run is over

	mu     sync.Mutex // guards the fields below
	begun  bool       // the second run, or it must not any more
	won    bool
	err    error   // the winner's
	failed []error // in order
}

// run calls f with c, and ends the race if that is done.
func (r *race) run(c *Conn, f func(ctx context.Context, c *Conn) error) {
	done, err := c.do(r.ctx, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.won:
	case done:
		r.won, r.err = true, err
		r.stop(errOutrun)
	default:
		r.failed = append(r.failed, err)
	}
}

// join begins the second run, if there is a connection for it, because the first
// one's is suspect.
func (r *race) join(first *dialer.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return
	}
	r.second.Go(func() { r.follow(first) })
}

// follow begins the second run as soon as there is a connection for it, if first is
// suspect for so long.
func (r *race) follow(first *dialer.Conn) {
	info, err := first.Info()
	if err != nil {
		return // it is over
	}
	again := time.NewTicker(max(info.RTO/4, time.Millisecond))
	defer again.Stop()
	for first.Suspect() {
		switch c := r.pool.fresh(r.key, suspectAfter*info.RTO); {
		case c == nil: // or they are all lent
		case r.begin():
			r.run(c, r.f)
			return
		default:
			c.Put()
			return
		}
		select {
		case <-again.C:
		case <-r.late:
			return
		}
	}
}

// begin reports true once.
func (r *race) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.begun
	r.begun = true
	return !was
}

func (r *race) result() error {
	switch {
	case r.won:
		return r.err
	case len(r.failed) == 1:
		return r.failed[0]
	}
	return errors.Join(r.failed...)
}

// fresh returns an idle connection on which the far end has answered within that
// time, nil if there is none.
func (p *Pool) fresh(k key, within time.Duration) *Conn {
	for {
		l, ok := p.group.TryGet(k, within)
		if !ok {
			return nil
		}
		v := l.Value()
		if err := v.check(); err != nil {
			l.Discard(err)
			continue
		}
		c := v.lent(context.Background(), l)
		if info, err := c.conn.flow.Info(); err == nil && info.LastProof > within {
			c.Put() // by somebody who had heard nothing on it, or it was only looked at
			return nil
		}
		return c
	}
}
