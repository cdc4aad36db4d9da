package clients

import (
	"errors"
	"net/http"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/pool"
)

// outOfPorts reports whether a request failed because no connection came free in
// time. To try that again is to wait twice, in a queue that is too long already.
func outOfPorts(err error) bool {
	return errors.Is(err, dialer.ErrBudget) || errors.Is(err, pool.ErrWait)
}

// patient is an http.RoundTripper for SDKs that retry. It leaves them all their
// retries but one: those of a request for which no connection came free in time.
type patient struct{ http.RoundTripper }

func (p patient) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.RoundTripper.RoundTrip(req)
	if outOfPorts(err) {
		err = waited{err}
	}
	return resp, err
}

// waited is an error that azcore and the AWS SDK do not retry, each by a method that
// it asks for.
type waited struct{ error }

func (w waited) Unwrap() error      { return w.error }
func (waited) NonRetriable()        {}               // azcore
func (waited) RetryableError() bool { return false } // aws-sdk-go-v2
