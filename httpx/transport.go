package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
)

// A Transport is an http.RoundTripper with a pool of its own, which knows what a
// connection costs: HTTP/1.1, HTTP/2 and its cleartext form, through proxies too.
// net/http speaks the protocols; Transport chooses the connection.
//
// The zero Transport is ready to use. Transports with the same Dialer, the same TLS
// and the same settings share their connections, so that twenty clients in a process
// need no more of them than one. Set its fields before the first request, not after.
// It may be used by many goroutines, must not be copied, and is closed by whoever made
// it; one that is forgotten gives up its part when the garbage collector finds it.
//
// An error that came before any byte of the request was sent says so: dialer.SafeToRetry
// is true, unless it is what the caller's own context ended for. After any other one the
// request may have run.
//
// In a synctest bubble, give a Transport a Dialer of its own, or close it before the bubble
// ends: one outside, or in the next, would share its connections.
type Transport struct {
	// Dialer opens the connections. Nil: the zero Dialer, one for all Transports,
	// which books in dialer.DefaultLedger.
	Dialer *dialer.Dialer

	// TLS is what connections are secured with. It is not changed. An empty
	// ServerName is the host of the request, empty NextProtos follow Protocols.
	TLS *tls.Config

	// Proxy chooses the proxy for a request: http, https, socks5 or socks5h. Nil:
	// as the environment says (http.ProxyFromEnvironment). NoProxy: none.
	Proxy func(*http.Request) (*url.URL, error)

	// Retry says what is tried again. Nil: nothing but what provably did not run, and an
	// idempotent request whose connection has died before the answer.
	Retry *Retry

	// MaxConns is how many connections one scheme, proxy and host may have. Zero: as
	// many as the ledger has ports.
	MaxConns int

	// MaxIdle closes a connection that nobody has used for so long. Zero: 10 min,
	// since a closed one costs its port for up to 4 min (Azure), and keepalive
	// probes cost next to nothing. It is never longer than the path allows
	// (dialer.Dialer.MaxIdle), nor than the server does (Keep-Alive: timeout=5).
	MaxIdle time.Duration

	// MaxLife closes a connection of that age when it is free. Each draws its own,
	// between three quarters and the whole. Zero: never.
	MaxLife time.Duration

	// MaxWait is how long a request without a deadline waits for a connection.
	// Zero: 30 s. Negative: for as long as it takes.
	MaxWait time.Duration

	// Patience is for how long a request outlasts connects that fail, while one is tried
	// at a time, less and less often. Zero: a connect that fails fails the request that has
	// waited longest, and all if there is no other connection to wait for.
	Patience time.Duration

	// FinishWithin is how long an HTTP/1 exchange without a request body may go on,
	// unseen, after it was canceled: if the answer comes by then, and is no longer than
	// 256 KiB, the connection is saved. It costs each request that could be canceled a
	// goroutine, and hooks of httptrace may be called after RoundTrip has returned.
	// Zero: 1 s where ports are scarce, and not at all elsewhere. Negative: a canceled
	// exchange ends its connection, as in net/http.
	FinishWithin time.Duration

	// Logger is told of response bodies that were forgotten without Close, once a minute of
	// those that were made in one place for one host, by whichever Transport of the ledger. The
	// ledger's Logger is, too. Nil: nobody is.
	Logger *slog.Logger

	// These are named and meant as in http.Transport; what is zero there is a
	// default here: TLSHandshakeTimeout 10 s, ExpectContinueTimeout 1 s, Protocols
	// HTTP/1.1 and HTTP/2, HTTP2 pings within what the path remembers.
	Protocols              *http.Protocols
	HTTP2                  *http.HTTP2Config
	DisableCompression     bool
	TLSHandshakeTimeout    time.Duration
	ResponseHeaderTimeout  time.Duration
	ExpectContinueTimeout  time.Duration
	MaxResponseHeaderBytes int64
	ProxyConnectHeader     http.Header
	GetProxyConnectHeader  func(ctx context.Context, proxyURL *url.URL, target string) (http.Header, error)
	OnProxyConnectResponse func(ctx context.Context, proxyURL *url.URL, connectReq *http.Request, connectRes *http.Response) error

	once sync.Once
	user *user
	bad  error // in the fields
}

var _ http.RoundTripper = (*Transport)(nil)

const (
	defaultKeep      = 10 * time.Minute
	defaultMaxWait   = 30 * time.Second
	defaultFinish    = time.Second
	defaultHandshake = 10 * time.Second
	defaultContinue  = time.Second
)

// NewClient returns a client on a Transport whose connections come from d; nil: the
// zero Dialer. Set the ledger's Path before. It may be used by many goroutines.
func NewClient(d *dialer.Dialer) *http.Client {
	return &http.Client{Transport: &Transport{Dialer: d}}
}

// NoProxy is a Transport.Proxy that uses none.
func NoProxy(*http.Request) (*url.URL, error) { return nil, nil }

// Validate returns what is wrong with t, by field and value. RoundTrip fails with it.
func (t *Transport) Validate() error {
	if t.MaxConns < 0 {
		return fmt.Errorf("httpx: Transport.MaxConns is %d; it cannot be negative", t.MaxConns)
	}
	for _, f := range []struct {
		field string
		d     time.Duration
	}{
		{"MaxIdle", t.MaxIdle},
		{"MaxLife", t.MaxLife},
		{"Patience", t.Patience},
		{"TLSHandshakeTimeout", t.TLSHandshakeTimeout},
		{"ResponseHeaderTimeout", t.ResponseHeaderTimeout},
		{"ExpectContinueTimeout", t.ExpectContinueTimeout},
	} {
		if f.d < 0 {
			return fmt.Errorf("httpx: Transport.%s is %v; it cannot be negative", f.field, f.d)
		}
	}
	if t.MaxResponseHeaderBytes < 0 {
		return fmt.Errorf("httpx: Transport.MaxResponseHeaderBytes is %d; it cannot be negative", t.MaxResponseHeaderBytes)
	}
	return t.Retry.validate()
}

// RoundTrip sends req and returns the response, whose Body must be closed. It waits for
// a connection, whichever comes first, behind those who have waited longer.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	_, err := t.use()
	if err == nil {
		err = check(req)
	}
	if err != nil {
		closeBody(req)
		return nil, unsent(err)
	}
	if t.Retry != nil {
		return t.Retry.do(req, t.send)
	}
	return t.send(req)
}

// CloseIdleConnections closes the idle connections that t was the last to use. Each port is
// held by the NAT for a while after that.
func (t *Transport) CloseIdleConnections() {
	if u, err := t.use(); err == nil {
		u.stock.group.Retire(errNotNeeded, func(c *conn) bool { return c.user.Load() == u && c.idle() })
	}
}

// Close lets no request begin any more and waits, for as long as ctx lasts, until those
// under way are over, bodies and what is finished unseen included, but not connections
// that have switched protocols. Then the connections are closed if no other Transport shares
// them. It returns the cause of ctx and what is left; the rest still goes on, and it may be
// called again. RoundTrip fails from the first Close on.
func (t *Transport) Close(ctx context.Context) error {
	u, err := t.use()
	if err != nil {
		return nil
	}
	return u.close(ctx)
}

var (
	errClosed    = errors.New("httpx: Transport is closed")
	errNotNeeded = errors.New("httpx: CloseIdleConnections")
)

// use takes part in the connections that t shares with others.
func (t *Transport) use() (*user, error) {
	t.once.Do(func() {
		if t.bad = t.Validate(); t.bad != nil {
			return
		}
		t.user = &user{stock: t.join()}
		// What it leaves behind closes when it has been idle for MaxIdle.
		runtime.AddCleanup(t, func(u *user) { u.left.Do(func() { u.stock.leave() }) }, t.user)
	})
	return t.user, t.bad
}

// A user is a Transport as its connections know it: they do not keep it alive.
type user struct {
	stock *stock
	leaky atomic.Bool // a body was forgotten: from then on it is known where they are made

	busy   atomic.Int64 // requests and response bodies
	closed atomic.Bool
	left   sync.Once // the stock
	last   bool      // nobody is left there; set by left

	mu      sync.Mutex    // guards drained
	drained chan struct{} // closed when not busy any more; nil: nobody waits for that
}

// enter counts a request, unless the Transport is closed.
func (u *user) enter() bool {
	u.busy.Add(1)
	if u.closed.Load() {
		u.leave()
		return false
	}
	return true
}

func (u *user) leave() {
	if u.busy.Add(-1) > 0 || !u.closed.Load() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.drained != nil {
		close(u.drained)
		u.drained = nil
	}
}

func (u *user) close(ctx context.Context) error {
	u.closed.Store(true)
	for drained := u.drain(); u.busy.Load() > 0; drained = u.drain() {
		select {
		case <-drained:
		case <-ctx.Done():
			return fmt.Errorf("httpx: %d requests are under way, or their bodies open: %w", u.busy.Load(), context.Cause(ctx))
		}
	}
	u.left.Do(func() { u.last = u.stock.leave() })
	if !u.last {
		return nil
	}
	return u.stock.close(ctx)
}

// drain returns what leave will close when nothing is under way any more.
func (u *user) drain() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.drained == nil {
		u.drained = make(chan struct{})
	}
	return u.drained
}
