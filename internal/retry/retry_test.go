package retry_test

import (
	"testing"
	"time"

	"github.com/natwise/natwise/internal/retry"
)

func TestWaitsAreDrawnBelowABoundThatDoubles(t *testing.T) {
	bounds := []time.Duration{100, 200, 400, 800, 1000, 1000}
	above := make([]int, len(bounds)) // draws from the upper half
	for range 200 {
		b := retry.Backoff{First: 100 * time.Millisecond, Max: time.Second}
		for i, bound := range bounds {
			bound *= time.Millisecond
			d := b.Next()
			if d < 0 || d > bound {
				t.Fatalf("wait %d is %v, want at most %v", i, d, bound)
			}
			if d > bound/2 {
				above[i]++
			}
		}
	}
	for i, n := range above {
		if n < 50 || n > 150 {
			t.Errorf("wait %d: %d of 200 draws in the upper half: no full jitter", i, n)
		}
	}
}

func TestResetBeginsAtTheFirstBound(t *testing.T) {
	b := retry.Backoff{First: time.Millisecond, Max: time.Hour}
	for range 30 {
		b.Next()
	}
	b.Reset()
	if d := b.Next(); d > time.Millisecond {
		t.Errorf("first wait after a reset is %v", d)
	}
}

func TestTheZeroBackoffDoesNotWait(t *testing.T) {
	if d := new(retry.Backoff).Next(); d != 0 {
		t.Errorf("waited %v", d)
	}
}
