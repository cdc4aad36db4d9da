package httpx

import (
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/natwise/natwise/dialer"
)

// An attempt is a request on one connection.
type attempt struct {
	kept     *dialer.Conn // which had served others before; nil: a fresh one, or not ours
	written  int64        // by all of its users, before
	answered bool         // the first byte has come

	shared *dialer.Conn // which serves others meanwhile; nil: it does not
	began  time.Time
}

func begin(info httptrace.GotConnInfo) attempt {
	a := attempt{began: time.Now()}
	if conn, ours := dialer.Unwrap(info.Conn); ours && info.Reused {
		a.kept, a.written = conn, conn.BytesWritten()
	}
	return a
}

// mayRepeat reports whether a request that failed with err may be sent once more:
// its connection was kept, and has died before the answer began; and it cannot have
// run, or it does no harm to run it twice.
func (t *ticket) mayRepeat(req *http.Request, err error) bool {
	t.mu.Lock()
	a := t.try
	t.mu.Unlock()
	if a.kept == nil || a.answered || req.Context().Err() != nil {
		return false
	}
	if !died(err) {
		return false
	}
	return a.kept.BytesWritten() == a.written || idempotent(req)
}

// idempotent is what net/http takes for it.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, old := req.Header["X-Idempotency-Key"]
	return key || old
}

// rewind returns req with its body from the beginning, if that can be had. The trailer stays
// the caller's: it is filled in as the body is read.
func rewind(req *http.Request) (again *http.Request, ok bool) {
	if !hasBody(req) {
		return req, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	sent := *req
	sent.Body = body
	return &sent, true
}
