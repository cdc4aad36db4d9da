package httpx_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A fakeOrigin answers without a network.
type fakeOrigin struct {
	fail func(n int, req *http.Request) (*http.Response, error) // the nth attempt, from 1; nil, nil: it does not fail

	mu     sync.Mutex // guards the fields below
	at     []time.Time
	bodies []string
}

// send is an attempt. Like net/http it closes the body, whatever happens.
func (o *fakeOrigin) send(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		defer req.Body.Close()
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	o.at = append(o.at, time.Now())
	o.bodies = append(o.bodies, string(body))
	n := len(o.at)
	o.mu.Unlock()
	if o.fail != nil {
		if resp, err := o.fail(n, req); resp != nil || err != nil {
			return resp, err
		}
	}
	return answerOf(200), nil
}

// answerOf makes a response; fields are names and values of its header.
func answerOf(status int, fields ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: make(http.Header), Body: io.NopCloser(strings.NewReader("said"))}
	for i := 0; i < len(fields); i += 2 {
		resp.Header.Set(fields[i], fields[i+1])
	}
	return resp
}

// failOnce fails the first attempt.
func failOnce(resp *http.Response, err error) func(int, *http.Request) (*http.Response, error) {
	return func(n int, _ *http.Request) (*http.Response, error) {
		if n > 1 {
			return nil, nil
		}
		return resp, err
	}
}

func failAlways(err error) func(int, *http.Request) (*http.Response, error) {
	return func(int, *http.Request) (*http.Response, error) { return nil, err }
}

func newGet(t testing.TB) *http.Request { return newRequest(t, "GET", "http://origin.example/", nil) }

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	return req
}

var (
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
)

// lateHeader is what net/http returns when its ResponseHeaderTimeout is over.
type lateHeader struct{}

func (lateHeader) Error() string        { return "net/http: timeout awaiting response headers" }
func (lateHeader) Timeout() bool        { return true }
func (lateHeader) Is(target error) bool { return target == context.DeadlineExceeded }

func TestAnIdempotentRequestThatMayHaveRunIsSentAgain(t *testing.T) {
	for name, err := range map[string]error{
		"reset":                  errReset,
		"black hole":             &net.OpError{Op: "read", Err: &keepalive.BlackholeError{Evidence: keepalive.Others}},
		"early end":              io.ErrUnexpectedEOF,
		"no answer":              lateHeader{},
		"no answer, HTTP/2":      errors.New("http2: timeout awaiting response headers"),
		"lost ping":              errors.New("http2: client connection lost"),
		"gone away with streams": errors.New("http2: server sent GOAWAY and closed the connection; LastStreamID=7, ErrCode=NO_ERROR, debug=\"\""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &fakeOrigin{fail: failOnce(nil, err)}
				resp, err := new(httpx.Retry).Do(newGet(t), o.send)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("got %v, %v", resp, err)
				}
				if len(o.at) != 2 {
					t.Errorf("%d attempts, want 2", len(o.at))
				}
			})
		})
	}
}

func TestATrailerIsSentAgainAsTheBodyFillsItIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req := newRequest(t, "PUT", "http://origin.example/", nil)
		req.Trailer = http.Header{"X-Sum": nil}
		reads := 0
		req.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(readerFunc(func([]byte) (int, error) {
				reads++
				req.Trailer.Set("X-Sum", fmt.Sprint("read ", reads))
				return 0, io.EOF
			})), nil
		}
		req.Body, _ = req.GetBody()
		var sent []string
		o := &fakeOrigin{fail: func(n int, req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Trailer.Get("X-Sum"))
			return failOnce(nil, errReset)(n, req)
		}}
		if _, err := (&httpx.Retry{Methods: []string{"PUT"}}).Do(req, o.send); err != nil {
			t.Fatal(err)
		}
		if want := []string{"read 1", "read 2"}; !slices.Equal(sent, want) {
			t.Errorf("sent %q, want %q", sent, want)
		}
	})
}

func TestWhatARetryCannotHelpIsNotRetried(t *testing.T) {
	noPort := &dialer.BudgetError{Err: context.DeadlineExceeded}
	for name, err := range map[string]error{
		"no port":                    noPort,
		"no port, by a dial":         &dialer.DialError{Network: "tcp", Address: "origin.example:80", Err: noPort},
		"no connection":              fmt.Errorf("%w: %w", pool.ErrWait, context.DeadlineExceeded),
		"no connection, by the pool": &pool.WaitError{Err: context.DeadlineExceeded},
		"refused dial":               &dialer.DialError{Network: "tcp", Address: "origin.example:80", Err: errRefused},
		"no such name":               &dialer.DialError{Network: "tcp", Address: "origin.example:80", Err: &net.DNSError{IsNotFound: true}},
		"a name that is slow":        &dialer.DialError{Network: "tcp", Address: "origin.example:80", Err: context.DeadlineExceeded},
		"wrong certificate":          &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"our certificate":            &net.OpError{Op: "remote error", Err: tls.AlertError(42)},
		"what nobody knows":          errors.New("some error"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &fakeOrigin{fail: failAlways(err)}
				_, got := new(httpx.Retry).Do(newGet(t), o.send)
				if got != err {
					t.Errorf("got %v, want the error as it came", got)
				}
				if len(o.at) != 1 {
					t.Errorf("%d attempts, want 1", len(o.at))
				}
			})
		})
	}
}

func TestOnlyIdempotentRequestsWhoseBodyCanBeHadAgainAreRetried(t *testing.T) {
	streamed := func() io.Reader { return io.LimitReader(strings.NewReader("hello"), 5) }
	for name, c := range map[string]struct {
		method  string
		body    io.Reader
		key     string // the field
		value   []string
		methods []string
		again   bool
	}{
		"no method":                  {method: "", again: true},
		"GET":                        {method: "GET", again: true},
		"HEAD":                       {method: "HEAD", again: true},
		"OPTIONS":                    {method: "OPTIONS", again: true},
		"TRACE":                      {method: "TRACE", again: true},
		"GET with a streamed body":   {method: "GET", body: streamed()},
		"GET with a body":            {method: "GET", body: strings.NewReader("hello"), again: true},
		"POST":                       {method: "POST", body: strings.NewReader("hello")},
		"POST without a body":        {method: "POST"},
		"POST with a key":            {method: "POST", body: strings.NewReader("hello"), key: "Idempotency-Key", value: []string{"k"}, again: true},
		"POST with a key, streamed":  {method: "POST", body: streamed(), key: "Idempotency-Key", value: []string{"k"}},
		"POST with the other key":    {method: "POST", key: "X-Idempotency-Key", value: []string{"k"}, again: true},
		"POST with an unsent key":    {method: "POST", key: "Idempotency-Key", value: []string{}, again: true},
		"CONNECT":                    {method: "CONNECT"},
		"PUT":                        {method: "PUT", body: strings.NewReader("hello")},
		"PUT where it is idempotent": {method: "PUT", body: strings.NewReader("hello"), methods: []string{"PUT", "DELETE"}, again: true},
		"DELETE":                     {method: "DELETE"},
		"DELETE where it is":         {method: "DELETE", methods: []string{"PUT", "DELETE"}, again: true},
		"POST where PUT is":          {method: "POST", methods: []string{"PUT", "DELETE"}},
	} {
		for what, fail := range map[string]func(int, *http.Request) (*http.Response, error){
			"reset": failOnce(nil, errReset),
			"503":   failOnce(answerOf(503), nil),
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					req := newRequest(t, c.method, "http://origin.example/", c.body)
					req.Method = c.method
					if seeker, ok := c.body.(io.Seeker); ok {
						seeker.Seek(0, io.SeekStart)
					}
					if c.key != "" {
						req.Header[c.key] = c.value
					}
					r := &httpx.Retry{Methods: c.methods, Statuses: []int{503}}
					o := &fakeOrigin{fail: fail}
					want := 1
					if c.again {
						want = 2
					}
					r.Do(req, o.send)
					if len(o.at) != want {
						t.Errorf("%d attempts, want %d", len(o.at), want)
					}
				})
			})
		}
	}
}

// A supplied body is one that can be had again, and says what became of it.
type supplied struct {
	io.Reader
	closed bool
}

func (s *supplied) Close() error { s.closed = true; return nil }

func TestEachAttemptHasTheBodyFromItsBeginning(t *testing.T) {
	for name, body := range map[string]func() io.Reader{
		"from memory":     func() io.Reader { return strings.NewReader("hello") },
		"from elsewhere":  func() io.Reader { return &supplied{Reader: strings.NewReader("hello")} },
		"there is no one": func() io.Reader { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req := newRequest(t, "PUT", "http://origin.example/", body())
				want := ""
				if req.Body != nil {
					want = "hello"
					if req.GetBody == nil {
						req.GetBody = func() (io.ReadCloser, error) { return body().(io.ReadCloser), nil }
					}
				}
				r := &httpx.Retry{Methods: []string{"PUT"}, Statuses: []int{503}}
				before := *req
				o := &fakeOrigin{fail: func(n int, sent *http.Request) (*http.Response, error) {
					return map[int]*http.Response{1: answerOf(503)}[n], map[int]error{2: errReset}[n]
				}}
				resp, err := r.Do(req, o.send)
				require.NoError(t, err)
				if len(o.bodies) != 3 || o.bodies[0] != want || o.bodies[1] != want || o.bodies[2] != want {
					t.Errorf("the attempts sent %q", o.bodies)
				}
				if resp.Request != req {
					t.Error("the response is that of another request")
				}
				if req.Body != before.Body || req.Method != before.Method || req.Context() != before.Context() {
					t.Error("the caller's request was changed")
				}
			})
		})
	}
}

// A resetBody comes from a connection which is reset.
type resetBody struct{}

func (resetBody) Read([]byte) (int, error) { return 0, errReset }
func (resetBody) Close() error             { return nil }

func TestABodyThatCannotBeReadIsNotTheConnectionsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req := newRequest(t, "PUT", "http://origin.example/", resetBody{})
		bodies := 0
		req.GetBody = func() (io.ReadCloser, error) {
			bodies++
			return resetBody{}, nil
		}
		_, err := (&httpx.Retry{Methods: []string{"PUT"}}).Do(req, new(fakeOrigin).send)
		if err != errReset {
			t.Errorf("got %v, want the body's error as it came", err)
		}
		if bodies != 0 {
			t.Errorf("the body was asked for %d times more", bodies)
		}
	})
}

// A cutBody ends with an error when it is closed.
type cutBody struct{ closed chan struct{} }

func (c cutBody) Read([]byte) (int, error) {
	<-c.closed
	return 0, errors.New("read on a closed body")
}

func (c cutBody) Close() error { close(c.closed); return nil }

func TestABodyThatIsCutBecauseTheConnectionFailedDoesNotStandInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req := newRequest(t, "PUT", "http://origin.example/", cutBody{make(chan struct{})})
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello")), nil }
		attempts := 0
		resp, err := (&httpx.Retry{Methods: []string{"PUT"}}).Do(req, func(req *http.Request) (*http.Response, error) {
			if attempts++; attempts == 2 {
				return answerOf(200), nil
			}
			req.Body.Close()
			io.ReadAll(req.Body)
			return nil, errReset
		})
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

func TestABodyThatCannotBeHadAgainLeavesTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req := newRequest(t, "PUT", "http://origin.example/", strings.NewReader("hello"))
		req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("it is gone") }
		o := &fakeOrigin{fail: failOnce(answerOf(503), nil)}
		resp, err := (&httpx.Retry{Methods: []string{"PUT"}, Statuses: []int{503}}).Do(req, o.send)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 503 || string(body) != "said" || err != nil {
			t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
		}
	})
}

func TestWhatItsCallerHasGivenUpIsNotRetried(t *testing.T) {
	for name, end := range map[string]func(req *http.Request) (*http.Request, func()){
		"by its context": func(req *http.Request) (*http.Request, func()) {
			ctx, cancel := context.WithCancel(req.Context())
			return req.WithContext(ctx), cancel
		},
		"in the old way": func(req *http.Request) (*http.Request, func()) {
			canceled := make(chan struct{})
			//lint:ignore SA1019 http.Client does it too
			req.Cancel = canceled
			return req, func() { close(canceled) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req, end := end(newGet(t))
				o := &fakeOrigin{fail: func(int, *http.Request) (*http.Response, error) {
					end()
					return nil, errReset
				}}
				if _, err := new(httpx.Retry).Do(req, o.send); err != errReset {
					t.Errorf("got %v, want the error as it came", err)
				}
				if len(o.at) != 1 {
					t.Errorf("%d attempts, want 1", len(o.at))
				}
			})
		})
	}
}

func TestAWaitEndsWithItsRequest(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(int, *http.Request) (*http.Response, error)
		last error
	}{
		"after an error":    {failOnce(nil, errReset), syscall.ECONNRESET},
		"after an response": {failOnce(answerOf(503, "Retry-After", "30"), nil), nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req := newRequest(t, "PUT", "http://origin.example/", strings.NewReader("hello"))
				again := &supplied{Reader: strings.NewReader("hello")}
				req.GetBody = func() (io.ReadCloser, error) { return again, nil }
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				r := &httpx.Retry{Methods: []string{"PUT"}, Statuses: []int{503}, First: time.Hour * 24 * 365}
				_, err := r.Do(req.WithContext(ctx), (&fakeOrigin{fail: c.fail}).send)
				if !errors.Is(err, context.Canceled) || c.last != nil && !errors.Is(err, c.last) {
					t.Errorf("got %v", err)
				}
				if dialer.SafeToRetry(err) {
					t.Errorf("%v: it may have run", err)
				}
				if took := time.Since(start); took != time.Second {
					t.Errorf("after %v", took)
				}
				if !again.closed {
					t.Error("the body of the attempt that was not made is open")
				}
			})
		})
	}
}

func TestAResponseIsRetriedForItsStatusOnlyIfThatWasSaid(t *testing.T) {
	for status, want := range map[int]int{200: 1, 404: 1, 429: 3, 500: 1, 503: 3} {
		synctest.Test(t, func(t *testing.T) {
			for _, r := range []*httpx.Retry{nil, {}, {Statuses: []int{429, 502, 503, 504}}} {
				var closed int
				o := &fakeOrigin{fail: func(int, *http.Request) (*http.Response, error) {
					resp := answerOf(status)
					resp.Body = &countedBody{resp.Body, &closed}
					return resp, nil
				}}
				resp, err := r.Do(newGet(t), o.send)
				require.NoError(t, err)
				if resp.StatusCode != status {
					t.Errorf("got %d, want %d", resp.StatusCode, status)
				}
				if body, err := io.ReadAll(resp.Body); string(body) != "said" || err != nil {
					t.Errorf("%d: the last response says %q, %v", status, body, err)
				}
				attempts := 1
				if r != nil && r.Statuses != nil {
					attempts = want
				}
				if len(o.at) != attempts || closed != attempts-1 {
					t.Errorf("%d: %d attempts, %d bodies closed, want %d attempts, all but the last body closed", status, len(o.at), closed, attempts)
				}
			}
		})
	}
}

type countedBody struct {
	io.ReadCloser
	closed *int
}

func (c *countedBody) Close() error {
	*c.closed++
	return c.ReadCloser.Close()
}

func TestAnErrorSaysHowOftenARequestWasSent(t *testing.T) {
	dial := &dialer.DialError{Network: "tcp", Address: "origin.example:80", Err: errRefused}
	for name, c := range map[string]struct {
		retry    *httpx.Retry
		errs     []error
		attempts int
		timeout  bool
	}{
		"as it came at the first": {&httpx.Retry{Attempts: 1}, []error{errReset}, 1, false},
		"three by default":        {&httpx.Retry{}, []error{io.EOF, io.EOF, errReset}, 3, false},
		"as many as are said":     {&httpx.Retry{Attempts: 5}, []error{io.EOF, errReset, io.EOF, io.EOF, lateHeader{}}, 5, true},
		"until a dial fails":      {&httpx.Retry{}, []error{errReset, dial}, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &fakeOrigin{fail: func(n int, _ *http.Request) (*http.Response, error) { return nil, c.errs[n-1] }}
				_, err := c.retry.Do(newGet(t), o.send)
				last := c.errs[c.attempts-1]
				if len(o.at) != c.attempts || !errors.Is(err, last) {
					t.Errorf("%d attempts, %v", len(o.at), err)
				}
				if c.attempts == 1 && err != last {
					t.Errorf("got %v, want the error as it came", err)
				}
				if says := fmt.Sprintf("%d attempts", c.attempts); c.attempts > 1 && !strings.Contains(err.Error(), says) {
					t.Errorf("%q does not say %q", err, says)
				}
				if dialer.SafeToRetry(err) {
					t.Errorf("%v: the first attempt may have run", err)
				}
				if timeout, ok := err.(interface{ Timeout() bool }); c.attempts > 1 && (!ok || timeout.Timeout() != c.timeout) {
					t.Errorf("%v is a timeout: %t, want %t", err, !c.timeout, c.timeout)
				}
			})
		})
	}
}

func TestARetryWaitsForAsLongAsTheServerAsksAndALittleLonger(t *testing.T) {
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for name, c := range map[string]struct {
		fields func() []string
		asked  time.Duration
	}{
		"seconds":                  {func() []string { return []string{"Retry-After", "20"} }, 20 * time.Second},
		"a date":                   {func() []string { return []string{"Retry-After", in(20 * time.Second)} }, 20 * time.Second},
		"a date by a clock of its": {func() []string { return []string{"Retry-After", in(time.Hour), "Date", in(59 * time.Minute)} }, time.Minute},
		"a date in the past":       {func() []string { return []string{"Retry-After", in(-time.Hour)} }, 0},
		"at once":                  {func() []string { return []string{"Retry-After", "0"} }, 0},
		"something else":           {func() []string { return []string{"Retry-After", "soon"} }, 0},
		"nothing":                  {func() []string { return nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			shortest, longest := time.Hour, time.Duration(0)
			for range 10 {
				synctest.Test(t, func(t *testing.T) {
					o := &fakeOrigin{fail: failOnce(answerOf(429, c.fields()...), nil)}
					resp, err := (&httpx.Retry{Statuses: []int{429}}).Do(newGet(t), o.send)
					if err != nil || resp.StatusCode != 200 {
						t.Fatalf("got %v, %v", resp, err)
					}
					waited := o.at[1].Sub(o.at[0])
					if most := c.asked + c.asked/4 + 100*time.Millisecond; waited < c.asked || waited > most {
						t.Errorf("waited %v, want %v to %v", waited, c.asked, most)
					}
					shortest, longest = min(shortest, waited), max(longest, waited)
				})
			}
			if spread := longest - shortest; spread < c.asked/100+10*time.Millisecond {
				t.Errorf("ten waits within %v of each other: no jitter", spread)
			}
		})
	}
}

func TestAWaitThatWouldEndTooLateIsNotBegun(t *testing.T) {
	const forever = 1000 * time.Hour
	for name, c := range map[string]struct {
		retry    *httpx.Retry
		deadline time.Duration // 0: none
		fail     func(int, *http.Request) (*http.Response, error)
		waits    bool
	}{
		"Retry-After beyond the deadline":           {&httpx.Retry{}, 20 * time.Second, failOnce(answerOf(503, "Retry-After", "20"), nil), false},
		"Retry-After before the deadline":           {&httpx.Retry{}, 10 * time.Minute, failOnce(answerOf(503, "Retry-After", "300"), nil), true},
		"Retry-After of a minute":                   {&httpx.Retry{}, 0, failOnce(answerOf(503, "Retry-After", "60"), nil), true},
		"Retry-After of more than a minute":         {&httpx.Retry{}, 0, failOnce(answerOf(503, "Retry-After", "61"), nil), false},
		"backoff beyond the deadline":               {&httpx.Retry{First: forever}, time.Second, failOnce(answerOf(503), nil), false},
		"backoff beyond the deadline, error":        {&httpx.Retry{First: forever}, time.Second, failOnce(nil, errReset), false},
		"backoff before the deadline":               {&httpx.Retry{}, time.Second, failOnce(nil, errReset), true},
		"backoff longer than a minute, no deadline": {&httpx.Retry{First: forever}, 0, failOnce(nil, errReset), true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req := newGet(t)
				if c.deadline > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
					defer cancel()
					req = req.WithContext(ctx)
				}
				c.retry.Statuses = []int{503}
				o := &fakeOrigin{fail: c.fail}
				start := time.Now()
				resp, err := c.retry.Do(req, o.send)
				if c.waits {
					if err != nil || resp.StatusCode != 200 {
						t.Errorf("got %v, %v", resp, err)
					}
					return
				}
				if took := time.Since(start); took != 0 || len(o.at) != 1 {
					t.Errorf("%d attempts, after %v", len(o.at), took)
				}
				if err != nil {
					if err != errReset {
						t.Errorf("got %v, want the error as it came", err)
					}
				} else if body, err := io.ReadAll(resp.Body); resp.StatusCode != 503 || string(body) != "said" || err != nil {
					t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
				}
			})
		})
	}
}

func TestAThousandThatFailAtOnceDoNotComeBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests, width, bins = 1000, 10 * time.Millisecond, 10
		var second, later [32]int // attempts, by when they came
		start := time.Now()
		o := &fakeOrigin{fail: func(n int, req *http.Request) (*http.Response, error) { return nil, errReset }}
		r := &httpx.Retry{Budget: -1}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range requests {
			wg.Go(func() {
				attempt := 0
				r.Do(newGet(t), func(req *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					switch bin := time.Since(start) / width; attempt {
					case 1:
						second[bin]++
					case 2:
						later[bin]++
					}
					attempt++
					return o.send(req)
				})
			})
		}
		wg.Wait()
		if len(o.at) != 3*requests {
			t.Fatalf("%d attempts, want %d", len(o.at), 3*requests)
		}
		for i := range later {
			t.Logf("%3d ms: %4d second attempts, %4d third ones", time.Duration(i)*width/time.Millisecond, second[i], later[i])
		}
		// A hundred in each bin, give or take 9.5; a wait of half a bound or more
		// would bring 200.
		for i, n := range second[:bins] {
			if n > 150 || n < 50 {
				t.Errorf("%d of %d second attempts came within %v of %v", n, requests, width, time.Duration(i)*width)
			}
		}
		if late := sum(later[20:]); late < 150 || late > 350 { // 250, give or take 14
			t.Errorf("%d of %d third attempts came more than 200 ms after the first: the bound does not double", late, requests)
		}
		for i, n := range later {
			if n > 120 {
				t.Errorf("%d of %d third attempts came within %v of %v", n, requests, width, time.Duration(i)*width)
			}
		}
	})
}

func sum(ns []int) (total int) {
	for _, n := range ns {
		total += n
	}
	return total
}

func TestNoWaitIsLongerThanItsBound(t *testing.T) {
	for name, c := range map[string]struct {
		first, max time.Duration
		bounds     []time.Duration // in ms
	}{
		"by default":      {0, 0, []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000}},
		"as is said":      {10 * time.Millisecond, 25 * time.Millisecond, []time.Duration{10, 20, 25, 25}},
		"a first of more": {20 * time.Second, 0, []time.Duration{20000, 20000}},
	} {
		synctest.Test(t, func(t *testing.T) {
			long := make([]bool, len(c.bounds)) // one that takes more than half its bound
			for range 50 {
				o := &fakeOrigin{fail: failAlways(errReset)}
				(&httpx.Retry{First: c.first, Max: c.max, Budget: -1, Attempts: len(c.bounds) + 1}).Do(newGet(t), o.send)
				for i, bound := range c.bounds {
					bound *= time.Millisecond
					waited := o.at[i+1].Sub(o.at[i])
					if waited > bound {
						t.Errorf("%s: wait %d is %v, want %v at most", name, i+1, waited, bound)
					}
					long[i] = long[i] || waited > bound/2
				}
			}
			if slices.Contains(long, false) {
				t.Errorf("%s: of 50 waits each, some never take half their bound: %v", name, long)
			}
		})
	}
}

func TestARetryCostsNothingWhereNothingIsRetried(t *testing.T) {
	r := &httpx.Retry{Statuses: []int{503}, Methods: []string{"PUT"}}
	resp := answerOf(200)
	send := func(*http.Request) (*http.Response, error) { return resp, nil }
	for name, req := range map[string]*http.Request{
		"GET":            newGet(t),
		"PUT":            newRequest(t, "PUT", "http://origin.example/", strings.NewReader("hello")),
		"POST":           newRequest(t, "POST", "http://origin.example/", bytes.NewReader([]byte("hello"))),
		"PUT, streamed":  newRequest(t, "PUT", "http://origin.example/", &supplied{Reader: strings.NewReader("hello")}),
		"POST, streamed": newRequest(t, "POST", "http://origin.example/", io.LimitReader(strings.NewReader("hello"), 5)),
	} {
		if n := testing.AllocsPerRun(100, func() { r.Do(req, send) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRetryOfWhatSucceeds(b *testing.B) {
	r := new(httpx.Retry)
	resp := answerOf(200)
	send := func(*http.Request) (*http.Response, error) { return resp, nil }
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for req := newGet(b); pb.Next(); {
			r.Do(req, send)
		}
	})
}

func TestARetryThatCannotBeMeantIsRefused(t *testing.T) {
	for field, r := range map[string]*httpx.Retry{
		"Attempts": {Attempts: -1},
		"First":    {First: -1},
		"Max":      {Max: -1},
		"Budget":   {Budget: 10}, // per cent
		"Budget ":  {Budget: math.NaN()},
	} {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), "Retry."+strings.TrimSpace(field)) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for _, r := range []*httpx.Retry{nil, {}, {Attempts: 10, First: 1, Max: 1, Budget: -1}, {Budget: 1}} {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// A moody server answers well, but for a while.
type moody struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request) // while moods > 0
	moods  atomic.Int32
	served atomic.Int32
	opened atomic.Int32
}

func newMoody(t *testing.T, protocol string, moods int32, answer func(http.ResponseWriter, *http.Request)) *moody {
	m := &moody{answer: answer}
	m.moods.Store(moods)
	m.Server = httptest.NewUnstartedServer(m)
	m.Config.ErrorLog = log.New(io.Discard, "", 0)
	m.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			m.opened.Add(1)
		}
	}
	if m.EnableHTTP2 = protocol == "HTTP/2.0"; m.EnableHTTP2 {
		m.StartTLS()
	} else {
		m.Start()
	}
	t.Cleanup(m.Close)
	return m
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.served.Add(1)
	if m.moods.Add(-1) >= 0 {
		m.answer(w, r)
		return
	}
	io.Copy(w, r.Body)
}

// client returns one that trusts the server.
func (m *moody) client(t *testing.T, r *httpx.Retry) *http.Client {
	tr := &httpx.Transport{Dialer: &dialer.Dialer{Ledger: new(dialer.Ledger)}, Retry: r, Proxy: httpx.NoProxy}
	if m.Certificate() != nil {
		tr.TLS = m.Client().Transport.(*http.Transport).TLSClientConfig
	}
	t.Cleanup(func() {
		if err := tr.Close(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return &http.Client{Transport: tr}
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestATransportRetriesWhatItsRetrySays(t *testing.T) {
	overloaded := func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, strings.Repeat("overloaded\n", 1000), http.StatusServiceUnavailable)
	}
	quick := httpx.Retry{First: time.Millisecond, Statuses: []int{503}, Methods: []string{"PUT"}}
	for name, c := range map[string]struct {
		retry  *httpx.Retry
		method string
		answer func(http.ResponseWriter, *http.Request)
		served int32
		status int // 0: it fails
	}{
		"a status":                 {&quick, "PUT", overloaded, 2, 200},
		"a status, POST":           {&quick, "POST", overloaded, 1, 503},
		"a status, no Retry":       {nil, "PUT", overloaded, 1, 503},
		"a lost exchange":          {&quick, "PUT", hangUp, 2, 200},
		"a lost exchange, POST":    {&quick, "POST", hangUp, 1, 0},
		"a lost exchange no Retry": {nil, "PUT", hangUp, 1, 0},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				m := newMoody(t, protocol, 1, c.answer)
				req := newRequest(t, c.method, m.URL, strings.NewReader("hello"))
				resp, err := m.client(t, c.retry).Do(req)
				if err == nil {
					defer resp.Body.Close()
					if resp.StatusCode != c.status || resp.Proto != protocol {
						t.Errorf("got %s %s", resp.Proto, resp.Status)
					}
					if body, err := io.ReadAll(resp.Body); err != nil || c.status == 200 && string(body) != "hello" {
						t.Errorf("got %q, %v", body, err)
					}
				} else if c.status != 0 || dialer.SafeToRetry(err) {
					t.Errorf("got %v, safe to retry: %t", err, dialer.SafeToRetry(err))
				}
				if n := m.served.Load(); n != c.served {
					t.Errorf("served %d, want %d", n, c.served)
				}
			})
		}
	}
}

func TestAnAnswerThatIsGivenUpLeavesItsConnectionToTheNextAttempt(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			m := newMoody(t, protocol, 2, func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, strings.Repeat("overloaded\n", 1000), http.StatusServiceUnavailable)
			})
			resp, err := m.client(t, &httpx.Retry{First: time.Millisecond, Statuses: []int{503}}).Get(m.URL)
			require.NoError(t, err)
			resp.Body.Close()
			if n := m.opened.Load(); n != 1 || m.served.Load() != 3 {
				t.Errorf("%d connections for %d attempts, want 1 for 3", n, m.served.Load())
			}
		})
	}
}

func TestAServerThatIsNotTrustedIsAskedOnce(t *testing.T) {
	m := newMoody(t, "HTTP/2.0", 0, nil)
	c := m.client(t, &httpx.Retry{First: time.Millisecond})
	c.Transport.(*httpx.Transport).TLS = nil
	_, err := c.Get(m.URL)
	if wrong := new(tls.CertificateVerificationError); !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
	if n := m.opened.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestAPortWhereNobodyListensIsDialedOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln.Close()
	var dials atomic.Int32
	d := &dialer.Dialer{Ledger: new(dialer.Ledger), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	tr := &httpx.Transport{Dialer: d, Retry: &httpx.Retry{First: time.Millisecond}, Proxy: httpx.NoProxy}
	defer tr.Close(t.Context())
	if _, err := tr.RoundTrip(newRequest(t, "GET", "http://"+ln.Addr().String(), nil)); !errors.Is(err, syscall.ECONNREFUSED) || !dialer.SafeToRetry(err) {
		t.Errorf("got %v, safe to retry: %t", err, dialer.SafeToRetry(err))
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d dials, want 1", n)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{
		"", "0", "120", " 5", "+5", "-5", "1.5", "1e3", "1_000", "18446744073709551616", "99999999999999999999999", "100000000000000000000A",
		"Fri, 31 Dec 1999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT", "Fri Dec 31 23:59:59 1999",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT",
	} {
		f.Add(v, "")
		f.Add(v, "Fri, 31 Dec 1999 23:59:00 GMT")
	}
	now := time.Date(1999, 12, 31, 23, 58, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, v, date string) {
		got := httpx.RetryAfter(http.Header{"Retry-After": {v}, "Date": {date}}, now)
		if want := retryAfterOtherwise(v, date, now); got != want {
			t.Errorf("%q at %q: %v, want %v", v, date, got, want)
		}
	})
}

// retryAfterOtherwise says the same in another way.
func retryAfterOtherwise(v, date string, now time.Time) time.Duration {
	longest := httpx.Longest
	if strings.Trim(v, "0123456789") == "" && v != "" {
		seconds, _ := new(big.Int).SetString(v, 10)
		if most := big.NewInt(int64(longest.Seconds())); seconds.Cmp(most) > 0 {
			seconds = most
		}
		return time.Duration(seconds.Int64()) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if server, err := http.ParseTime(date); err == nil {
		now = server
	}
	switch seconds := at.Unix() - now.Unix(); {
	case seconds < 0:
		return 0
	case seconds > int64(longest.Seconds()):
		return longest
	default:
		return time.Duration(seconds) * time.Second
	}
}
