package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrWait says that nothing came in time. It is in every *WaitError.
	ErrWait = errors.New("pool: no value came in time")

	// ErrClosed says that the pool is closed. It is safe to retry elsewhere.
	ErrClosed error = untouched("pool: closed")

	// ErrReset says that Reset ended a wait. It is safe to retry.
	ErrReset error = untouched("pool: reset")
)

// untouched is an error of a Get that got nothing, so that nothing was done.
type untouched string

func (e untouched) Error() string     { return string(e) }
func (e untouched) SafeToRetry() bool { return true }

var (
	errUnfinished = errors.New("pool: the function did not return")
	errMaxWait    = errors.New("pool: Config.MaxWait is over")
)

// A WaitError is what Get returns when its context's deadline, or MaxWait, has
// passed in the queue. It matches ErrWait, context.DeadlineExceeded, and all
// errors below.
type WaitError struct {
	Stats    Stats         // at the end of the wait
	Max      int           // of the Config
	Waited   time.Duration // in all
	Obstacle error         // what the Ask under way waited for, by Config.Obstacle; nil: nobody knows
	Open     error         // why the last opening failed; nil: the last one did not
	Held     string        // where this goroutine took a lease that it still has; only with LeakAfter
	Err      error         // the context's cause, or that MaxWait is over
}

func (e *WaitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v, in %v: %d leases are out, %d values idle, %d asked for, %d being opened, %d being closed", ErrWait,
		e.Waited.Round(time.Millisecond), e.Stats.InUse, e.Stats.Idle, e.Stats.Asking, e.Stats.Connecting, e.Stats.Closing)
	if e.Max > 0 {
		fmt.Fprintf(&b, ", at most %d", e.Max)
	}
	fmt.Fprintf(&b, ", %d more waiting", e.Stats.Waiting)
	if e.Held != "" {
		fmt.Fprintf(&b, "; this goroutine has a lease already, taken in %s", e.Held)
	}
	if e.Obstacle != nil {
		fmt.Fprintf(&b, "; the next one waits: %v", e.Obstacle)
	}
	if e.Open != nil {
		fmt.Fprintf(&b, "; the last opening failed: %v", e.Open)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

func (e *WaitError) Unwrap() []error {
	errs := []error{ErrWait, context.DeadlineExceeded, e.Err}
	for _, err := range []error{e.Obstacle, e.Open} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// SafeToRetry reports that nothing was done with any value.
func (e *WaitError) SafeToRetry() bool { return true }

// ErrorType is what telemetry says of the error: what it says of Obstacle, if that is known.
func (e *WaitError) ErrorType() string {
	var obstacle interface{ ErrorType() string }
	if errors.As(e.Obstacle, &obstacle) {
		return obstacle.ErrorType()
	}
	return "natwise.wait_timeout"
}

// Timeout reports that a deadline ended the wait, as net.Error wants it.
func (e *WaitError) Timeout() bool { return true }

// Clean marks an error after which the value is as good as before: an answer
// that says no. A function that returns it to Do, not wrapped again, has the
// value put back, and Do returns err itself.
func Clean(err error) error {
	if err == nil {
		return nil
	}
	return &clean{err}
}

// IsClean reports whether Clean has marked err, and nobody has wrapped it since.
// errors.Unwrap returns what was marked.
func IsClean(err error) bool {
	_, ok := err.(*clean)
	return ok
}

type clean struct{ error }

func (c *clean) Unwrap() error { return c.error }
