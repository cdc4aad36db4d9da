package sqlx_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/sqlx"
)

// An oldDriver is one that has few of the optional interfaces, and notes what it is asked.
// Its connections know no network.
type oldDriver struct {
	conn func(*oldConn) driver.Conn // what database/sql gets to see of a connection
	stmt func(*oldStmt) driver.Stmt // and of a statement

	mu    sync.Mutex // guards the fields below
	conns int
	seen  []string
}

func (d *oldDriver) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, fmt.Sprintf(format, args...))
}

func (d *oldDriver) Driver() driver.Driver            { return d }
func (d *oldDriver) Open(string) (driver.Conn, error) { return nil, errors.ErrUnsupported }

func (d *oldDriver) Connect(context.Context) (driver.Conn, error) {
	d.mu.Lock()
	d.conns++
	c := &oldConn{d, fmt.Sprint("conn ", d.conns)}
	d.mu.Unlock()
	d.note("%s: connect", c.name)
	return d.conn(c), nil
}

// An oldConn has what every connection must have.
type oldConn struct {
	of   *oldDriver
	name string
}

func (c *oldConn) Prepare(query string) (driver.Stmt, error) {
	c.of.note("%s: prepare %s", c.name, query)
	if query == "wrong" {
		return nil, errors.New("wrong")
	}
	return c.of.stmt(&oldStmt{c, query}), nil
}

func (c *oldConn) Begin() (driver.Tx, error) {
	c.of.note("%s: begin", c.name)
	return oldTx{c}, nil
}

func (c *oldConn) Close() error {
	c.of.note("%s: close", c.name)
	return nil
}

type oldTx struct{ *oldConn }

func (t oldTx) Commit() error   { t.of.note("%s: commit", t.name); return nil }
func (t oldTx) Rollback() error { t.of.note("%s: rollback", t.name); return nil }

// An oldStmt has what every statement must have.
type oldStmt struct {
	of    *oldConn
	query string
}

func (s *oldStmt) Close() error { s.of.of.note("%s: close %s", s.of.name, s.query); return nil }

// NumInput is what the query says, by question marks, or that it cannot be said.
func (s *oldStmt) NumInput() int {
	if strings.Contains(s.query, "any") {
		return -1
	}
	return strings.Count(s.query, "?")
}

func (s *oldStmt) Exec(args []driver.Value) (driver.Result, error) {
	s.of.of.note("%s: statement's exec %s %v", s.of.name, s.query, typed(args))
	return driver.RowsAffected(1), nil
}

func (s *oldStmt) Query(args []driver.Value) (driver.Rows, error) {
	s.of.of.note("%s: statement's query %s %v", s.of.name, s.query, typed(args))
	return new(oldRows), nil
}

// typed tells arguments with their types, and by name where they have one.
func typed[T any](args []T) (said []string) {
	for _, a := range args {
		switch a := any(a).(type) {
		case driver.NamedValue:
			said = append(said, fmt.Sprintf("%s%d=%T(%v)", a.Name, a.Ordinal, a.Value, a.Value))
		default:
			said = append(said, fmt.Sprintf("%T(%v)", a, a))
		}
	}
	return said
}

type oldRows struct{ read bool }

func (r *oldRows) Columns() []string { return []string{"a"} }
func (r *oldRows) Close() error      { return nil }
func (r *oldRows) Next(to []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read, to[0] = true, int64(7)
	return nil
}

// What connections may have besides.
type (
	oldExecer  struct{ *oldConn }  // Execer and Queryer, without contexts
	oldSkipper struct{ oldExecer } // those with contexts too, which want to be asked otherwise
	oldWrapper struct{ *oldConn }  // the same, saying so with more words
	oldPinger  struct {
		*oldConn
		err error
	}
	oldResetter struct {
		*oldConn
		err error
	}
	oldValidator struct {
		*oldConn
		valid bool
	}
	oldBoth struct {
		oldResetter
		oldValidator
	}
	oldChecker struct {
		oldExecer
		err error
	}
	oldPreparer struct{ *oldConn }
	oldBeginner struct{ *oldConn }
)

func (c oldExecer) Exec(query string, args []driver.Value) (driver.Result, error) {
	c.of.note("%s: exec %s %v", c.name, query, typed(args))
	if query == "otherwise" {
		return nil, driver.ErrSkip
	}
	return driver.RowsAffected(2), nil
}

func (c oldExecer) Query(query string, args []driver.Value) (driver.Rows, error) {
	c.of.note("%s: query %s %v", c.name, query, typed(args))
	if query == "otherwise" {
		return nil, driver.ErrSkip
	}
	return new(oldRows), nil
}

func (c oldSkipper) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.of.note("%s: exec, in vain, %s %v", c.name, query, typed(args))
	return nil, driver.ErrSkip
}

func (c oldSkipper) QueryContext(_ context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.of.note("%s: query, in vain, %s %v", c.name, query, typed(args))
	return nil, driver.ErrSkip
}

func (c oldWrapper) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return nil, fmt.Errorf("otherwise: %w", driver.ErrSkip)
}

func (c oldWrapper) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, fmt.Errorf("otherwise: %w", driver.ErrSkip)
}

func (c oldPinger) Ping(context.Context) error { c.of.note("%s: ping", c.name); return c.err }

func (c oldResetter) ResetSession(context.Context) error {
	c.of.note("%s: reset", c.name)
	return c.err
}

func (c oldValidator) IsValid() bool { c.of.note("%s: valid?", c.name); return c.valid }

func (c oldBoth) Prepare(query string) (driver.Stmt, error) { return c.oldResetter.Prepare(query) }
func (c oldBoth) Begin() (driver.Tx, error)                 { return c.oldResetter.Begin() }
func (c oldBoth) Close() error                              { return c.oldResetter.Close() }

func (c oldChecker) CheckNamedValue(v *driver.NamedValue) error {
	c.of.note("%s: check %T(%v)", c.name, v.Value, v.Value)
	if s, ok := v.Value.(string); ok && c.err == nil {
		v.Value = s + ", checked"
	}
	return c.err
}

func (c oldPreparer) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("of the driver's: %w", ctx.Err())
	}
	return c.Prepare(query)
}

func (c oldBeginner) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	c.of.note("%s: begin %v %v", c.name, o.Isolation, o.ReadOnly)
	return oldTx(c), nil
}

// What statements may have besides.
type (
	oldConverter   struct{ *oldStmt }
	oldStmtChecker struct {
		*oldStmt
		err error
	}
	oldCheckingConverter struct {
		oldStmtChecker
		oldConverter
	}
	oldStmtContext struct{ *oldStmt }
)

func (s oldConverter) ColumnConverter(i int) driver.ValueConverter { return oldConversion(i) }

type oldConversion int

func (c oldConversion) ConvertValue(v any) (driver.Value, error) {
	if v == "not to be converted" {
		return nil, errors.New("of the converter's")
	}
	return fmt.Sprintf("%d: %v", c, v), nil
}

func (s oldStmtChecker) CheckNamedValue(v *driver.NamedValue) error {
	s.of.of.note("%s: statement's check %T(%v)", s.of.name, v.Value, v.Value)
	return s.err
}

func (s oldCheckingConverter) Close() error  { return s.oldStmtChecker.Close() }
func (s oldCheckingConverter) NumInput() int { return s.oldStmtChecker.NumInput() }
func (s oldCheckingConverter) Exec(args []driver.Value) (driver.Result, error) {
	return s.oldStmtChecker.Exec(args)
}
func (s oldCheckingConverter) Query(args []driver.Value) (driver.Rows, error) {
	return s.oldStmtChecker.Query(args)
}

func (s oldStmtContext) ExecContext(_ context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.of.of.note("%s: statement's exec with a context %s %v", s.of.name, s.query, typed(args))
	return driver.RowsAffected(3), nil
}

func (s oldStmtContext) QueryContext(_ context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.of.of.note("%s: statement's query with a context %s %v", s.of.name, s.query, typed(args))
	return new(oldRows), nil
}

func bareConn(c *oldConn) driver.Conn { return c }
func bareStmt(s *oldStmt) driver.Stmt { return s }

// oldKinds are connections and statements with one optional interface or another.
var oldKinds = []struct {
	name string
	conn func(*oldConn) driver.Conn
	stmt func(*oldStmt) driver.Stmt
}{
	{"none", bareConn, bareStmt},
	{"Execer and Queryer without contexts", func(c *oldConn) driver.Conn { return oldExecer{c} }, bareStmt},
	{"ErrSkip from ExecContext and QueryContext", func(c *oldConn) driver.Conn { return oldSkipper{oldExecer{c}} }, bareStmt},
	{"a wrapped ErrSkip", func(c *oldConn) driver.Conn { return oldWrapper{c} }, bareStmt},
	{"Pinger", func(c *oldConn) driver.Conn { return oldPinger{c, nil} }, bareStmt},
	{"Pinger with an error", func(c *oldConn) driver.Conn { return oldPinger{c, errors.New("no answer")} }, bareStmt},
	{"Pinger with ErrSkip", func(c *oldConn) driver.Conn { return oldPinger{c, driver.ErrSkip} }, bareStmt},
	{"SessionResetter", func(c *oldConn) driver.Conn { return oldResetter{c, nil} }, bareStmt},
	{"SessionResetter with an error", func(c *oldConn) driver.Conn { return oldResetter{c, errors.New("not so bad")} }, bareStmt},
	{"SessionResetter with ErrBadConn", func(c *oldConn) driver.Conn { return oldResetter{c, driver.ErrBadConn} }, bareStmt},
	{"Validator", func(c *oldConn) driver.Conn { return oldValidator{c, true} }, bareStmt},
	{"Validator that says no", func(c *oldConn) driver.Conn { return oldValidator{c, false} }, bareStmt},
	{"SessionResetter and Validator", func(c *oldConn) driver.Conn { return oldBoth{oldResetter{c, nil}, oldValidator{c, true}} }, bareStmt},
	{"NamedValueChecker", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, nil} }, bareStmt},
	{"NamedValueChecker with ErrSkip", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, driver.ErrSkip} }, bareStmt},
	{"NamedValueChecker with ErrRemoveArgument", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, driver.ErrRemoveArgument} }, bareStmt},
	{"NamedValueChecker with an error", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, errors.New("not this")} }, bareStmt},
	{"ConnPrepareContext", func(c *oldConn) driver.Conn { return oldPreparer{c} }, bareStmt},
	{"ConnBeginTx", func(c *oldConn) driver.Conn { return oldBeginner{c} }, bareStmt},
	{"ColumnConverter", bareConn, func(s *oldStmt) driver.Stmt { return oldConverter{s} }},
	{"ColumnConverter and the Conn's NamedValueChecker with ErrSkip", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, driver.ErrSkip} }, func(s *oldStmt) driver.Stmt { return oldConverter{s} }},
	{"the Stmt's NamedValueChecker", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, nil} }, func(s *oldStmt) driver.Stmt { return oldStmtChecker{s, nil} }},
	{"the Stmt's NamedValueChecker with ErrSkip", func(c *oldConn) driver.Conn { return oldChecker{oldExecer{c}, nil} }, func(s *oldStmt) driver.Stmt { return oldStmtChecker{s, driver.ErrSkip} }},
	{"the Stmt's NamedValueChecker with ErrSkip, and ColumnConverter", bareConn, func(s *oldStmt) driver.Stmt {
		return oldCheckingConverter{oldStmtChecker{s, driver.ErrSkip}, oldConverter{s}}
	}},
	{"StmtExecContext and StmtQueryContext", bareConn, func(s *oldStmt) driver.Stmt { return oldStmtContext{s} }},
}

// oldUses are what a program may do with a DB.
var oldUses = []struct {
	name string
	f    func(ctx context.Context, db *sql.DB, see func(...any))
}{
	{"ping", func(ctx context.Context, db *sql.DB, see func(...any)) {
		see(db.PingContext(ctx))
		see(db.PingContext(ctx))
	}},
	{"exec", func(ctx context.Context, db *sql.DB, see func(...any)) {
		for _, a := range oldArguments {
			r, err := db.ExecContext(ctx, a.query, a.args...)
			if see(err); err == nil {
				see(r.LastInsertId())
				see(r.RowsAffected())
			}
		}
	}},
	{"query", func(ctx context.Context, db *sql.DB, see func(...any)) {
		for _, a := range oldArguments {
			oldRead(see)(db.QueryContext(ctx, a.query, a.args...))
		}
	}},
	{"prepare", func(ctx context.Context, db *sql.DB, see func(...any)) {
		// Of a Conn, which stays: a statement of the DB's is closed with each use of a
		// connection, as none are kept.
		c, err := db.Conn(ctx)
		see(err)
		for _, a := range oldArguments {
			st, err := c.PrepareContext(ctx, a.query)
			if see(err); err != nil {
				continue
			}
			_, err = st.ExecContext(ctx, a.args...)
			see(err)
			oldRead(see)(st.QueryContext(ctx, a.args...))
			see(st.Close())
		}
		see(c.Close())
	}},
	{"transactions", func(ctx context.Context, db *sql.DB, see func(...any)) {
		for _, o := range []*sql.TxOptions{nil, {}, {Isolation: sql.LevelSerializable}, {ReadOnly: true}} {
			tx, err := db.BeginTx(ctx, o)
			if see(err); err != nil {
				continue
			}
			_, err = tx.ExecContext(ctx, "in it ?", 1)
			see(err)
			see(tx.Commit(), tx.Rollback())
		}
	}},
	{"a transaction whose context ends", func(ctx context.Context, db *sql.DB, see func(...any)) {
		within, cancel := context.WithCancel(ctx)
		tx, err := db.BeginTx(within, nil)
		see(err)
		cancel()
		synctest.Wait()
		see(tx.Commit())
		_, err = db.ExecContext(ctx, "afterwards")
		see(err)
	}},
	{"a transaction of a Conn whose context ends", func(ctx context.Context, db *sql.DB, see func(...any)) {
		c, err := db.Conn(ctx)
		see(err)
		within, cancel := context.WithCancel(ctx)
		tx, err := c.BeginTx(within, nil)
		see(err)
		cancel()
		synctest.Wait()
		see(tx.Commit())
		_, err = c.ExecContext(ctx, "afterwards")
		see(err)
		see(c.Close())
		_, err = db.ExecContext(ctx, "at last")
		see(err)
	}},
	{"two transactions of a Conn", func(ctx context.Context, db *sql.DB, see func(...any)) {
		c, err := db.Conn(ctx)
		see(err)
		first, err := c.BeginTx(ctx, nil)
		see(err)
		second, err := c.BeginTx(ctx, nil)
		see(err)
		defer func() {
			if v := recover(); v != nil {
				see("panic", v)
			}
		}()
		see(first.Commit())
		see(second.Rollback())
		see(c.Close())
	}},
	{"a context that has ended", func(ctx context.Context, db *sql.DB, see func(...any)) {
		ended, cancel := context.WithCancel(ctx)
		c, err := db.Conn(ctx)
		see(err)
		cancel()
		_, err = c.ExecContext(ended, "late")
		see(err)
		_, err = c.QueryContext(ended, "late ?", 1)
		see(err)
		_, err = c.PrepareContext(ended, "late")
		see(err)
		_, err = c.BeginTx(ended, nil)
		synctest.Wait() // a driver may not have looked, and database/sql rolls back
		see(err)
		see(c.PingContext(ended))
		see(c.Close())
	}},
	{"Raw", func(ctx context.Context, db *sql.DB, see func(...any)) {
		c, err := db.Conn(ctx)
		see(err)
		see(sqlx.Raw(c, func(dc any) error { see(fmt.Sprintf("%T", dc)); return driver.ErrBadConn }))
		see(c.PingContext(ctx))
		_, err = db.ExecContext(ctx, "afterwards")
		see(err)
	}},
}

var oldArguments = []struct {
	query string
	args  []any
}{
	{"nothing", nil}, {"one ?", []any{1}}, {"one ?", []any{"text"}}, {"one ?", nil}, {"one ?", []any{1, 2}}, {"any", []any{1, "text", nil}},
	{"two ? ?", []any{uint8(1), []byte("bytes")}}, {"one ?", []any{struct{}{}}}, {"one ?", []any{sql.Named("name", 1)}},
	{"one ?", []any{"not to be converted"}}, {"otherwise", nil}, {"otherwise any", []any{1}}, {"wrong", nil},
}

// oldRead reads what a query has returned.
func oldRead(see func(...any)) func(*sql.Rows, error) {
	return func(rows *sql.Rows, err error) {
		if see(err); err != nil {
			return
		}
		for rows.Next() {
			var v any
			see(rows.Scan(&v), v)
		}
		see(rows.Err(), rows.Close())
	}
}

// TestEveryOptionalInterfaceIsAskedAsIfUnwrapped compares what the driver is asked, and
// what the program is told. No statement is kept: who closes one has closed it.
func TestEveryOptionalInterfaceIsAskedAsIfUnwrapped(t *testing.T) {
	for _, kind := range oldKinds {
		for _, use := range oldUses {
			t.Run(kind.name+"/"+use.name, func(t *testing.T) {
				look := func(open func(driver.Connector) *sql.DB) (seen []string) {
					synctest.Test(t, func(t *testing.T) {
						d := &oldDriver{conn: kind.conn, stmt: kind.stmt}
						db := open(d)
						use.f(t.Context(), db, func(what ...any) { d.note("told %v", what) })
						synctest.Wait()
						seen = slices.Clone(d.seen)
						if n := db.Stats().InUse; n != 0 {
							t.Errorf("%d connections are in use", n)
						}
						db.Close()
					})
					return seen
				}
				plain := look(sql.OpenDB)
				ours := look(func(c driver.Connector) *sql.DB {
					return sqlx.OpenDB(c, sqlx.Config{Unbooked: true, Statements: -1})
				})
				for i := range max(len(plain), len(ours)) {
					if i >= len(plain) || i >= len(ours) || plain[i] != ours[i] {
						t.Fatalf("after %d lines that are the same\n  unwrapped %s\n  natwise   %s", i,
							strings.Join(plain[min(i, len(plain)):], "\n            "), strings.Join(ours[min(i, len(ours)):], "\n            "))
					}
				}
			})
		}
	}
}

// An oldPanicker panics in one of its methods.
type oldPanicker struct {
	*oldConn
	in string
}

func (c oldPanicker) panics(in string) {
	if in == c.in {
		panic("in " + in)
	}
}

func (c oldPanicker) Ping(context.Context) error         { c.panics("Ping"); return nil }
func (c oldPanicker) ResetSession(context.Context) error { c.panics("ResetSession"); return nil }
func (c oldPanicker) IsValid() bool                      { c.panics("IsValid"); return true }
func (c oldPanicker) Prepare(q string) (driver.Stmt, error) {
	c.panics("Prepare")
	return c.oldConn.Prepare(q)
}

func (c oldPanicker) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	c.panics("BeginTx")
	return oldTx{c.oldConn}, nil
}

func (c oldPanicker) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	c.panics("ExecContext")
	return driver.RowsAffected(1), nil
}

func (c oldPanicker) CheckNamedValue(*driver.NamedValue) error {
	c.panics("CheckNamedValue")
	return nil
}

func TestAPanicReachesItsCallerAndTheDBGoesOn(t *testing.T) {
	for _, in := range []string{"Ping", "ResetSession", "IsValid", "Prepare", "BeginTx", "ExecContext", "CheckNamedValue"} {
		t.Run(in, func(t *testing.T) {
			look := func(open func(driver.Connector) *sql.DB) (seen []string) {
				synctest.Test(t, func(t *testing.T) {
					d := &oldDriver{stmt: bareStmt}
					d.conn = func(c *oldConn) driver.Conn {
						if c.name == "conn 1" {
							return oldPanicker{c, in}
						}
						return oldPanicker{c, ""}
					}
					db := open(d)
					for _, f := range []func() error{
						func() error { return db.PingContext(t.Context()) },
						func() error { _, err := db.ExecContext(t.Context(), "any", 1); return err },
						func() error { _, err := db.PrepareContext(t.Context(), "any"); return err },
						func() error {
							tx, err := db.BeginTx(t.Context(), nil)
							if err == nil {
								err = tx.Commit()
							}
							return err
						},
					} {
						func() {
							defer func() {
								if v := recover(); v != nil {
									d.note("told %v", v)
								}
							}()
							d.note("told %v", f())
						}()
					}
					seen = slices.DeleteFunc(d.seen, func(s string) bool { return !strings.HasPrefix(s, "told") })
					db.Close()
				})
				return seen
			}
			plain := look(sql.OpenDB)
			ours := look(func(c driver.Connector) *sql.DB {
				return sqlx.OpenDB(c, sqlx.Config{Unbooked: true, Max: 2, Drain: -1})
			})
			if !slices.Equal(plain, ours) {
				t.Errorf("\n  unwrapped %v\n  natwise   %v", plain, ours)
			}
		})
	}
}

// An oldHanger does not come back from Connect or Close until it is let go, and looks at
// no context.
type oldHanger struct {
	*oldDriver
	connect, close int // which connection's hangs
	letGo          chan struct{}
}

func (d *oldHanger) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := d.oldDriver.Connect(ctx)
	own := c.(*oldConn)
	if own.name == fmt.Sprint("conn ", d.connect) {
		<-d.letGo
	}
	return oldHangingClose{own, d}, err
}

type oldHangingClose struct {
	*oldConn
	of *oldHanger
}

func (c oldHangingClose) Close() error {
	if c.name == fmt.Sprint("conn ", c.of.close) {
		<-c.of.letGo
	}
	return c.oldConn.Close()
}

func TestAConnectThatNeverReturnsCostsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &oldHanger{oldDriver: &oldDriver{conn: bareConn, stmt: bareStmt}, connect: 1, letGo: make(chan struct{})}
		db := sqlx.OpenDB(d, sqlx.Config{Unbooked: true, Max: 2, Drain: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waits for it is told %v", err)
		}
		time.Sleep(time.Minute)
		for range 3 {
			if _, err := db.Exec("any"); err != nil {
				t.Errorf("who comes later is told %v", err)
			}
		}
		if d.conns != 2 {
			t.Errorf("%d connections, want 2", d.conns)
		}
		close(d.letGo)
		db.Close()
	})
}

// As of a driver below database/sql, whoever has it closed waits for it.
func TestACloseThatNeverReturnsCostsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &oldHanger{oldDriver: &oldDriver{conn: bareConn, stmt: bareStmt}, close: 1, letGo: make(chan struct{})}
		db := sqlx.OpenDB(d, sqlx.Config{Unbooked: true, Max: 2, Drain: -1})
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go sqlx.Raw(c, func(any) error { return driver.ErrBadConn })
		synctest.Wait()
		for range 3 {
			if _, err := db.Exec("any"); err != nil {
				t.Error(err)
			}
		}
		if d.conns != 2 {
			t.Errorf("%d connections, want 2", d.conns)
		}
		close(d.letGo)
		db.Close()
	})
}
