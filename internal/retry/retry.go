// Package retry says how long to wait before the next try. It is the only room
// that names backoff/v4, and it never tries anything itself.
package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A Backoff yields waits with full jitter: each is drawn between zero and a
// bound that doubles from First to Max. The zero Backoff waits not at all. It
// is not for concurrent use.
type Backoff struct {
	First, Max time.Duration

	b *backoff.ExponentialBackOff
}

// Next returns how long to wait now.
func (b *Backoff) Next() time.Duration {
	if b.First <= 0 {
		return 0
	}
	if b.b == nil {
		// backoff draws from interval x (1 ± RandomizationFactor).
		b.b = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(b.First/2),
			backoff.WithMaxInterval(b.Max/2),
			backoff.WithMultiplier(2),
			backoff.WithRandomizationFactor(1),
			backoff.WithMaxElapsedTime(0),
		)
	}
	return b.b.NextBackOff()
}

// Reset begins again at First.
func (b *Backoff) Reset() { b.b = nil }
