package sqlx

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"

	"github.com/natwise/natwise/keepalive"
)

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
	o := operation{conn: c, name: name, harmful: harmful, inTx: c.txs > 0}
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
	bad := errors.Is(err, driver.ErrBadConn)
	sent, ended := o.seen()
	if bad || ended != nil || sent && o.unanswered(ctx) {
		o.doubt(ctx)
	}
	if !bad && ended == nil {
		if sent && ctx.Err() != nil && errors.Is(err, ctx.Err()) && !c.validates() {
			c.bad = err // who cannot say what it is worth may be closing it: pgx
		}
		return err
	}
	if c.bad == nil {
		c.bad = err
	}
	switch again := !sent || !o.harmful || !o.inTx && idempotent(ctx); {
	case bad && again && (o.name != commit || c.wire == nil):
		return err
	case !bad && ctx.Err() != nil:
		return err // whoever has called it off knows
	case again && !o.inTx:
		return &unsentError{err}
	}
	return &LostError{Op: o.name, Sent: sent, Err: err, Cause: cause(ended)}
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

// unanswered reports whether nothing has come by the caller's deadline.
func (o operation) unanswered(ctx context.Context) bool {
	return ctx.Err() == context.DeadlineExceeded && o.conn.wire.BytesRead() == o.read
}

// doubt has the other idle connections asked before they are lent, unless it was the
// caller who has ended this one: what has become of it may have become of them, and
// database/sql tries no more than three.
func (o operation) doubt(ctx context.Context) {
	if ctx.Err() != context.Canceled {
		o.conn.lease.Doubt()
	}
	if ctx.Err() == nil { // that a query is slow is no loss
		o.conn.of.shaken.Store(true)
	}
}

// cause is why a connection has ended under an operation, as far as that is known.
func cause(ended error) error {
	var hole *keepalive.BlackholeError
	switch {
	case errors.As(ended, &hole):
		return hole
	case errors.Is(ended, keepalive.ErrEnded):
		return errReset // else it would say that nothing was sent
	case errors.Is(ended, net.ErrClosed):
		return nil // by the driver
	}
	return ended
}

type idempotentKey struct{}

// Idempotent marks the operations of a context as such that do no harm if they run
// twice: a SELECT, an upsert. Outside of transactions, one whose connection was lost is
// run again on another, even if it was sent.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

func idempotent(ctx context.Context) bool { return ctx.Value(idempotentKey{}) != nil }
