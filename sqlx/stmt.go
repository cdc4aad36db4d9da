package sqlx

import (
	"context"
	"database/sql/driver"
	"slices"
)

// statements are those that are prepared on a connection and kept for the next who
// prepares the same: database/sql, which sees a connection for one operation only, would
// prepare it each time.
//
// What they mean may change while they are kept. So they are forgotten before whatever
// is executed as mere text without arguments, as USE, SET and DDL are; and one that
// fails is not kept. What another connection does to a table they hear of as long-lived
// statements always do, from the server.
type statements struct {
	most int
	kept []*stmt // used last at the end
}

// A stmt is a prepared statement of a driver's.
type stmt struct {
	inner driver.Stmt
	conn  *conn
	query string
	bad   bool // not to be kept
}

var (
	_ driver.Stmt              = (*stmt)(nil)
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// A converting stmt is one whose driver has a driver.ColumnConverter, which
// database/sql must not see elsewhere.
type converting struct{ *stmt }

func (s converting) ColumnConverter(i int) driver.ValueConverter {
	return s.inner.(columnConverter).ColumnConverter(i)
}

// PrepareContext returns a statement that is prepared already, or prepares it.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s := c.stmts.take(query)
	if s == nil {
		o := c.begin("prepare", false)
		inner, err := prepare(ctx, c.inner, query)
		if err = o.end(ctx, err); err != nil {
			c.forget(ctx) // there may be too many
			return nil, err
		}
		s = &stmt{inner: inner, conn: c, query: query}
		s.bad = c.txs > 0 // behind PgBouncer another transaction meets another server, which has not prepared it
	}
	if _, ok := s.inner.(columnConverter); ok {
		return converting{s}, nil
	}
	return s, nil
}

func prepare(ctx context.Context, inner driver.Conn, query string) (driver.Stmt, error) {
	if p, ok := inner.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	s, err := inner.Prepare(query)
	if err == nil && ctx.Err() != nil {
		s.Close()
		return nil, ctx.Err()
	}
	return s, err
}

// take returns a kept statement, nil if there is none.
func (s *statements) take(query string) *stmt {
	for i, kept := range slices.Backward(s.kept) {
		if kept.query == query {
			s.kept = slices.Delete(s.kept, i, i+1)
			return kept
		}
	}
	return nil
}

// put keeps a statement, and returns the one that has to go for it, if any.
func (s *statements) put(back *stmt) (goes *stmt) {
	if back.bad || s.most == 0 || back.inner.NumInput() < 0 { // lib/pq's COPY is a statement once
		return back
	}
	s.kept = append(s.kept, back)
	if len(s.kept) > s.most {
		goes = s.kept[0]
		s.kept = slices.Delete(s.kept, 0, 1)
	}
	return goes
}

// Close gives the statement back to its connection. What is broken goes as a whole.
func (s *stmt) Close() error {
	c := s.conn
	if c.bad != nil {
		return nil
	}
	goes := c.stmts.put(s)
	if goes == nil {
		return nil
	}
	return c.drop(goes)
}

// drop has the driver close a statement.
func (c *conn) drop(s *stmt) error {
	c.busy = true
	err := s.inner.Close()
	c.busy = false
	return err
}

// forget drops all statements that are kept, until ctx ends.
func (c *conn) forget(ctx context.Context) {
	if len(c.stmts.kept) == 0 {
		return
	}
	if c.wire != nil {
		defer context.AfterFunc(ctx, c.cut)()
	}
	for _, s := range c.stmts.kept {
		c.drop(s) // what speaks against it the text will meet too
	}
	c.stmts.kept = nil
}

func (s *stmt) NumInput() int { return s.inner.NumInput() }

// ExecContext runs the statement. A driver that knows no context is asked no more than
// database/sql would.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (r driver.Result, err error) {
	x, ok := s.inner.(driver.StmtExecContext)
	if ok {
		o := s.begin("exec")
		r, err = x.ExecContext(ctx, args)
		return r, s.end(ctx, o, err)
	}
	values, err := plain(ctx, args)
	if err != nil {
		return nil, err
	}
	o := s.begin("exec")
	r, err = exec(s.inner, values)
	return r, s.end(ctx, o, err)
}

// QueryContext is ExecContext for what returns rows. The rows are the driver's own.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (r driver.Rows, err error) {
	x, ok := s.inner.(driver.StmtQueryContext)
	if ok {
		o := s.begin("query")
		r, err = x.QueryContext(ctx, args)
		return r, s.end(ctx, o, err)
	}
	values, err := plain(ctx, args)
	if err != nil {
		return nil, err
	}
	o := s.begin("query")
	r, err = query(s.inner, values)
	return r, s.end(ctx, o, err)
}

func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), named(args))
}

func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), named(args))
}

func (s *stmt) begin(name string) operation { return s.conn.begin(name, true) }

// end is that of the operation. A statement that has failed is not kept: what is wrong
// may be its plan, which another one would not have.
func (s *stmt) end(ctx context.Context, o operation, err error) error {
	s.bad = s.bad || err != nil
	return o.end(ctx, err)
}

// CheckNamedValue is the statement's own, or else the connection's: database/sql asks
// only the first of them that it sees.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if k, ok := s.inner.(driver.NamedValueChecker); ok {
		return k.CheckNamedValue(v)
	}
	return s.conn.check(v)
}
