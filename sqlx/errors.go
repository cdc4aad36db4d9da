package sqlx

import (
	"database/sql/driver"
	"errors"
	"fmt"
)

// A LostError is what an operation returns whose connection was lost meanwhile. It is
// not retried by database/sql: what was sent may have run, however often a driver says
// that it has not. It matches what the driver returned, unless that was
// driver.ErrBadConn, and why the connection ended, as far as that is known.
type LostError struct {
	Op    string // such as "exec"
	Sent  bool   // something of the operation was: it may have run
	Err   error  // the driver's
	Cause error  // of the connection, such as a *keepalive.BlackholeError; nil: not known
}

func (e *LostError) Error() string {
	ran := "nothing of it was sent"
	if e.Sent {
		ran = "it may have run"
	}
	what := fmt.Sprintf("sqlx: connection lost during %s, %s: %v", e.Op, ran, e.Err)
	if e.Cause != nil {
		what += fmt.Sprintf(" (%v)", e.Cause)
	}
	return what
}

func (e *LostError) Unwrap() (errs []error) {
	for _, err := range []error{e.Err, e.Cause} {
		if err != nil && !errors.Is(err, driver.ErrBadConn) {
			errs = append(errs, err)
		}
	}
	return errs
}

// SafeToRetry reports whether nothing of the operation was sent.
func (e *LostError) SafeToRetry() bool { return !e.Sent }

// An unsentError has database/sql try again on another connection: nothing was sent, or
// it does not matter that it was.
type unsentError struct{ err error }

func (e *unsentError) Error() string {
	return "sqlx: connection lost, which is safe to try again: " + e.err.Error()
}
func (e *unsentError) Unwrap() []error   { return []error{driver.ErrBadConn, e.err} }
func (e *unsentError) SafeToRetry() bool { return true }

// A connectError says why there is no connection. It hides driver.ErrBadConn, which
// would have database/sql dial twice again.
type connectError struct{ err error }

func (e *connectError) Error() string     { return "sqlx: no connection: " + e.err.Error() }
func (e *connectError) SafeToRetry() bool { return true }

var (
	errUnused   = errors.New("sqlx: database/sql takes it for broken")
	errReset    = errors.New("sqlx: it was reset, or given up by the kernel")
	errPanicked = errors.New("sqlx: the driver panicked")
	errUnasked  = errors.New("sqlx: others were lost, and the driver has no Ping")
	errInTx     = errors.New("sqlx: given back within a transaction")
	errSuspect  = errors.New("sqlx: what was sent on it is not acknowledged")
	errUnbooked = errors.New("sqlx: the driver has not dialed by Config.Dialer: set its DialFunc (pgx, mysql) or its Dialer (lib/pq, mssql), or Config.Unbooked")
)
