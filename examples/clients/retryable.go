package clients

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/natwise/natwise/dialer"
)

// Retryable returns a go-retryablehttp client that sends through rt and tries up to
// five times, but never what may have run twice: it knows nothing of the service, and
// by itself would send a POST again after any error, and after a 500. Its waits have
// jitter, which those of NewClient have not. Transport.Retry stays nil, or set
// RetryMax to 0 and leave it all to that.
func Retryable(rt http.RoundTripper) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	// It calls CloseIdleConnections whenever it gives up on a request, and each
	// connection would cost its port for minutes: hide the method.
	c.HTTPClient = &http.Client{Transport: struct{ http.RoundTripper }{rt}}
	c.CheckRetry = checkRetry
	c.Backoff = retryablehttp.RateLimitLinearJitterBackoff
	c.RetryWaitMin, c.RetryWaitMax = 100*time.Millisecond, 2*time.Second
	return c
}

// checkRetry is a retryablehttp.CheckRetry that tries again what did not run, and what
// may run twice.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case outOfPorts(err):
		return false, nil
	case dialer.SafeToRetry(err):
		return true, nil
	case !idempotent(resp, err):
		return false, nil
	}
	return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
}

// idempotent reports whether a request that was answered or failed may run twice.
// Only the error of an http.Client is left of one that failed, which holds its method
// with one capital letter.
func idempotent(resp *http.Response, err error) bool {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		return failed.Op == "Get" || failed.Op == "Head" || failed.Op == "Options"
	}
	if resp == nil {
		return false
	}
	switch resp.Request.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}
