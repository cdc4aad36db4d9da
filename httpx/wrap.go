package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
)

// Wrap does what Install does and returns a RoundTripper that also gives each
// request a ticket: its dial waits for a port no longer than the request waits
// for a connection. What net/http does for HTTP/1 only, it does for HTTP/2 too: a
// request whose kept connection has died is sent once more on another, if nothing of
// it was written or it is idempotent, and its body can be had again. If Install
// fails, every request fails with its error. The RoundTripper may be used by many
// goroutines and has CloseIdleConnections.
func Wrap(tr *http.Transport, d *dialer.Dialer) http.RoundTripper {
	w := &wrapped{tr: tr, err: Install(tr, d)}
	if w.err == nil && tr.Protocols != nil {
		w.h2c = tr.Protocols.UnencryptedHTTP2() && !tr.Protocols.HTTP1()
	}
	return w
}

type wrapped struct {
	tr  *http.Transport
	err error // Install's
	h2c bool  // HTTP/2 without TLS, which a connection does not show

	streams census
}

// errNotWanted is the cause with which a dial is given up. It reaches nobody but
// traces.
var errNotWanted = errors.New("httpx: the request has got another connection, or is over")

func (w *wrapped) RoundTrip(req *http.Request) (*http.Response, error) {
	if w.err != nil {
		closeBody(req)
		return nil, w.err
	}
	t := w.ticket()
	resp, err := w.send(req, t)
	if err == nil || !t.mayRepeat(req, err) {
		return resp, err
	}
	if again, ok := rewind(req); ok {
		return w.send(again, w.ticket())
	}
	return nil, err
}

func (w *wrapped) ticket() *ticket { return &ticket{shared: w.h2c, streams: &w.streams} }

// send is one attempt.
func (w *wrapped) send(req *http.Request, t *ticket) (*http.Response, error) {
	ctx := context.WithValue(req.Context(), ticketKey{}, t)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { t.open() },
		GotConn:              t.got,
		WroteHeaders:         t.asked,
		GotFirstResponseByte: t.answered,
		PutIdleConn:          t.park,
	})
	defer t.close()
	resp, err := w.tr.RoundTrip(req.WithContext(ctx))
	return w.streams.settle(req, t, resp, err)
}

// CloseIdleConnections closes what is idle. Each port is held by the NAT for a
// while after that.
func (w *wrapped) CloseIdleConnections() {
	if w.tr != nil {
		w.tr.CloseIdleConnections()
	}
}

type ticketKey struct{}

// A ticket is one request's claim to a connection. It is closed when the
// request has one, and opened again if net/http repeats the request.
type ticket struct {
	shared  bool // connections carry many exchanges at a time
	streams *census

	mu     sync.Mutex // guards the fields below
	served bool
	giveUp []context.CancelCauseFunc // of the dials that wait for a port
	fresh  []*dialer.Conn            // what those dials have brought
	conn   *dialer.Conn              // of the present exchange; nil: HTTP/2, or not ours
	turn   keepalive.Turn
	try    attempt
}

// wanted returns a context that ends when the request has got a connection. A
// nil ticket, which Install alone gives, is wanted for as long as ctx lasts.
func (t *ticket) wanted(ctx context.Context) (context.Context, context.CancelFunc) {
	if t == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served {
		cancel(errNotWanted)
	} else {
		t.giveUp = append(t.giveUp, cancel)
	}
	return ctx, func() { cancel(nil) }
}

// dialed remembers a connection that was dialed for the request. If the request
// needs it no more, net/http keeps it for others, without a word.
func (t *ticket) dialed(c *dialer.Conn) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.fresh = append(t.fresh, c)
	served := t.served
	t.mu.Unlock()
	if served {
		t.close()
	}
}

func (t *ticket) open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.served = false
}

// got begins a turn of the connection. If it was retired at this very moment,
// its first Write says so before a byte is sent, and net/http takes another,
// unless the request has a body that cannot be had again.
func (t *ticket) got(info httptrace.GotConnInfo) {
	conn, ours := dialer.Unwrap(info.Conn)
	var turn keepalive.Turn
	try := begin(info)
	if ours {
		var err error
		turn, err = conn.Unpark()
		if shared := t.shares(info.Conn); shared || err != nil {
			if shared {
				try.shared = conn
				t.streams.join(conn)
			}
			conn = nil
		}
	}
	t.mu.Lock()
	left := t.try.shared // net/http has taken another in its place
	t.conn, t.turn, t.try = conn, turn, try
	t.mu.Unlock()
	if left != nil {
		t.streams.leave(left, false)
	}
	t.close()
}

// close gives up the dials that wait for a port, and parks what others brought:
// the request has a connection, or is over. A connection that has been lent
// since is in a later turn than its first.
func (t *ticket) close() {
	t.mu.Lock()
	t.served = true
	giveUp, fresh := t.giveUp, t.fresh
	t.giveUp, t.fresh = nil, nil
	t.mu.Unlock()
	for _, cancel := range giveUp {
		cancel(errNotWanted)
	}
	for _, c := range fresh {
		c.Park(0)
	}
}

// shares reports whether the connection carries several exchanges at a time, as
// HTTP/2 does, whose streams never give it back.
func (t *ticket) shares(c net.Conn) bool {
	tc, ok := c.(*tls.Conn)
	return t.shared || ok && tc.ConnectionState().NegotiatedProtocol == "h2"
}

func (t *ticket) asked() {
	if conn, _ := t.exchange(); conn != nil {
		conn.Asked()
	}
}

func (t *ticket) answered() {
	t.mu.Lock()
	t.try.answered = true
	t.mu.Unlock()
	if conn, _ := t.exchange(); conn != nil {
		conn.Answered()
	}
}

// park offers the connection to whoever waits for a port, unless another
// request has it by now: net/http calls this after the connection may be lent
// again.
func (t *ticket) park(err error) {
	if conn, turn := t.exchange(); conn != nil && err == nil {
		conn.Park(turn)
	}
}

func (t *ticket) exchange() (*dialer.Conn, keepalive.Turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn, t.turn
}
