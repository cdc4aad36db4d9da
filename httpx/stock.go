package httpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/retry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
)

// A stock is the connections that alike Transports share.
type stock struct {
	settings
	dialer  *dialer.Dialer
	engine  *http.Transport // opens connections and speaks HTTP; its own pool stays empty
	engine1 *http.Transport // the same for HTTP/1.1 alone
	group   pool.Group[route, *conn]
	sweeper sweeper

	mu      sync.Mutex    // guards carries
	carries map[route]int // exchanges at a time on a connection, as far as known

	users int // guarded by stocks.mu
}

func (s *stock) ledger() *dialer.Ledger {
	if s.dialer.Ledger != nil {
		return s.dialer.Ledger
	}
	return dialer.DefaultLedger
}

// settings are what Transports must have in common to share connections. What cannot be
// compared is shared with nobody.
type settings struct {
	dialer           *dialer.Dialer
	tls              *tls.Config
	http2            *http.HTTP2Config
	protocols        http.Protocols
	plain            bool // no DisableCompression
	maxConns         int
	maxIdle, maxLife time.Duration
	maxWait          time.Duration
	patience         time.Duration
	handshake        time.Duration
	header, expect   time.Duration
	maxHeader        int64
}

// stocks are those in use.
var stocks struct {
	mu  sync.Mutex
	all map[settings]*stock
}

// noDialer is the zero Dialer of all Transports that name none.
var noDialer dialer.Dialer

func (t *Transport) settings() (s settings, shared bool) {
	s = settings{
		dialer:    t.Dialer,
		tls:       t.TLS,
		http2:     t.HTTP2,
		plain:     t.DisableCompression,
		maxConns:  t.MaxConns,
		maxIdle:   cmp.Or(t.MaxIdle, defaultKeep),
		maxLife:   t.MaxLife,
		maxWait:   max(0, cmp.Or(t.MaxWait, defaultMaxWait)),
		patience:  cmp.Or(t.Patience, -1),
		handshake: cmp.Or(t.TLSHandshakeTimeout, defaultHandshake),
		header:    t.ResponseHeaderTimeout,
		expect:    cmp.Or(t.ExpectContinueTimeout, defaultContinue),
		maxHeader: t.MaxResponseHeaderBytes,
	}
	if s.dialer == nil {
		s.dialer = &noDialer
	}
	if t.Protocols != nil {
		s.protocols = *t.Protocols
	} else {
		s.protocols.SetHTTP1(true)
		s.protocols.SetHTTP2(true)
	}
	return s, len(t.ProxyConnectHeader) == 0 && t.GetProxyConnectHeader == nil && t.OnProxyConnectResponse == nil
}

// join returns the stock of those that are as t, or makes one.
func (t *Transport) join() *stock {
	set, shared := t.settings()
	stocks.mu.Lock()
	defer stocks.mu.Unlock()
	s := stocks.all[set]
	if s == nil || !shared {
		s = newStock(t, set)
	}
	if shared {
		if stocks.all == nil {
			stocks.all = make(map[settings]*stock)
		}
		stocks.all[set] = s
	}
	s.users++
	return s
}

// leave counts a Transport out. It reports whether that was the last one: then nobody
// will join any more.
func (s *stock) leave() (last bool) {
	stocks.mu.Lock()
	defer stocks.mu.Unlock()
	s.users--
	if s.users > 0 {
		return false
	}
	if stocks.all[s.settings] == s {
		delete(stocks.all, s.settings)
	}
	return true
}

func (s *stock) close(ctx context.Context) error {
	s.sweeper.stop()
	return s.group.Close(ctx)
}

func newStock(t *Transport, set settings) *stock {
	s := &stock{settings: set, dialer: set.dialer}
	engine := func() *http.Transport {
		return &http.Transport{
			Proxy:                  func(req *http.Request) (*url.URL, error) { return openingOf(req.Context()).way.through() },
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return openingOf(ctx).dial(ctx) },
			DialTLSContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return openingOf(ctx).dialTLS(ctx) },
			TLSClientConfig:        s.tls.Clone(),
			TLSHandshakeTimeout:    s.handshake,
			DisableCompression:     s.plain,
			ResponseHeaderTimeout:  s.header,
			ExpectContinueTimeout:  s.expect,
			MaxResponseHeaderBytes: s.maxHeader,
			ProxyConnectHeader:     t.ProxyConnectHeader,
			GetProxyConnectHeader:  t.GetProxyConnectHeader,
			OnProxyConnectResponse: t.OnProxyConnectResponse,
			Protocols:              new(http.Protocols),
		}
	}
	s.engine, s.engine1 = engine(), engine()
	*s.engine.Protocols = s.protocols
	s.engine.HTTP2 = s.pings()
	s.engine1.Protocols.SetHTTP1(true)
	s.group.New = s.config
	return s
}

// pings are HTTP/2's settings: what t says, and pings that keep the path and find out
// what TCP cannot.
func (s *stock) pings() *http.HTTP2Config {
	var c http.HTTP2Config
	if s.http2 != nil {
		c = *s.http2
	}
	c.StrictMaxConcurrentRequests = true // more streams than the server wants wait, and are not sent elsewhere
	if c.SendPingTimeout == 0 {
		c.SendPingTimeout = pingEvery(s.dialer)
		c.PingTimeout = cmp.Or(c.PingTimeout, pingTimeout)
	}
	return &c
}

// pingEvery is the silence after which an HTTP/2 connection is asked. Zero: never.
func pingEvery(d *dialer.Dialer) time.Duration {
	path := d.Path()
	plan := d.Plan.Over(keepalive.For(path))
	if plan.Idle > 0 && path.Counts == netpath.Segments {
		return max(plan.Idle, leastPing)
	}
	return plan.Idle
}

// alone reports whether connections on r carry one exchange at a time, as is known
// before there is one.
func (s *stock) alone(r route) bool {
	switch {
	case r.only1:
		return true
	case r.scheme == "http":
		return !s.cleartext2()
	}
	return !s.protocols.HTTP2()
}

// cleartext2 reports whether HTTP/2 is spoken without TLS, by prior knowledge.
func (s *stock) cleartext2() bool { return s.protocols.UnencryptedHTTP2() && !s.protocols.HTTP1() }

// A way is a route while there are connections on it.
type way struct {
	route
	stock  *stock
	capped atomic.Bool // cap is set

	mu      sync.Mutex // guards the fields below
	first   *first     // nil: it is known what a connection carries, or nobody finds out
	cap     int        // how many streams to begin at once, whatever the server says; 0: as many as it says
	answers bool       // some connection has brought one
	failing int        // HTTP/2 connections in a row that have not
	backoff retry.Backoff
}

// A first connection is opened alone, to learn what one carries.
type first struct {
	conn   *conn         // once opened is closed
	opened chan struct{} // closed when it is there
	known  chan struct{} // closed when it has told, or has failed
	end    sync.Once
}

// await waits for what the first connection tells. Somebody must be the first.
func (w *way) await(ctx context.Context) *first {
	for {
		w.mu.Lock()
		f := w.first
		if f == nil {
			defer w.mu.Unlock()
			if w.stock.alone(w.route) || w.failing == 0 && w.stock.carried(w.route) > 0 {
				return nil
			}
			w.first = &first{opened: make(chan struct{}), known: make(chan struct{})}
			return w.first
		}
		w.mu.Unlock()
		select {
		case <-f.known:
		case <-f.opened:
			f.conn.awaitSettings(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// learned says that f has told, or never will.
func (w *way) learned(f *first) {
	if f == nil {
		return
	}
	f.end.Do(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.first = nil
		close(f.known)
	})
}

// useless says that an HTTP/2 connection has ended that brought no answer. When that goes on,
// those who wait are told, as if it could not have been opened, and the next ones are
// opened less and less often.
func (w *way) useless(cause error) {
	w.mu.Lock()
	w.failing++
	goesOn := w.failing >= mayFail
	w.mu.Unlock()
	if !goesOn {
		return
	}
	for r, p := range w.stock.group.Pools() {
		if r == w.route {
			p.Reset(cause)
		}
	}
}

func (w *way) useful() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers, w.failing = true, 0
	w.backoff.Reset()
}

// refused says that a connection was told to take no more after so many answers, with more
// requests on it: fewer are begun at once from now on.
func (w *way) refused(answers int) {
	if answers == 0 {
		return // and no more connections are needed because of that
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cap = max(leastCap, 2*answers)
	w.capped.Store(true)
}

// leastCap is what a refusal cannot go below: a connection that was young would say too
// little, and cost others.
const leastCap = 16

// atOnce is how many streams to begin at once where the server wants that many, on a
// connection that has brought so many answers. What is learned from a refusal is
// forgotten as more answers come.
func (w *way) atOnce(streams, answers int) int {
	if !w.capped.Load() {
		return streams
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if answers > w.cap {
		w.cap *= 2
	}
	if w.cap >= streams {
		w.capped.Store(false)
		return streams
	}
	return w.cap
}

// works reports whether connections on the route bring answers.
func (w *way) works() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers && w.failing < mayFail
}

// pause is how long to wait before the next connection.
func (w *way) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failing < mayFail {
		return 0
	}
	return w.backoff.Next()
}

// mayFail is how many connections in a row may bring no answer before that is a failure.
const mayFail = 2

// config is that of the pool for one route.
func (s *stock) config(r route) pool.Config[*conn] {
	w := &way{route: r, stock: s, backoff: retry.Backoff{First: firstPause, Max: lastPause}}
	cfg := pool.Config[*conn]{
		Ask:      w.ask,
		Obstacle: w.obstacle,
		Close:    (*conn).close,
		Watch:    (*conn).watch,
		Max:      s.maxConns,
		MaxIdle:  s.maxIdle,
		MaxLife:  s.maxLife,
		MaxWait:  s.maxWait,
		Patience: s.patience,
	}
	if limit := s.dialer.MaxIdle(); limit > 0 {
		cfg.MaxIdle = min(limit, cfg.MaxIdle)
	}
	if s.alone(r) {
		cfg.IdleFor = func(c *conn) time.Duration { return time.Duration(c.idleFor.Load()) }
	} else {
		cfg.Capacity = (*conn).room
		cfg.Expect = s.carried(r)
	}
	return cfg
}

// retire has the connections for which match is true be used no more.
func (s *stock) retire(cause error, match func(*conn) bool) {
	for _, p := range s.group.Pools() {
		p.Retire(cause, match)
	}
}

// A wayOwner is whom ports belong to, for fairness: the stock's connections on one route.
type wayOwner struct {
	stock *stock
	route route
}

// owner does not change when the pool for the route is made again.
func (w *way) owner() any { return wayOwner{w.stock, w.route} }

func (w *way) obstacle() error { return w.stock.ledger().Obstacle(w.owner()) }

// ask waits for a port, unless the last connection turns out to have room for all.
func (w *way) ask(ctx context.Context) (pool.Permit[*conn], error) {
	address, err := w.dials()
	if err != nil {
		return nil, err
	}
	f := w.await(ctx)
	if d := w.pause(); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	res, err := w.stock.dialer.Reserve(dialer.WithOwner(resolving(ctx), w.owner()), "tcp", address)
	if err != nil {
		w.learned(f)
		return nil, err
	}
	return &opening{way: w, first: f, Reservation: res}, nil
}

// resolving returns ctx for looking names up, which httptrace has hooks of its own for: what
// the resolver dials is nobody's connection.
func resolving(ctx context.Context) context.Context {
	trace := httptrace.ContextClientTrace(ctx)
	if trace == nil {
		return ctx
	}
	return httptrace.WithClientTrace(untraced{ctx}, &httptrace.ClientTrace{DNSStart: trace.DNSStart, DNSDone: trace.DNSDone})
}

// An untraced context has all of another one's values but its traces.
type untraced struct{ context.Context }

func (c untraced) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil && (t.PkgPath() == "internal/nettrace" || t.PkgPath() == "net/http/httptrace") {
		return nil
	}
	return c.Context.Value(key)
}

// learn remembers how many exchanges a connection on the route carries.
func (w *way) learn(streams int) {
	s := w.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.carries == nil || len(s.carries) >= maxCarries {
		s.carries = make(map[route]int)
	}
	s.carries[w.route] = streams
}

// carried is how many exchanges connections on r carried last. Zero: nobody remembers.
func (s *stock) carried(r route) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carries[r]
}

// maxCarries is of how many routes it is remembered what their connections carry.
const maxCarries = 4096

// An opening is a connection to be, whose port is reserved.
type opening struct {
	*dialer.Reservation
	way   *way
	first *first // nil: it is not
	flow  *dialer.Conn
	shown net.Conn
}

type openingKey struct{}

func openingOf(ctx context.Context) *opening { return ctx.Value(openingKey{}).(*opening) }

// dial is what the engine dials by. An address that it names is where o leads.
func (o *opening) dial(ctx context.Context) (net.Conn, error) {
	c, err := o.Reservation.Dial(dialer.WithOwner(ctx, o.way.owner()))
	if err != nil {
		return nil, err
	}
	o.flow = c.(*dialer.Conn)
	o.shown = o.flow
	return o.flow, nil
}

// dialTLS leaves the handshake to the engine.
func (o *opening) dialTLS(ctx context.Context) (net.Conn, error) {
	c, err := o.dial(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := o.tlsConfig()
	if err != nil {
		c.Close()
		return nil, err
	}
	o.flow.SetDeadline(time.Now().Add(o.way.stock.handshake))
	o.shown = tls.Client(c, cfg)
	return o.shown, nil
}

// tlsConfig is for the machine that is dialed.
func (o *opening) tlsConfig() (*tls.Config, error) {
	cfg := o.way.stock.tls.Clone()
	if cfg == nil {
		cfg = new(tls.Config)
	}
	address, err := o.way.dials()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	switch {
	case o.way.proxy != "" || o.way.only1:
		cfg.NextProtos = nil
	case len(cfg.NextProtos) > 0:
	default:
		if o.way.stock.protocols.HTTP2() {
			cfg.NextProtos = append(cfg.NextProtos, "h2")
		}
		if o.way.stock.protocols.HTTP1() {
			cfg.NextProtos = append(cfg.NextProtos, "http/1.1")
		}
	}
	return cfg, nil
}

// Release gives the port back.
func (o *opening) Release() {
	o.Reservation.Release()
	o.way.learned(o.first)
}

// Open connects, by TLS and through the proxy if need be.
func (o *opening) Open(ctx context.Context) (*conn, error) {
	defer o.Reservation.Release() // does nothing after dial
	engine := o.way.stock.engine
	if o.way.only1 {
		engine = o.way.stock.engine1
	}
	cc, err := engine.NewClientConn(context.WithValue(ctx, openingKey{}, o), o.way.scheme, cmp.Or(o.way.host, anyHost))
	if err != nil {
		o.way.learned(o.first)
		if o.flow != nil {
			o.flow.Close()
		}
		return nil, o.reason(err)
	}
	if o.secured() && o.flow.SetDeadline(time.Time{}) != nil {
		o.way.learned(o.first)
		cc.Close()
		return nil, net.ErrClosed
	}
	o.way.stock.wake()
	return newConn(cc, o), nil
}

// secured reports whether there is TLS above the flow, other than through a proxy.
func (o *opening) secured() bool { return o.flow != nil && o.shown != net.Conn(o.flow) }

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// anyHost is what a proxy's connection is opened for that takes requests for any host.
const anyHost = "proxied.invalid:80"

// reason says why there is no connection.
func (o *opening) reason(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/" {
		return http.ErrSchemeMismatch
	}
	if keepalive.FaultOf(err) == keepalive.Deadline && o.secured() {
		return &handshakeError{o.way.stock.handshake, err}
	}
	return err
}

// A handshakeError says that TLS took too long.
type handshakeError struct {
	timeout time.Duration
	err     error
}

func (e *handshakeError) Error() string {
	return "net/http: TLS handshake timeout, after " + e.timeout.String()
}
func (e *handshakeError) Unwrap() error   { return e.err }
func (e *handshakeError) Timeout() bool   { return true }
func (e *handshakeError) Temporary() bool { return true }
