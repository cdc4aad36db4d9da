package sqlx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

var (
	_ driver.Conn               = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
	_ driver.SessionResetter    = resettable{}
)

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
		if len(args) == 0 {
			c.forget(ctx) // the text may be anything
		}
		o := c.begin("exec", true)
		r, err = x.ExecContext(ctx, query, args)
		return r, o.end(ctx, err)
	case execer:
		values, err := plain(ctx, args)
		if err != nil {
			return nil, err
		}
		if len(args) == 0 {
			c.forget(ctx)
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
	case queryer:
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
	c.txs++
	return &tx{c, inner, ctx}, nil
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
	t, err := begin(inner)
	if err == nil && ctx.Err() != nil {
		t.Rollback()
		return nil, ctx.Err()
	}
	return t, err
}

func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

// A resettable conn is one whose driver can say, after a transaction was ended by its
// context, what the connection is worth: only of such does database/sql keep it then.
// For everything else it does not matter that a driver has these methods.
type resettable struct{ *conn }

// seenBySQL is c as database/sql is to see it.
func (c *conn) seenBySQL() driver.Conn {
	if _, resets := c.inner.(driver.SessionResetter); resets && c.validates() {
		return resettable{c}
	}
	return c
}

func (c *conn) validates() bool {
	_, ok := c.inner.(driver.Validator)
	return ok
}

// ResetSession is the driver's own. database/sql calls it only where it keeps the
// connection itself.
func (r resettable) ResetSession(ctx context.Context) error {
	return r.inner.(driver.SessionResetter).ResetSession(ctx)
}

// IsValid reports whether the connection may go back to the pool. database/sql asks
// whenever it gives one back that nobody has called broken.
func (c *conn) IsValid() bool {
	c.valid = c.bad == nil && !c.busy
	if v, ok := c.inner.(driver.Validator); ok && c.valid {
		c.valid = v.IsValid()
	}
	return c.valid
}

// CheckNamedValue is the driver's own; driver.ErrSkip is as good as none. Of a driver that
// has to prepare everything it is the statement that is to be asked.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if !c.direct {
		return nil
	}
	return c.check(v)
}

func (c *conn) check(v *driver.NamedValue) error {
	if k, ok := c.inner.(driver.NamedValueChecker); ok {
		return k.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// direct reports whether a driver runs statements that are not prepared.
func direct(inner driver.Conn) bool {
	switch inner.(type) {
	case driver.ExecerContext, driver.QueryerContext, execer, queryer:
		return true
	}
	return false
}
