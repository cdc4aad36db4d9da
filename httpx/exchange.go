package httpx

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/pool"
)

// An exchange is one request on one connection. It is also the context of a request that
// may be finished unseen: that has the values of the caller's, and ends when nobody wants
// the answer any more, which may be later.
type exchange struct {
	*http.Request // what is sent
	transport     *Transport
	user          *user
	conn          *conn
	lease         pool.Lease[*conn]

	began         time.Time
	kept          bool  // its connection has carried others before
	written, read int64 // by the flow, before
	err           error // if it failed
	fate          fate

	release context.CancelFunc // frees what net/http keeps of a request that failed; nil: nothing
	place   string             // where the request was made; "": nobody has looked

	// For a request that may be finished unseen, for so long; else zero.
	within time.Duration
	done   chan struct{} // closed when nobody wants the answer
	answer chan answer   // of one

	mu        sync.Mutex // guards the fields below
	why       error      // for which done was closed
	then      []func()   // to be called then
	abandoned bool       // by its caller; the answer is on its way
	timer     *time.Timer
}

type answer struct {
	resp *http.Response
	err  error
}

// errCanceled returns what net/http says when Request.Cancel is closed. It has a value of its
// own for that, which it does not export.
var errCanceled = sync.OnceValue(func() error {
	over := make(chan struct{})
	canceled := make(chan struct{})
	close(canceled)
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		<-over
		return nil, net.ErrClosed
	}}
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "canceled.invalid"}, Header: make(http.Header)}
	//lint:ignore SA1019 that is what it is about
	req.Cancel = canceled
	_, err := tr.RoundTrip(req)
	close(over)
	return err
})

// lease waits for a connection on r and begins an exchange there.
func (t *Transport) lease(req *http.Request, r route) (*exchange, error) {
	ctx := req.Context()
	if canceled := legacy(req); canceled != nil {
		var stop context.CancelFunc
		ctx, stop = withCancel(ctx, canceled)
		defer stop()
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GetConn != nil {
		address, _ := r.dials()
		trace.GetConn(address)
	}
	u := t.user
	if !u.enter() {
		return nil, errClosed
	}
	came := time.Now()
	for useless := 0; ; {
		l, err := u.stock.group.Get(ctx, r)
		if err != nil {
			u.leave()
			return nil, err
		}
		c := l.Value()
		reused, since, err := c.begin(ctx, u)
		if err != nil {
			l.Discard(err)
			if c.answers.Load() > 0 || err == errLast || c.born.Before(came) {
				continue // there are only so many of those
			}
			if useless++; useless > fewRefusals { // more would be no better
				u.leave()
				return nil, err
			}
			continue
		}
		if trace != nil && trace.GotConn != nil {
			trace.GotConn(c.got(reused, since))
		}
		if req.Close && c.shared {
			c.lastOne.Store(true)
			c.look()
		}
		if calledOff(req) { // at this very moment: net/http would end the connection
			c.end()
			l.Put()
			u.leave()
			if err := context.Cause(req.Context()); err != nil {
				return nil, err
			}
			return nil, errCanceled()
		}
		return &exchange{
			Request: req, transport: t, user: u, conn: c, lease: l,
			began: time.Now(), kept: reused, written: c.flow.BytesWritten(), read: c.flow.BytesRead(),
		}, nil
	}
}

// got is what httptrace wants to know of a connection that was idle since then; zero: it was not.
func (c *conn) got(reused bool, since time.Time) httptrace.GotConnInfo {
	got := httptrace.GotConnInfo{Conn: c.shown, Reused: reused, WasIdle: !since.IsZero()}
	if got.WasIdle {
		got.IdleTime = time.Since(since)
	}
	return got
}

// legacy returns what some clients still call requests off by, http.Client for its Timeout
// among them.
func legacy(req *http.Request) <-chan struct{} {
	//lint:ignore SA1019 see above
	return req.Cancel
}

// withCancel returns ctx that also ends when canceled is closed, the way in which
// requests were called off before there were contexts.
func withCancel(ctx context.Context, canceled <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-canceled:
			cancel(errCanceled())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// run sends the request and returns the answer.
func (x *exchange) run() (*http.Response, error) {
	resp, err := x.send()
	if x.abandoned { // by us, just now
		return nil, err
	}
	if err != nil {
		x.err, x.fate = err, x.judge(err) // before the goodbye of TLS counts as something written
		x.over(false)
		return nil, err
	}
	return x.deliver(resp), nil
}

// send is net/http's RoundTrip. What is called off on HTTP/2 leaves the connection as it is;
// on HTTP/1 it ends it, by RST since the late answer would turn a FIN into one anyway.
func (x *exchange) send() (*http.Response, error) {
	if x.conn.shared {
		return x.conn.cc.RoundTrip(x.Request)
	}
	x.conn.flow.Asked()
	resp, err := x.sendAlone()
	if err == nil {
		x.conn.flow.Answered()
	}
	return resp, err
}

func (x *exchange) sendAlone() (*http.Response, error) {
	ctx := x.Context()
	if ctx.Done() == nil && x.Cancel == nil {
		return x.conn.cc.RoundTrip(x.Request)
	}
	if x.within = x.finishWithin(); x.within > 0 {
		return x.sendApart()
	}
	// net/http never ends the context that it derives if the request fails: that is
	// not to pile up for long below the caller's.
	if deadline, ok := ctx.Deadline(); ok && deadline.Sub(x.began) < time.Minute {
		return x.conn.cc.RoundTrip(x.Request)
	}
	ctx, x.release = context.WithCancel(ctx)
	return x.conn.cc.RoundTrip(x.WithContext(ctx))
}

// finishWithin is for how long the exchange may be finished unseen. Zero: not at all.
func (x *exchange) finishWithin() time.Duration {
	switch d := x.transport.FinishWithin; {
	case hasBody(x.Request) || x.conn.way.only1: // nobody could use what an Upgrade brings
		return 0
	case d != 0:
		return max(0, d)
	case x.conn.flow.Scarce():
		return defaultFinish
	}
	return 0
}

// sendApart sends the request in a goroutine of its own, which may outlast the caller.
func (x *exchange) sendApart() (*http.Response, error) {
	x.done = make(chan struct{})
	x.answer = make(chan answer, 1)
	req := x.WithContext(x)
	//lint:ignore SA1019 net/http would start a goroutine for it
	req.Cancel = nil
	go x.perform(req)
	select {
	case a := <-x.answer:
		return a.resp, a.err
	case <-x.Context().Done():
		return x.callOff(context.Cause(x.Context()))
	case <-x.Cancel:
		return x.callOff(errCanceled())
	}
}

// perform sends the request, and hears the answer out if nobody waits for it any more.
func (x *exchange) perform(req *http.Request) {
	resp, err := x.conn.cc.RoundTrip(req)
	x.mu.Lock()
	alone := x.abandoned
	if !alone {
		x.answer <- answer{resp, err}
	}
	x.mu.Unlock()
	if alone {
		x.finish(resp, err)
	}
}

// callOff leaves an exchange to itself. The answer may be there already.
func (x *exchange) callOff(why error) (*http.Response, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case a := <-x.answer:
		return a.resp, a.err
	default:
	}
	x.abandoned = true
	x.timer = time.AfterFunc(x.within, func() { x.cancel(why) })
	return nil, why
}

// finish hears out an answer that nobody waits for.
func (x *exchange) finish(resp *http.Response, err error) {
	defer x.timer.Stop()
	if err != nil {
		x.err = err
		x.over(false)
		return
	}
	x.conn.flow.Answered()
	if !x.bodied(resp) {
		x.over(true)
		return
	}
	x.over(drain(resp.Body))
}

// cancel says that nobody wants the answer any more.
func (x *exchange) cancel(why error) {
	x.mu.Lock()
	if x.why != nil {
		x.mu.Unlock()
		return
	}
	x.why = why
	then := x.then
	x.then = nil
	close(x.done)
	x.mu.Unlock()
	for _, f := range then {
		if f != nil {
			f()
		}
	}
}

// canceled returns what cancel was told.
func (x *exchange) canceled() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.why
}

var _ context.Context = (*exchange)(nil)

func (x *exchange) Deadline() (time.Time, bool) { return time.Time{}, false }
func (x *exchange) Done() <-chan struct{}       { return x.done }
func (x *exchange) Value(key any) any           { return x.Context().Value(key) }

func (x *exchange) Err() error {
	switch why := x.canceled(); {
	case why == nil:
		return nil
	case errors.Is(why, context.DeadlineExceeded):
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// AfterFunc spares package context a goroutine for each context below x.
func (x *exchange) AfterFunc(f func()) (stop func() bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.why != nil {
		go f()
		return func() bool { return false }
	}
	i := len(x.then)
	x.then = append(x.then, f)
	return func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.then == nil || x.then[i] == nil {
			return false
		}
		x.then[i] = nil
		return true
	}
}

// over ends the exchange. If it is clean, its connection can have the next one.
func (x *exchange) over(clean bool) {
	c := x.conn
	switch {
	case c.shared && usedUp(x.err):
		c.way.refused(int(c.answers.Load()))
		c.end()
		x.lease.Discard(x.err)
	case c.shared && !clean && x.unanswered():
		c.end()
		x.lease.Discard(errSilent)
	case c.shared || clean && c.free():
		c.end()
		x.lease.Put() // what has ended is not lent again: begin looks
	default:
		x.lease.Discard(cmp.Or(x.err, errBroken))
	}
	if x.release != nil {
		x.release()
	}
	x.user.leave()
}

// unanswered reports whether the request's deadline has passed while nothing at all came on
// a connection that is shared: it takes no more, but who is on it may go on waiting.
func (x *exchange) unanswered() bool {
	return x.Context().Err() == context.DeadlineExceeded && silent(x.conn.flow, x.began)
}

// deliver hands the response to the caller. With its body the exchange is over.
func (x *exchange) deliver(resp *http.Response) *http.Response {
	x.conn.answered()
	if !x.conn.shared {
		x.conn.heed(resp.Header)
	}
	switch {
	case upgraded(resp):
		x.conn.given.Store(true)
		x.over(false)
	case !x.bodied(resp):
		x.over(true)
	default:
		return x.wrap(resp)
	}
	return resp
}

// upgraded reports whether the connection is the caller's own from now on.
func upgraded(resp *http.Response) bool {
	_, writable := resp.Body.(io.Writer)
	return writable
}

// bodied reports whether resp has a body, at whose end the exchange is over. On HTTP/2 an
// empty one may be open for trailers; net/http says what has ended by a type of its own.
func (x *exchange) bodied(resp *http.Response) bool {
	if x.conn.shared {
		return !strings.HasSuffix(reflect.TypeOf(resp.Body).String(), "noBodyReader") && resp.Body != http.NoBody
	}
	return x.Method != http.MethodHead && resp.ContentLength != 0
}

// hasBody reports whether req has one.
func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// silent reports whether nothing has come on the connection for as long as since began,
// though nothing has to be sent again: a machine on the way may acknowledge what it
// throws away.
func silent(c *dialer.Conn, began time.Time) bool {
	info, err := c.Info()
	waited := time.Since(began)
	return err == nil && waited >= max(leastSilence, 3*info.RTO) && info.LastProof+kernelTick >= waited &&
		info.Retransmits == 0 && !c.Suspect()
}
