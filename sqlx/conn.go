package sqlx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A conn is a pooled connection of a driver's, and what database/sql gets to see of it.
// It behaves as the driver's own does: what that one cannot do, it answers as
// database/sql would by itself (sql.go and ctxutil.go of Go 1.26).
//
// database/sql uses it from one goroutine at a time, the pool only while it is idle.
type conn struct {
	inner driver.Conn
	of    *Connector
	wire  *wire // nil: Config.Unbooked, and none is known

	lease pool.Lease[*conn]
	turn  keepalive.Turn
	began time.Time // of the lease

	lent  bool  // some lease was before this one
	busy  bool  // an operation is under way, or it has panicked
	valid bool  // database/sql has asked since the last operation, and it was
	bad   error // why it is not to be lent again
	tx    tx
	stmts statements
}

var (
	_ driver.Conn               = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
)

func newConn(of *Connector, inner driver.Conn, w *wire) *conn {
	return &conn{inner: inner, of: of, wire: w, stmts: statements{most: or(of.cfg.Statements, defaultStatements)}}
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
	idle, err := c.unpark()
	if err == nil && c.lent {
		err = c.reset(ctx, idle)
	}
	if err != nil {
		return err
	}
	c.lease, c.lent, c.valid, c.began = l, true, false, time.Now()
	return nil
}

// unpark begins a turn, if what can be seen of the connection is in order. It returns
// for how long it was idle.
func (c *conn) unpark() (idle time.Duration, err error) {
	if c.wire == nil || c.wire.flow == nil {
		return 0, nil
	}
	if since, parked := c.wire.Parked(); parked {
		idle = time.Since(since)
	}
	if c.turn, err = c.wire.Unpark(); err != nil {
		return 0, err
	}
	if _, err := c.wire.Peek(); err != nil {
		return 0, err
	}
	if c.wire.Suspect() {
		return 0, errSuspect
	}
	return idle, nil
}

// reset is what database/sql does before it uses a connection again. A driver may take
// that for a reason to ask its server, who may be gone.
func (c *conn) reset(ctx context.Context, idle time.Duration) error {
	r, ok := c.inner.(driver.SessionResetter)
	if !ok {
		return nil
	}
	if c.wire != nil && idle >= fresh {
		defer time.AfterFunc(pingTimeout, c.cut).Stop()
	}
	if err := r.ResetSession(ctx); errors.Is(err, driver.ErrBadConn) {
		return err // others are dropped by database/sql, too
	}
	return nil
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
	c.of.used(time.Since(c.began))
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
	case c.tx.inner != nil:
		return errInTx
	case !c.valid:
		return errUnused // Raw said so, or an error that we do not know
	}
	return nil
}

// end closes the driver's connection, in the way that its path likes best if it is idle.
// A goodbye that takes too long is cut off.
func (c *conn) end() {
	if w := c.wire; w != nil {
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
	if p, ok := c.inner.(driver.Pinger); ok {
		if err := c.ping(ctx, p); err != nil {
			return err
		}
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

// An operation is what is asked of a driver once.
type operation struct {
	conn    *conn
	name    string
	harmful bool // if it runs twice
	inTx    bool

	// Bytes on the wire when it began.
	read, written int64
}

// begin notes that an operation begins. One that does not come to its end, because the
// driver panics, leaves the connection busy.
func (c *conn) begin(name string, harmful bool) operation {
	c.busy, c.valid = true, false
	o := operation{conn: c, name: name, harmful: harmful, inTx: c.tx.inner != nil}
	if w := c.wire; w != nil {
		o.read, o.written = w.BytesRead(), w.BytesWritten()
		w.Asked() // if it is closed now, its late answer makes a RST of the FIN
	}
	return o
}

// end decides what database/sql is told: driver.ErrBadConn, which has it try again, if
// nothing was sent or nothing can come of it, whatever the driver says; and that the
// connection was lost, if it was.
func (o operation) end(ctx context.Context, err error) error {
	c := o.conn
	c.busy = false
	if c.wire != nil {
		c.wire.Answered()
	}
	if err == nil || err == driver.ErrSkip {
		return err
	}
	lost := errors.Is(err, driver.ErrBadConn)
	sent, cause := o.seen()
	if sent && o.unanswered(ctx, cause) {
		c.lease.Doubt()
	}
	if !lost && cause == nil {
		return err // the server's
	}
	if c.bad == nil {
		c.bad = err
	}
	switch again := !sent || !o.harmful || !o.inTx && idempotent(ctx); {
	case lost && again:
		return err
	case !lost && ctx.Err() != nil:
		return err // whoever has called it off knows
	case again && !o.inTx:
		return &unsentError{err}
	}
	if errors.Is(cause, net.ErrClosed) {
		cause = nil // by the driver
	}
	return &LostError{Op: o.name, Sent: sent, Err: err, Cause: cause}
}

// seen says what the wire knows of the operation: whether anything of it was sent, and
// why the connection has ended, if it has.
func (o operation) seen() (sent bool, ended error) {
	w := o.conn.wire
	if w == nil {
		return false, nil // it is for the driver to say
	}
	_, ended = w.Peek()
	return w.BytesWritten() != o.written, ended
}

// unanswered reports whether what was sent has vanished, as that of others may: on the
// way, or because nothing has come by the caller's deadline.
func (o operation) unanswered(ctx context.Context, ended error) bool {
	switch keepalive.FaultOf(ended) {
	case keepalive.Blackhole, keepalive.Unreachable:
		return true
	}
	return ctx.Err() == context.DeadlineExceeded && o.conn.wire.BytesRead() == o.read
}

type idempotentKey struct{}

// Idempotent marks the operations of a context as such that do no harm if they run
// twice: a SELECT, an upsert. Outside of transactions, one whose connection was lost is
// run again on another, even if it was sent.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

func idempotent(ctx context.Context) bool { return ctx.Value(idempotentKey{}) != nil }

// Ping asks the server. A driver that cannot is taken to be fine, as by database/sql.
func (c *conn) Ping(ctx context.Context) error {
	p, ok := c.inner.(driver.Pinger)
	if !ok {
		return nil
	}
	o := c.begin("ping", false)
	return o.end(ctx, p.Ping(ctx))
}

// ExecContext runs a statement, or returns a bare driver.ErrSkip, which has database/sql
// prepare it.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (r driver.Result, err error) {
	switch x := c.inner.(type) {
	case driver.ExecerContext:
		o := c.begin("exec", true)
		r, err = x.ExecContext(ctx, query, args)
		return r, o.end(ctx, err)
	case driver.Execer: //nolint:staticcheck // older drivers have only this one
		values, err := plain(ctx, args)
		if err != nil {
			return nil, err
		}
		o := c.begin("exec", true)
		r, err = x.Exec(query, values)
		return r, o.end(ctx, err)
	}
	return nil, driver.ErrSkip
}

// QueryContext is ExecContext for what returns rows. The rows are the driver's own.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (r driver.Rows, err error) {
	switch x := c.inner.(type) {
	case driver.QueryerContext:
		o := c.begin("query", true)
		r, err = x.QueryContext(ctx, query, args)
		return r, o.end(ctx, err)
	case driver.Queryer: //nolint:staticcheck // older drivers have only this one
		values, err := plain(ctx, args)
		if err != nil {
			return nil, err
		}
		o := c.begin("query", true)
		r, err = x.Query(query, values)
		return r, o.end(ctx, err)
	}
	return nil, driver.ErrSkip
}

// plain returns arguments for a driver that knows neither names nor contexts.
func plain(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		if a.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = a.Value
	}
	return values, ctx.Err()
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// BeginTx begins a transaction. Of a driver that knows no context and no options it asks
// no more than database/sql would.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	o := c.begin("begin", false)
	inner, err := beginTx(ctx, c.inner, opts)
	if err = o.end(ctx, err); err != nil {
		return nil, err
	}
	c.tx = tx{c, inner, ctx}
	return &c.tx, nil
}

func beginTx(ctx context.Context, inner driver.Conn, opts driver.TxOptions) (driver.Tx, error) {
	if b, ok := inner.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, opts)
	}
	switch {
	case sql.IsolationLevel(opts.Isolation) != sql.LevelDefault:
		return nil, errors.New("sql: driver does not support non-default isolation level")
	case opts.ReadOnly:
		return nil, errors.New("sql: driver does not support read-only transactions")
	}
	t, err := inner.Begin() //nolint:staticcheck // older drivers have only this one
	if err == nil && ctx.Err() != nil {
		t.Rollback()
		return nil, ctx.Err()
	}
	return t, err
}

func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

// ResetSession is the driver's own. It is called by database/sql only where that keeps
// the connection itself.
func (c *conn) ResetSession(ctx context.Context) error {
	if r, ok := c.inner.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid reports whether the connection may go back to the pool.
func (c *conn) IsValid() bool {
	c.valid = c.bad == nil && !c.busy
	if v, ok := c.inner.(driver.Validator); ok && c.valid {
		c.valid = v.IsValid()
	}
	return c.valid
}

// survives reports whether database/sql keeps a connection whose transaction was ended by
// a context: where the driver can say afterwards what it is worth.
func (c *conn) survives() bool {
	_, resets := c.inner.(driver.SessionResetter)
	_, validates := c.inner.(driver.Validator)
	return resets && validates
}

// CheckNamedValue is the driver's own; driver.ErrSkip is as good as none.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if k, ok := c.inner.(driver.NamedValueChecker); ok {
		return k.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// A tx is the transaction of a conn, which has one at a time.
type tx struct {
	conn  *conn
	inner driver.Tx // nil: there is none
	ctx   context.Context
}

// Commit commits. An error during it leaves open whether it did, if it was sent.
func (t *tx) Commit() error {
	o := t.conn.begin("commit", true)
	err := t.inner.Commit()
	return o.end(t.over(), err)
}

// Rollback rolls back. If its context has ended the transaction, the connection is as
// good afterwards as it would be for database/sql.
func (t *tx) Rollback() error {
	c := t.conn
	o := c.begin("rollback", true)
	err := t.inner.Rollback()
	ctx := t.over()
	if ctx.Err() != nil && !c.survives() && c.bad == nil {
		c.bad = errEndedTx
	}
	return o.end(ctx, err)
}

// over ends the transaction, and returns the context that it had.
func (t *tx) over() context.Context {
	ctx := t.ctx
	t.inner, t.ctx = nil, nil
	return ctx
}
