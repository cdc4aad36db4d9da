package retry

import (
	"cmp"
	"fmt"
	"time"
)

// A Policy is what users may say of retries, in fields of the same names. The zero Policy
// is ready to use.
type Policy struct {
	// Attempts is how many are made at most, the first included. Zero: 3.
	Attempts int

	// First and Max are those of a Backoff. Zero: 100 ms, and 10 s or First if that is
	// more.
	First, Max time.Duration

	// Budget is the share of a retry that each success at the first attempt earns. Zero:
	// 0.1. Negative: retries cost nothing.
	Budget float64
}

const (
	defaultAttempts = 3
	defaultFirst    = 100 * time.Millisecond
	defaultMax      = 10 * time.Second
	defaultShare    = 0.1
)

// Validate returns what is wrong with p, whose fields are those of what: "httpx: Retry".
func (p Policy) Validate(what string) error {
	switch {
	case p.Attempts < 0:
		return fmt.Errorf("%s.Attempts is %d; it cannot be negative", what, p.Attempts)
	case p.First < 0:
		return fmt.Errorf("%s.First is %v; it cannot be negative", what, p.First)
	case p.Max < 0:
		return fmt.Errorf("%s.Max is %v; it cannot be negative", what, p.Max)
	case !(p.Budget <= 1): // NaN too
		return fmt.Errorf("%s.Budget is %v; it is a share, 1 at most", what, p.Budget)
	}
	return nil
}

// Allows reports whether there may be another attempt after n.
func (p Policy) Allows(n int) bool { return n < cmp.Or(p.Attempts, defaultAttempts) }

// Backoff returns the waits between attempts, from the beginning.
func (p Policy) Backoff() Backoff {
	first := cmp.Or(p.First, defaultFirst)
	return Backoff{First: first, Max: max(first, cmp.Or(p.Max, defaultMax))}
}
