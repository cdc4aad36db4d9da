package dialer

import (
	"context"
	"errors"
	"net"
	"strings"
)

// ErrBudget says that every flow the account allows is taken, and none came
// free in time.
var ErrBudget = errors.New("dialer: no port free")

// A BudgetError tells who is holding the ports and when one comes back. It
// matches ErrBudget, and the cause for which the wait ended, such as
// context.DeadlineExceeded.
type BudgetError struct {
	Account Account
	Err     error // why we stopped waiting; nil: the dial goes on waiting (Ledger.Obstacle)

	host string // as it was asked for
	at   place  // that was to be dialed
	full bool   // as target.full
}

func (e *BudgetError) Error() string {
	what := ErrBudget.Error() + ": " + e.Account.String()
	if e.Err != nil {
		what += ": " + e.Err.Error()
	}
	return what
}

func (e *BudgetError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrBudget}
	}
	return []error{ErrBudget, e.Err}
}

// ErrorType is what telemetry says of the error: a budget that is exhausted, unless the wait
// was called off.
func (e *BudgetError) ErrorType() string {
	if errors.Is(e.Err, context.Canceled) {
		return "canceled"
	}
	return "natwise.budget_exhausted"
}

// Timeout reports whether a deadline ended the wait, as net.Error wants it.
func (e *BudgetError) Timeout() bool { return timeout(e.Err) }

// A DialError is what every failed dial returns. Nothing was sent, so that
// whatever was to go over the connection is safe to try again.
type DialError struct {
	Network, Address string // as they were asked for

	Verdict  Verdict // what it means
	Evidence string  // for that, in words; empty: Err says it all
	Err      error   // a *BudgetError, *net.DNSError, *net.AddrError, *net.OpError, ...
}

// dialError says what err means: of several addresses, for the first of which that is known.
func dialError(network, address string, err error) *DialError {
	e := &DialError{Network: network, Address: address, Err: err}
	e.Verdict, e.Evidence = explain(err)
	if j, ok := err.(*judged); ok {
		e.Err = j.err
	}
	return e
}

func (e *DialError) Error() string {
	what := e.Err.Error()
	if op, ok := e.Err.(*net.OpError); ok && op.Op == "dial" { // says again what we say
		if what = op.Err.Error(); op.Source != nil && strings.HasPrefix(what, "bind:") {
			what = "from " + strings.TrimSuffix(op.Source.String(), ":0") + ": " + what
		}
		if op.Addr != nil && op.Addr.String() != e.Address {
			what = op.Addr.String() + ": " + what
		}
	}
	means := (&judged{verdict: e.Verdict, evidence: e.Evidence}).prefix()
	if strings.Contains(what, means) {
		means = "" // of several addresses, each has its own
	}
	return "dial " + e.Network + " " + e.Address + ": " + means + what
}

func (e *DialError) Unwrap() error     { return e.Err }
func (e *DialError) SafeToRetry() bool { return true }
func (e *DialError) Timeout() bool     { return timeout(e.Err) }

// ErrorType is what telemetry says of the error: "connection_refused", for instance.
func (e *DialError) ErrorType() string { return errorType(e.Verdict, e.Err) }

// Temporary is false: whether a second try helps is not for the error to say.
func (e *DialError) Temporary() bool { return false }

var _ net.Error = (*DialError)(nil)

func timeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, errMaxWait) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// SafeToRetry reports whether err happened before any byte was sent on the
// connection: a dial that failed, or a write on one that had ended while it was
// parked. It understands all errors with a method SafeToRetry() bool, as those
// of package pgconn.
func SafeToRetry(err error) bool {
	var s interface{ SafeToRetry() bool }
	return errors.As(err, &s) && s.SafeToRetry()
}
