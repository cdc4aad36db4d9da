package retry_test

import (
	"math"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/retry"
)

func TestTheZeroPolicyMakesThreeAttemptsAndWaitsAtMost10Seconds(t *testing.T) {
	var p retry.Policy
	if err := p.Validate("x"); err != nil {
		t.Error(err)
	}
	if !p.Allows(2) || p.Allows(3) {
		t.Error("not three attempts")
	}
	if b := p.Backoff(); b.First != 100*time.Millisecond || b.Max != 10*time.Second {
		t.Errorf("waits from %v to %v", b.First, b.Max)
	}
}

func TestWhatAPolicySaysHolds(t *testing.T) {
	p := retry.Policy{Attempts: 1, First: time.Minute}
	if p.Allows(1) {
		t.Error("a second attempt")
	}
	if b := p.Backoff(); b.First != time.Minute || b.Max != time.Minute {
		t.Errorf("waits from %v to %v", b.First, b.Max)
	}
	p.Max = time.Hour
	if b := p.Backoff(); b.Max != time.Hour {
		t.Errorf("waits up to %v", b.Max)
	}
}

func TestABadPolicyIsNamedByFieldAndValue(t *testing.T) {
	for want, p := range map[string]retry.Policy{
		"httpx: Retry.Attempts is -1; it cannot be negative":   {Attempts: -1},
		"httpx: Retry.First is -1ns; it cannot be negative":    {First: -1},
		"httpx: Retry.Max is -1s; it cannot be negative":       {Max: -time.Second},
		"httpx: Retry.Budget is 1.5; it is a share, 1 at most": {Budget: 1.5},
		"httpx: Retry.Budget is NaN; it is a share, 1 at most": {Budget: math.NaN()},
	} {
		if err := p.Validate("httpx: Retry"); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestABudgetIsAFewAndAShareOfWhatSucceeds(t *testing.T) {
	spend := func(share float64) (n int) {
		var b retry.Budgets[string]
		for range 100 {
			b.Earn("a", share)
		}
		for n < 1000 && b.Spend("a", share) {
			n++
		}
		return n
	}
	for share, want := range map[float64]int{0: 20, 0.1: 20, 0.5: 60, -1: 1000} {
		if got := spend(share); got != want {
			t.Errorf("share %v: %d retries, want %d", share, got, want)
		}
	}
}
