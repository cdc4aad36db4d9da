package httpx

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/retry"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
)

// A fate is what became of a request that failed on its connection.
type fate uint8

const (
	final     fate = iota // it may have run, or would fail again
	lost                  // its connection died before the answer: it may have run, or not
	untouched             // it cannot have run
)

const (
	// maxLost is how often a request is sent again that may have run.
	maxLost = 3

	// mayLose is after how many kept connections in a row that have died under one request
	// it is not lent another that has proved nothing since.
	mayLose = 2

	// maxRefusals is how often one is whose stream was refused. Where the connection
	// came to its end with that, it is maxGone, but fewRefusals if none has brought an
	// answer lately.
	maxRefusals = 7
	maxGone     = 32
	fewRefusals = 2

	firstRefusal = 10 * time.Millisecond
	lastRefusal  = time.Second

	// firstLoss is for whatever ended two connections under one request to be over.
	firstLoss = 200 * time.Millisecond
	lastLoss  = time.Second

	// cancelGrace is how long http.Client may take to notice that its own timeout
	// has passed, so that its error can say so.
	cancelGrace = 10 * time.Millisecond
)

// send sends req until it has run, or may have.
func (t *Transport) send(req *http.Request) (*http.Response, error) {
	r, err := t.route(req)
	if err != nil {
		closeBody(req)
		return nil, unsent(err)
	}
	sent, b := guard(req)
	replays := replays{
		refusals: retry.Backoff{First: firstRefusal, Max: lastRefusal},
		losses:   retry.Backoff{First: firstLoss, Max: lastLoss},
	}
	for {
		x, err := t.lease(sent, r)
		if err != nil {
			b.finish(sent)
			if err = timedOut(req, err); !isCause(req.Context(), err) {
				err = unsent(err)
			}
			return nil, replays.qualify(err)
		}
		resp, err := x.run()
		if err == nil {
			b.settle()
			resp.Request = req
			return resp, nil
		}
		if b.failed() {
			x.fate = final
		}
		if replays.allow(x) && t.affords(x) && replays.pause(req, x.fate) == nil {
			if again, fresh := b.rewind(sent); again != nil {
				if x.fate == lost && replays.lost == mayLose && x.conn.shared {
					x.distrust()
				}
				telemetry.Replayed(req.Context(), err)
				sent, b = again, fresh
				continue
			}
		}
		b.finish(sent)
		if err = x.explain(err); x.fate == untouched {
			err = unsent(err)
		}
		return nil, replays.qualify(err)
	}
}

// replays counts them for one request.
type replays struct {
	lost, fresh, refused int
	refusals, losses     retry.Backoff // between them
}

// allow reports whether the request of x may be sent again: after an outage as often as
// there may be connections that have died of it, and after a refusal as long as others get
// through.
func (r *replays) allow(x *exchange) bool {
	if !x.kept {
		r.fresh++
	}
	switch {
	case x.fate == final:
		return false
	case x.fate == lost:
		r.lost++
		return r.lost <= maxLost && r.fresh <= 1
	case !x.conn.shared:
		return x.kept || r.fresh <= 1 // one more of those that died idle
	}
	r.refused++
	if usedUp(x.err) {
		return r.refused <= fewRefusals || x.conn.way.works() && r.refused <= maxGone
	}
	return r.refused <= maxRefusals
}

// qualify returns err, which says nothing of earlier attempts, as the error of them all.
func (r *replays) qualify(err error) error {
	if r.lost > 0 && dialer.SafeToRetry(err) {
		return &lostError{err}
	}
	return err
}

// A lostError is of a request that may have run before it could not be sent again.
type lostError struct{ err error }

func (e *lostError) Error() string     { return "httpx: sent again, and may have run: " + e.err.Error() }
func (e *lostError) Unwrap() error     { return e.err }
func (e *lostError) SafeToRetry() bool { return false }
func (e *lostError) Timeout() bool     { return keepalive.FaultOf(e.err) == keepalive.Deadline }
func (e *lostError) Temporary() bool   { return false }

// isCause reports whether err is that for which ctx has ended, as the caller knows it.
func isCause(ctx context.Context, err error) bool {
	cause := context.Cause(ctx)
	return cause != nil && reflect.TypeOf(cause).Comparable() && err == cause
}

// distrust has the shared connections on x's way that have not answered since x began carry no
// more requests: what those on which it was lost have met, these may have met too, and whoever
// tries them all in turn loses a request that may only be sent so often. There are few of them.
// Of HTTP/1 there may be many, and a request that its server dies of would close them all.
func (x *exchange) distrust() {
	w := x.conn.way
	for r, p := range w.stock.group.Pools() {
		if r != w.route {
			continue
		}
		p.Retire(errDoubtful, func(c *conn) bool {
			info, err := c.flow.Info()
			return err == nil && info.LastProof > time.Since(x.began)
		})
	}
}

var errDoubtful = errors.New("httpx: others like it have died, and nothing has come on it since")

// pause lets some time pass after some refusals or losses. It returns early when nobody waits
// for the answer any more.
func (r *replays) pause(req *http.Request, f fate) error {
	switch {
	case f == lost && r.lost >= mayLose:
		return sleep(req, time.Now().Add(r.losses.Next()))
	case f == untouched && r.refused > fewRefusals:
		return sleep(req, time.Now().Add(r.refusals.Next()))
	}
	return nil
}

// affords reports whether a request that may have run may run twice. It counts as a retry
// where those are counted.
func (t *Transport) affords(x *exchange) bool {
	if x.fate != lost {
		return true
	}
	return t.Retry.idempotent(x.Request) && (t.Retry == nil || t.Retry.spend(x.Request))
}

// judge says what became of a request, by what the connection has carried.
func (x *exchange) judge(err error) fate {
	switch {
	case calledOff(x.Request):
		return final
	case refused(err):
		return untouched
	case isNamed(err, "http.nothingWrittenError"): // whatever the connection said
		return untouched
	case !died(err):
		return final
	case x.conn.flow.BytesWritten() == x.written:
		return untouched
	case !x.kept && keepalive.FaultOf(err) == keepalive.Finished:
		return final // it has hung up on us
	case x.conn.shared || isNamed(err, "http.transportReadFromServerError") || x.conn.flow.BytesRead() == x.read:
		return lost
	}
	return final
}

// refused reports whether err says that the server, or HTTP/2 on this side, has not
// processed the request.
func refused(err error) bool {
	var stream streamError
	if errors.As(err, &stream) {
		return stream.Code == refusedStream
	}
	return usedUp(err)
}

// usedUp reports whether err says that an HTTP/2 connection takes no more requests, not
// even this one. net/http has no values for that.
func usedUp(err error) bool {
	if err == nil {
		return false
	}
	switch err.Error() {
	case "http2: client conn not usable",
		"http2: client conn could not be established",
		"http2: Transport received Server's graceful shutdown GOAWAY": // of a stream beyond the last
		return true
	}
	return false
}

// A streamError is what net/http's errors.As fills in from its own.
type streamError struct {
	StreamID uint32
	Code     streamCode
	Cause    error
}

type streamCode uint32

const refusedStream streamCode = 7 // RFC 9113, section 7

func (e streamError) Error() string { return "httpx: HTTP/2 stream error" }

// isNamed reports whether err has that type, which net/http does not export.
func isNamed(err error, name string) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if reflect.TypeOf(err).String() == name {
			return true
		}
	}
	return false
}

// explain returns what the caller is told.
func (x *exchange) explain(err error) error {
	if ctx := x.Context(); ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return timedOut(x.Request, context.Cause(ctx))
	}
	for isNamedItself(err, "http.nothingWrittenError") || isNamedItself(err, "http.transportReadFromServerError") {
		err = errors.Unwrap(err) // as net/http does
	}
	return err
}

func isNamedItself(err error, name string) bool { return reflect.TypeOf(err).String() == name }

// timedOut waits until http.Client knows that its own timeout has passed, if that is why
// the context of req has ended.
func timedOut(req *http.Request, err error) error {
	if canceled := legacy(req); canceled != nil && req.Context().Err() == context.DeadlineExceeded {
		grace := time.NewTimer(cancelGrace)
		defer grace.Stop()
		select {
		case <-canceled:
		case <-grace.C:
		}
	}
	return err
}

// unsent marks an error of a request of which nothing was sent.
func unsent(err error) error {
	if dialer.SafeToRetry(err) {
		return err
	}
	return &unsentError{err}
}

type unsentError struct{ err error }

func (e *unsentError) Error() string     { return e.err.Error() }
func (e *unsentError) Unwrap() error     { return e.err }
func (e *unsentError) SafeToRetry() bool { return true }
func (e *unsentError) Timeout() bool     { return keepalive.FaultOf(e.err) == keepalive.Deadline }
func (e *unsentError) Temporary() bool   { return false }

// died reports whether err says that the connection did.
func died(err error) bool {
	switch keepalive.FaultOf(err) {
	case keepalive.Blackhole, keepalive.Unreachable, keepalive.Reset, keepalive.Finished, keepalive.Shut:
		return true
	}
	// For these net/http has no values.
	for _, text := range []string{
		"http2: client connection lost", // a ping without an answer
		"http2: server sent GOAWAY and closed the connection",
		"http2: client connection force closed",
		"http: server closed idle connection",
		"http: persistConn.readLoop exiting",
		"ClientConn closed",
	} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}
