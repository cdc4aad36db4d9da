package sqlx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"time"
	"weak"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/retry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A Policy says how often Retry tries a transaction. The zero Policy is ready to use. Its
// Budget is counted within it, so that all of a process should have the same one. It may
// be used by many goroutines, and must not be copied; set its fields before.
type Policy struct {
	// Attempts is how many are made at most, the first included. Zero: 3.
	Attempts int

	// First and Max bound the waits between attempts. Each is drawn between zero and a
	// bound that doubles from First to Max. Zero: 100 ms, and 10 s or First if that is
	// more.
	First, Max time.Duration

	// Budget is how many retries a DB gets for each transaction that has succeeded at the
	// first attempt. In the long run they add no more than this share to its load. Zero:
	// 0.1. Negative: as many as Attempts allows. So that retries help where there is
	// little to do, too, a DB has 10 to begin with.
	Budget float64

	// Idempotent says that the transaction may happen twice. Then it is tried again, too,
	// when the connection was lost during COMMIT, so that nobody knows whether it has.
	Idempotent bool

	// Options are those of each transaction. Nil: the driver's own.
	Options *sql.TxOptions

	// RolledBack knows further errors of statements after which the server is known to
	// have undone the transaction, and another try may succeed.
	RolledBack func(error) bool

	budgets retry.Budgets[weak.Pointer[sql.DB]]
}

func (p *Policy) policy() retry.Policy {
	return retry.Policy{Attempts: p.Attempts, First: p.First, Max: p.Max, Budget: p.Budget}
}

// Validate returns what is wrong with p, by field and value: Retry returns it.
func (p *Policy) Validate() error { return p.policy().Validate("sqlx: Policy") }

var defaultPolicy Policy

// Retry calls f within a transaction and commits it, or rolls it back if f returns an
// error or panics. It tries again, with a new transaction and after a wait with full
// jitter, where the last one is known not to have happened and the next may succeed:
//
//   - the server has undone it for the sake of others: a serialization failure or a
//     deadlock (SQLSTATE 40001 and 40P01, MySQL's 1205 and 1213, SQL Server's 1205 and
//     3960);
//   - its connection was lost before COMMIT was sent, so that the server undoes it. That
//     holds for what transactions hold: not for MySQL's DDL and MyISAM tables, nor for
//     what f does elsewhere. And f must leave Commit and Rollback to Retry.
//
// A connection that does not come is not asked for again: to wait is what helps then,
// and it has been waited for. A nil Policy is the zero one, the same for all. The error
// is the last attempt's; of several, it says how many there were.
func Retry(ctx context.Context, db *sql.DB, p *Policy, f func(ctx context.Context, tx *sql.Tx) error) error {
	if p == nil {
		p = &defaultPolicy
	}
	if err := p.Validate(); err != nil {
		return err
	}
	policy := p.policy()
	backoff := policy.Backoff()
	for n := 1; ; n++ {
		err, undone := p.attempt(ctx, db, f)
		switch {
		case err == nil && n == 1:
			p.budgets.Earn(weak.Make(db), p.Budget)
			return nil
		case err == nil:
			return nil
		case !undone || ctx.Err() != nil || !policy.Allows(n) || !p.budgets.Spend(weak.Make(db), p.Budget) || !rest(ctx, backoff.Next()):
			if n > 1 {
				err = &attemptsError{n, err}
			}
			return err
		}
	}
}

// rest waits, and reports false if ctx will have ended by then.
func rest(ctx context.Context, wait time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// attempt makes one transaction. If it has failed, undone says that it has not happened
// and that another may succeed.
func (p *Policy) attempt(ctx context.Context, db *sql.DB, f func(context.Context, *sql.Tx) error) (err error, undone bool) {
	tx, err := db.BeginTx(ctx, p.Options)
	if err != nil {
		return err, lost(err) && !waited(err)
	}
	defer tx.Rollback() // if f panics; else it is over
	if err := f(ctx, tx); err != nil {
		return err, p.afterRollback(ctx, err, tx.Rollback())
	}
	err = tx.Commit()
	switch {
	case err == nil:
		return nil, false
	case p.undone(err) || unsent(err):
		return err, true
	}
	return err, p.Idempotent && lost(err)
}

// afterRollback reports whether a transaction that f has given up may be tried again.
func (p *Policy) afterRollback(ctx context.Context, failed, rollback error) bool {
	switch {
	case errors.Is(rollback, sql.ErrTxDone) && ctx.Err() == nil:
		return false // f has ended it itself, who knows how
	case p.undone(failed):
		return true
	}
	if rollback == nil {
		return false // on a connection that is in order: what f has failed for is its own
	}
	return lost(failed) || lost(rollback)
}

// unsent reports whether nothing of a COMMIT was sent. Drivers say so, too, but not
// always rightly: pgx 5.12 of one whose connection was lost.
func unsent(err error) bool {
	var lost *LostError
	return errors.As(err, &lost) && !lost.Sent
}

// undone reports whether err says that the server has undone the transaction.
func (p *Policy) undone(err error) bool {
	if p.RolledBack != nil && p.RolledBack(err) {
		return true
	}
	return conflict(err)
}

// waited reports whether err says that there was no connection to be had.
func waited(err error) bool {
	var dial *dialer.DialError
	return errors.Is(err, pool.ErrWait) || errors.Is(err, dialer.ErrBudget) || errors.As(err, &dial)
}

// lost reports whether err says that a connection was lost.
func lost(err error) bool {
	var l *LostError
	if errors.As(err, &l) || errors.Is(err, driver.ErrBadConn) {
		return true
	}
	switch keepalive.FaultOf(err) {
	case keepalive.Blackhole, keepalive.Unreachable, keepalive.Reset, keepalive.Finished:
		return true
	}
	return false
}

// conflict reports whether err, or what it wraps, is a server's word that a transaction
// stood in the way of others. Drivers say so by a method each; MySQL's has only fields.
func conflict(err error) bool {
	if s, ok := err.(interface{ SQLState() string }); ok { // pgconn, lib/pq
		switch s.SQLState() {
		case "40001", "40P01":
			return true
		}
	}
	if n, ok := err.(interface{ SQLErrorNumber() int32 }); ok { // go-mssqldb
		switch n.SQLErrorNumber() {
		case 1205, 3960:
			return true
		}
	}
	switch mysqlNumber(err) {
	case 1205, 1213:
		return true
	}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		return conflict(w.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range w.Unwrap() {
			if conflict(err) {
				return true
			}
		}
	}
	return false
}

// mysqlNumber returns the Number of a *mysql.MySQLError, zero of any other error.
func mysqlNumber(err error) uint64 {
	v := reflect.ValueOf(err)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Elem().Type().Name() != "MySQLError" {
		return 0
	}
	if n := v.Elem().FieldByName("Number"); n.IsValid() && n.CanUint() {
		return n.Uint()
	}
	return 0
}

// An attemptsError says how often a transaction was tried.
type attemptsError struct {
	n    int
	last error
}

func (e *attemptsError) Error() string {
	return fmt.Sprintf("sqlx: %d attempts, the last: %v", e.n, e.last)
}
func (e *attemptsError) Unwrap() error { return e.last }
