package httpx

import (
	"net/http"

	"github.com/natwise/natwise/internal/retry"
)

// Do is what a Transport does with each request, with something else that sends it.
func (r *Retry) Do(req *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	return r.do(req, send)
}

// Destinations is how many of them are remembered.
func (r *Retry) Destinations() int {
	return r.budgets.Len()
}

func (r *Retry) Validate() error { return r.validate() }

var RetryAfter = retryAfter

const (
	Longest    = longest
	MaxBudgets = retry.MaxBudgets
)
