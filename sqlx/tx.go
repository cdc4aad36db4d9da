package sqlx

import (
	"context"
	"database/sql/driver"
)

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
