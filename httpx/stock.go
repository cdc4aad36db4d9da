package httpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/retry"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
)

// A stock is the connections that alike Transports share.
type stock struct {
	settings
	engine  *http.Transport // opens connections and speaks HTTP; its own pool stays empty
	engine1 *http.Transport // the same for HTTP/1.1 alone
	group   pool.Group[route, *conn]
	sweeper sweeper
	scope   *telemetry.Scope
	closed  atomic.Bool

	mu      sync.Mutex    // guards carries
	carries map[route]int // exchanges at a time on a connection, as far as known

	users int // guarded by stocks.mu
}

// settings are what Transports must have in common to share connections. What cannot be
// compared is shared with nobody.
type settings struct {
	dialer           *dialer.Dialer
	tls              *tls.Config
	http2            *http.HTTP2Config
	protocols        http.Protocols
	plain            bool // no compression
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
	err := s.group.Close(ctx)
	s.closed.Store(err == nil)
	return err
}

func newStock(t *Transport, set settings) *stock {
	s := &stock{settings: set, scope: set.dialer.Telemetry()}
	telemetry.Join(s.scope, s, (*stock).tell)
	engine := func() *http.Transport {
		return &http.Transport{
			Proxy:       func(req *http.Request) (*url.URL, error) { return openingOf(req.Context()).way.through() },
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return openingOf(ctx).dial(ctx) },
			DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return openingOf(ctx).dialTLS(ctx, address)
			},
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

// config is that of the pool for one route.
func (s *stock) config(r route) pool.Config[*conn] {
	w := &way{route: r, stock: s, backoff: retry.Backoff{First: firstPause, Max: lastPause}}
	w.name = s.scope.Name(r.leads())
	cfg := pool.Config[*conn]{
		Ask:      w.ask,
		Obstacle: w.obstacle,
		Close:    (*conn).close,
		Watch:    (*conn).watch,
		Observe:  w.observe,
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

// carried is how many exchanges connections on r carried last. Zero: nobody remembers.
func (s *stock) carried(r route) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carries[r]
}

// maxCarries is of how many routes it is remembered what their connections carry.
const maxCarries = 4096
