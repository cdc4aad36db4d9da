package httpx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/retry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A Retry says which requests a Transport sends once more, though they may have run,
// and how often. Each is idempotent and has no body, or one that can be had again
// (GetBody); and either its connection or HTTP/2 stream has failed, or an answer has not
// come within the Transport's own limits, or has one of Statuses.
//
// Never retried is what a retry cannot help or would only burn ports for: a dial that
// failed, a port that did not come free in time, TLS that was refused, a body that
// could not be read, and whatever its caller has given up.
//
// The zero Retry is ready to use. Its Budget is counted within it, so that all
// Transports of a process should have the same one. It may be used by many goroutines,
// and must not be copied; set its fields before the first request, not after. Where an
// SDK retries by itself, leave Transport.Retry nil: three times three is nine.
type Retry struct {
	// Attempts is how many are made for a request at most, the first included. What
	// the Transport sends again by itself belongs to the same attempt. Zero: 3.
	Attempts int

	// First and Max bound the waits between attempts. Each is drawn between zero and
	// a bound that doubles from First to Max. Zero: 100 ms, and 10 s or First if that
	// is more.
	//
	// A response's Retry-After comes on top, and up to a quarter of it once more, so
	// that not all come back at the same moment. Where the wait would not end before
	// the request's deadline, or there is none and Retry-After asks for more than a
	// minute, there is no wait: the caller gets the response or the error at once.
	First, Max time.Duration

	// Methods are idempotent besides GET, HEAD, OPTIONS and TRACE: PUT and DELETE,
	// if the servers mean them so. Whatever its method, a request is idempotent that
	// has a field Idempotency-Key or X-Idempotency-Key. As in net/http, one without
	// values says so and is not sent.
	Methods []string

	// Statuses are those of responses that are worth another attempt. There are none
	// unless they are said; what overloaded servers and proxies say is
	//
	//	[]int{429, 502, 503, 504}
	Statuses []int

	// Budget is how many retries a destination (host and port) gets for each request
	// that it has answered at the first attempt. In the long run they add no more
	// than this share to its load, and nothing if it is down. Zero: 0.1. Negative: as
	// many as Attempts allows.
	//
	// So that retries help where there is little traffic too, a destination has 10 to
	// begin with, and again after an hour without a request. What a thousand requests
	// have earned can be saved up.
	Budget float64

	budgets retry.Budgets[destination]
}

// patience is how long a Retry-After may be where the request has no deadline.
const patience = time.Minute

func (r *Retry) policy() retry.Policy {
	return retry.Policy{Attempts: r.Attempts, First: r.First, Max: r.Max, Budget: r.Budget}
}

// validate returns what is wrong with r, by field and value.
func (r *Retry) validate() error {
	if r == nil {
		return nil
	}
	return r.policy().Validate("httpx: Retry")
}

// A sender makes one attempt.
type sender func(*http.Request) (*http.Response, error)

// do sends req, and sends it again where that helps and does no harm. The caller's
// request is not changed.
func (r *Retry) do(req *http.Request, send sender) (*http.Response, error) {
	if r == nil {
		return send(req)
	}
	mayRepeat := r.idempotent(req) && (!hasBody(req) || req.GetBody != nil)
	var o outcome
	o.send(req, mayRepeat, send)
	if o.err == nil && !r.unwelcome(o.resp) {
		r.earn(req)
	} else if mayRepeat {
		r.repeat(req, &o, send)
	}
	if o.resp != nil {
		o.resp.Request = req
	}
	return o.resp, o.err
}

// repeat makes further attempts after the one that o came of.
func (r *Retry) repeat(req *http.Request, o *outcome, send sender) {
	policy := r.policy()
	backoff := policy.Backoff()
	n := 1
	for ; policy.Allows(n) && r.worth(req, o); n++ {
		wait, ok := pause(req, o.resp, backoff.Next())
		if !ok || !r.spend(req) {
			break
		}
		again, ok := rewind(req)
		if !ok {
			break
		}
		wake := time.Now().Add(wait)
		o.discard()
		if err := sleep(req, wake); err != nil {
			closeBody(again)
			o.giveUp(n, err)
			return
		}
		o.send(again, true, send)
	}
	if o.err != nil && n > 1 {
		o.err = &attemptsError{n: n, last: o.err}
	}
}

// idempotent reports whether req may run twice.
func (r *Retry) idempotent(req *http.Request) bool {
	return idempotent(req) || r != nil && slices.Contains(r.Methods, req.Method)
}

// unwelcome reports whether resp is an answer that is worth another attempt.
func (r *Retry) unwelcome(resp *http.Response) bool {
	return slices.Contains(r.Statuses, resp.StatusCode)
}

// worth reports whether another attempt may help.
func (r *Retry) worth(req *http.Request, o *outcome) bool {
	switch {
	case calledOff(req):
		return false
	case o.err == nil:
		return r.unwelcome(o.resp)
	case o.body.failed():
		return false // and would again
	case dialer.SafeToRetry(o.err):
		return false // it was not sent: what helps against that has been tried below
	case errors.Is(o.err, dialer.ErrBudget) || errors.Is(o.err, pool.ErrWait):
		return false // waiting is what helps, and it has waited
	}
	return died(o.err) || cutShort(o.err)
}

// earn counts a request that was answered at the first attempt.
func (r *Retry) earn(req *http.Request) { r.budgets.Earn(destinationOf(req.URL), r.Budget) }

// spend counts a retry, if the destination may have one.
func (r *Retry) spend(req *http.Request) bool {
	return r.budgets.Spend(destinationOf(req.URL), r.Budget)
}

// A destination is what a budget of retries is for.
type destination struct{ host, port string }

func destinationOf(u *url.URL) destination {
	d := destination{strings.ToLower(u.Hostname()), u.Port()}
	if d.port == "" {
		d.port = ports[u.Scheme]
	}
	return d
}

// Keep returns what does not keep the whole URL in memory.
func (d destination) Keep() destination {
	return destination{strings.Clone(d.host), strings.Clone(d.port)}
}

// An outcome is what came of one attempt.
type outcome struct {
	resp *http.Response
	err  error
	body *watched // of the request; nil: nobody looks whether it fails
}

func (o *outcome) send(req *http.Request, mayRepeat bool, send sender) {
	o.body = nil
	if mayRepeat && hasBody(req) && !inMemory(req.Body) {
		o.body = &watched{ReadCloser: req.Body}
		seen := *req
		seen.Body = o.body
		req = &seen
	}
	o.resp, o.err = send(req)
}

// discard gives a response up. Its connection may be saved for the next attempt: what
// little is left of the body is read.
func (o *outcome) discard() {
	if o.resp != nil {
		o.resp.Body.Close()
	}
}

// giveUp says that there will be no other attempt, after n.
func (o *outcome) giveUp(n int, why error) {
	if o.err == nil {
		o.err = fmt.Errorf("answered by status %d", o.resp.StatusCode)
	}
	o.resp, o.err = nil, &attemptsError{n: n, last: o.err, why: why}
}

// An attemptsError says how often a request was sent.
type attemptsError struct {
	n    int
	last error
	why  error // the wait for the next attempt ended; nil: there was none to be
}

func (e *attemptsError) Error() string {
	if e.why != nil {
		return fmt.Sprintf("httpx: %v before attempt %d; the last: %v", e.why, e.n+1, e.last)
	}
	return fmt.Sprintf("httpx: %d attempts, the last: %v", e.n, e.last)
}

func (e *attemptsError) Unwrap() []error {
	if e.why != nil {
		return []error{e.why, e.last}
	}
	return []error{e.last}
}

// SafeToRetry is false whatever the last error says: the first attempt may have run, or
// there would not have been another.
func (e *attemptsError) SafeToRetry() bool { return false }

// Timeout is that of the error that ended it, for *url.Error, which asks nobody deeper.
func (e *attemptsError) Timeout() bool {
	t, ok := cmp.Or(e.why, e.last).(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// A watched body knows whether reading it failed. Such an error is the caller's, though
// it may look like one of the connection.
type watched struct {
	io.ReadCloser
	state atomic.Int32 // the first of these that has happened, while net/http may still read
}

const (
	bodyClosed = 1 + iota
	bodyFailed
)

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		w.state.CompareAndSwap(0, bodyFailed)
	}
	return n, err
}

// Close comes first if the connection has failed: then nobody needs the body any more,
// and an error of Read says nothing.
func (w *watched) Close() error {
	w.state.CompareAndSwap(0, bodyClosed)
	return w.ReadCloser.Close()
}

func (w *watched) failed() bool { return w != nil && w.state.Load() == bodyFailed }

// cutShort reports whether err says that an exchange was ended before the answer: by a
// limit of the Transport, since the caller's own deadline has not passed, or by a server
// that would have hung up if this were HTTP/1.
func cutShort(err error) bool {
	if keepalive.FaultOf(err) == keepalive.Deadline {
		return true
	}
	var stream streamError
	if errors.As(err, &stream) {
		return stream.Code == internalError
	}
	// For this net/http has no value.
	return strings.Contains(err.Error(), "http2: timeout awaiting response headers")
}

const internalError streamCode = 2 // RFC 9113, section 7

// calledOff reports whether nobody waits for the answer any more.
func calledOff(req *http.Request) bool {
	select {
	case <-legacy(req):
		return true
	default:
		return req.Context().Err() != nil
	}
}

// pause returns how long to wait before the next attempt; false: for too long.
func pause(req *http.Request, resp *http.Response, backoff time.Duration) (wait time.Duration, ok bool) {
	var after time.Duration
	if resp != nil {
		after = retryAfter(resp.Header, time.Now())
	}
	wait = backoff + after + rand.N(after/4+1)
	if deadline, limited := req.Context().Deadline(); limited {
		return wait, wait < time.Until(deadline)
	}
	return wait, after <= patience
}

// sleep waits, unless the request is called off.
func sleep(req *http.Request, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-req.Context().Done():
		return timedOut(req, context.Cause(req.Context()))
	case <-legacy(req):
		return errCanceled()
	}
}

// longest is what a Retry-After beyond all reason is taken for.
const longest = 365 * 24 * time.Hour

// retryAfter returns for how long h asks to wait, in seconds or until a date; zero if it
// does not, or nobody can understand it. The date is held against the server's own
// clock, where it tells that.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v != "" && strings.Trim(v, "0123456789") == "" {
		seconds, _ := strconv.ParseUint(v, 10, 64) // or all that fit
		return time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	}
	date, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if server, err := http.ParseTime(h.Get("Date")); err == nil {
		now = server
	}
	return min(max(0, date.Sub(now)), longest)
}
