package sqlx

import (
	"context"
	"database/sql/driver"
)

// A tx is a transaction of a conn.
type tx struct {
	conn  *conn
	inner driver.Tx
	ctx   context.Context
}

const commit = "commit"

// Commit commits. An error during it leaves open whether it did, if it was sent.
func (t *tx) Commit() error {
	o := t.conn.begin(commit, true)
	t.conn.txs--
	return o.end(t.ctx, t.inner.Commit())
}

// Rollback rolls back.
func (t *tx) Rollback() error {
	o := t.conn.begin("rollback", true)
	t.conn.txs--
	return o.end(t.ctx, t.inner.Rollback())
}
