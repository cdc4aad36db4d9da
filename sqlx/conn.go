package sqlx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A conn is a pooled connection of a driver's, and what database/sql gets to see of it.
// It behaves as the driver's own does: what that one cannot do, it answers as
// database/sql would by itself (sql.go and ctxutil.go of Go 1.26).
//
// database/sql uses it from one goroutine at a time, the pool only while it is idle.
type conn struct {
	inner  driver.Conn
	direct bool // it runs statements that are not prepared
	of     *Connector
	wire   *wire // nil: Config.Unbooked, and none is known

	lease pool.Lease[*conn]
	turn  keepalive.Turn
	began time.Duration // of the lease, by Connector.clock

	lent  bool  // some lease was before this one
	busy  bool  // an operation is under way, or it has panicked
	valid bool  // database/sql has asked since the last operation, and it was
	bad   error // why it is not to be lent again
	txs   int   // transactions that are not over
	stmts statements
}

func newConn(of *Connector, inner driver.Conn, w *wire) *conn {
	return &conn{inner: inner, direct: direct(inner), of: of, wire: w, stmts: statements{most: or(of.cfg.Statements, defaultStatements)}}
}

// Unwrap returns the driver's own connection, and so does Raw, as others call it.
func (c *conn) Unwrap() driver.Conn { return c.inner }
func (c *conn) Raw() driver.Conn    { return c.inner }

// Raw calls f with the driver's own connection, as sql.Conn.Raw does with what
// database/sql has. What f writes nobody guards. If f returns driver.ErrBadConn the
// connection is closed.
func Raw(conn *sql.Conn, f func(driverConn any) error) error {
	return conn.Raw(func(dc any) error {
		for {
			w, ok := dc.(interface{ Unwrap() driver.Conn })
			if !ok {
				return f(dc)
			}
			dc = w.Unwrap()
		}
	})
}

// lend begins a lease, if the connection is in order.
func (c *conn) lend(ctx context.Context, l pool.Lease[*conn]) error {
	since, err := c.unpark()
	if err == nil && c.lent {
		err = c.reset(ctx, since)
	}
	if err != nil {
		return err
	}
	c.lease, c.lent, c.valid, c.began = l, true, false, c.of.clock()
	if flow := c.flow(); flow != nil {
		flow.Serve(ctx, since)
	}
	return nil
}

// unpark begins a turn, if what can be seen of the connection is in order. It returns since
// when it was idle; zero: it was not.
func (c *conn) unpark() (since time.Time, err error) {
	if c.wire == nil || c.wire.flow == nil {
		return since, nil
	}
	if at, parked := c.wire.Parked(); parked {
		since = at
	}
	if c.turn, err = c.wire.Unpark(); err != nil {
		return since, err
	}
	if _, err := c.wire.Peek(); err != nil {
		return since, err
	}
	if c.wire.Suspect() {
		return since, errSuspect
	}
	return since, nil
}

// reset is what database/sql does before it uses a connection again. A driver may take
// that for a reason to ask its server, who may be gone.
func (c *conn) reset(ctx context.Context, since time.Time) error {
	r, ok := c.inner.(driver.SessionResetter)
	if !ok {
		return nil
	}
	if c.wire != nil && !since.IsZero() && time.Since(since) >= fresh {
		defer time.AfterFunc(pingTimeout, c.cut).Stop()
	}
	if err := r.ResetSession(ctx); errors.Is(err, driver.ErrBadConn) {
		return err // others are dropped by database/sql, too
	}
	return nil
}

// flow is what the ledger has booked. Nil: it knows nothing of the connection.
func (c *conn) flow() *dialer.Conn {
	if c.wire == nil {
		return nil
	}
	return c.wire.flow
}

// cut ends the connection under the driver.
func (c *conn) cut() { c.wire.Close() }

// park ends the turn, if there is one, and offers the port to the ledger.
func (c *conn) park() error {
	if c.wire == nil || c.wire.flow == nil || c.wire.flow.Park(c.turn) {
		return nil
	}
	if _, err := c.wire.Peek(); err != nil {
		return err
	}
	return errUnused
}

// Close ends the lease. The connection goes back, unless there is something against it.
func (c *conn) Close() error {
	c.of.used(c.of.clock() - c.began)
	err := c.unfit()
	if err == nil {
		err = c.park()
	}
	if err != nil {
		c.lease.Discard(err)
	} else {
		c.lease.Put()
	}
	return nil
}

// unfit says why the connection cannot be lent again.
func (c *conn) unfit() error {
	switch {
	case c.bad != nil:
		return c.bad
	case c.busy:
		return errPanicked
	case c.txs > 0:
		return errInTx
	case !c.valid:
		return errUnused // Raw said so, or an error that we do not know
	}
	return nil
}

// end closes the driver's connection, in the way that its path likes best if it is idle.
// A goodbye that takes too long is cut off.
func (c *conn) end(cause error) {
	if w := c.wire; w != nil {
		if w.flow != nil {
			reason := pool.Discarded
			errors.As(cause, &reason)
			w.flow.Because(reason.String())
		}
		if _, parked := w.Parked(); parked && w.flow != nil {
			w.flow.EndSoonest()
		}
		defer c.cut() // for a driver that does not
		defer time.AfterFunc(pingTimeout, c.cut).Stop()
	}
	guarded("Close", c.inner.Close)
}

// ended says why the connection has ended, which was seen while nobody looked.
func (c *conn) ended() error {
	_, err := c.wire.Peek()
	switch keepalive.FaultOf(err) {
	case keepalive.Blackhole, keepalive.Unreachable:
		return err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", pool.Spent, err) // which says nothing of the others
}

// beat asks the server, by what the driver has for it.
func (c *conn) beat(ctx context.Context) error {
	if _, err := c.unpark(); err != nil {
		return ofOne(err)
	}
	p, ok := c.inner.(driver.Pinger)
	switch {
	case ok:
		if err := c.ping(ctx, p); err != nil {
			if flow := c.flow(); flow != nil {
				flow.Because(pool.Failed.String())
			}
			return err
		}
	case c.wire != nil && c.of.shaken.Load():
		return errUnasked // others were lost, and this one cannot prove anything
	}
	if c.wire != nil && c.wire.flow != nil && !c.wire.flow.ParkAgain(c.turn) {
		return errUnused
	}
	return nil
}

// ping asks and waits until ctx ends. The driver does not get to see that: PostgreSQL's
// would dial to have the question canceled.
func (c *conn) ping(ctx context.Context, p driver.Pinger) error {
	if c.wire == nil {
		return guarded("Ping", func() error { return p.Ping(ctx) })
	}
	stop := context.AfterFunc(ctx, c.cut)
	err := guarded("Ping", func() error { return p.Ping(context.WithoutCancel(ctx)) })
	if !stop() {
		return fmt.Errorf("sqlx: no answer to a heartbeat: %w", context.Cause(ctx))
	}
	return err
}

// ofOne tells what says nothing of other connections from what may.
func ofOne(err error) error {
	switch {
	case errors.Is(err, keepalive.ErrRetired):
		return fmt.Errorf("%w: %w", pool.Reclaimed, err)
	case errors.Is(err, keepalive.ErrStale):
		return fmt.Errorf("%w: %w", pool.Idled, err)
	}
	return err
}

// silentSince reports whether the server has said nothing since then.
func (w *wire) silentSince(then time.Time) bool {
	info, err := w.Info()
	return err != nil || info.LastProof > time.Since(then)
}
