// Package adapter puts natwise under the tests of net/http. Nothing imports it: the
// bench stdlib lays this file over the tests, as one more of their package, and has
// them call what is in it.
//
// A test tunes an *http.Transport, often after its client was made. So an adapter
// reads that Transport when it is used, and is an httpx.Transport with the same
// settings. What httpx has no setting for is not passed on: MaxIdleConns,
// MaxIdleConnsPerHost, DialTLS, DialTLSContext, RegisterProtocol.
package adapter

//lint:file-ignore SA1019 net/http's tests use what is deprecated
//lint:file-ignore U1000 those tests call it

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// natwiseBroken has every request fail. A test that passes all the same says nothing
// about a RoundTripper.
var natwiseBroken = flag.Bool("natwise.broken", false, "let every request fail")

var errNatwiseBroken = errors.New("this RoundTripper is broken on purpose")

// natwiseAdapters has the adapter of each Transport, so that a test finds the
// same one through its client and through the Transport.
var natwiseAdapters struct {
	sync.Mutex
	of map[*http.Transport]*natwiseAdapter
}

// natwiseOver returns the adapter of tr.
func natwiseOver(tr *http.Transport) *natwiseAdapter {
	all := &natwiseAdapters
	all.Lock()
	defer all.Unlock()
	if all.of == nil {
		all.of = make(map[*http.Transport]*natwiseAdapter)
	}
	a := all.of[tr]
	if a == nil {
		a = &natwiseAdapter{tuned: tr}
		all.of[tr] = a
	}
	return a
}

// natwiseUnder returns what a test tunes: the Transport below its client's adapter.
func natwiseUnder(rt http.RoundTripper) *http.Transport {
	if a, ok := rt.(*natwiseAdapter); ok {
		return a.tuned
	}
	return rt.(*http.Transport)
}

// natwiseDialed returns the connection that a test's dial function made, from inside
// of what has been put around it.
func natwiseDialed(c net.Conn) net.Conn {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = inner.NetConn()
	}
}

// natwisePending has what a test wants to be called before and after each dial.
var natwisePending struct {
	sync.Mutex
	before, after func()
}

// natwiseSetPendingDialHooks stands for SetPendingDialHooks, which it is given and
// calls for those Transports that are not under natwise.
func natwiseSetPendingDialHooks(set func(before, after func()), before, after func()) {
	set(before, after)
	natwisePending.Lock()
	defer natwisePending.Unlock()
	natwisePending.before, natwisePending.after = before, after
}

// natwiseDialing calls the one and returns the other.
func natwiseDialing() (done func()) {
	natwisePending.Lock()
	before, after := natwisePending.before, natwisePending.after
	natwisePending.Unlock()
	if before != nil {
		before()
	}
	if after == nil {
		after = func() {}
	}
	return after
}

// natwiseSevers is true in a test that calls natwiseCloseConnsAbruptly. In others the
// garbage collector may find the connections.
var natwiseSevers atomic.Bool

// natwiseCloseConnsAbruptly closes the connections of tr's adapter, of which httpx
// is not told.
func natwiseCloseConnsAbruptly(tr *http.Transport) {
	a := natwiseOver(tr)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.dialed {
		c.Close()
	}
}

// natwiseWithoutRetried leaves out of a log what http.Transport tells a test's hook.
func natwiseWithoutRetried(log string) string { return strings.ReplaceAll(log, "Retried.\n", "") }

// natwiseCancels is what CancelRequest has a request fail with, in a test that calls
// it. Nil: no test does.
var natwiseCancels atomic.Pointer[error]

// A natwiseAdapter is a RoundTripper with the settings of the Transport that a test
// tunes.
type natwiseAdapter struct {
	tuned *http.Transport

	mu       sync.Mutex                                // guards the fields below
	settings natwiseSettings                           // of the last of ours
	ours     []natwiseOurs                             // one for each time that the settings were others
	dialed   []net.Conn                                // in a test that severs them
	cancels  map[*http.Request]context.CancelCauseFunc // in a test that calls CancelRequest
}

// natwiseOurs is an httpx.Transport and what it books in.
type natwiseOurs struct {
	*httpx.Transport
	ledger *dialer.Ledger
	names  *natwiseNames
}

func (a *natwiseAdapter) RoundTrip(req *http.Request) (*http.Response, error) {
	if *natwiseBroken {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, errNatwiseBroken
	}
	sent := req
	if natwiseCancels.Load() != nil {
		sent = a.cancelable(req)
	}
	if a.tuned.DisableKeepAlives && !req.Close && req.Header["Upgrade"] == nil {
		sent = sent.WithContext(sent.Context())
		sent.Close = true
	}
	resp, err := a.transport().RoundTrip(sent)
	if resp != nil && resp.Request == sent {
		resp.Request = req
	}
	return resp, err
}

// cancelable returns req with a context that CancelRequest can cancel: by one, as the
// documentation of http.Transport.CancelRequest has it done.
func (a *natwiseAdapter) cancelable(req *http.Request) *http.Request {
	ctx, cancel := context.WithCancelCause(req.Context())
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancels == nil {
		a.cancels = make(map[*http.Request]context.CancelCauseFunc)
	}
	a.cancels[req] = cancel
	return req.WithContext(ctx)
}

func (a *natwiseAdapter) CancelRequest(req *http.Request) {
	a.mu.Lock()
	cancel := a.cancels[req]
	a.mu.Unlock()
	if cancel != nil {
		cancel(*natwiseCancels.Load())
		return
	}
	a.tuned.CancelRequest(req) // which a test has sent over that one
}

// CloseIdleConnections closes those of the Transport below too: some tests use that
// one directly. What httpx lends no more is closed by another goroutine, and the tests
// look at once whether it is.
func (a *natwiseAdapter) CloseIdleConnections() {
	a.mu.Lock()
	ours := a.ours
	a.mu.Unlock()
	for _, o := range ours {
		o.CloseIdleConnections()
	}
	for range 100 {
		if len(a.IdleConnStrsForTesting()) == 0 {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	a.tuned.CloseIdleConnections()
}

// natwiseSettings are those settings of a Transport that an httpx.Transport cannot
// be told after its first use, in a form that can be compared. Functions are called
// where they stand at that time, if they were there at all.
type natwiseSettings struct {
	tls                              *tls.Config
	http2                            *http.HTTP2Config
	protocols                        http.Protocols
	dials                            bool
	maxConns                         int
	maxIdle                          time.Duration
	tlsHandshake, header, expect     time.Duration
	maxHeader                        int64
	noCompression                    bool
	connectHeader                    uintptr // of the map
	getsConnectHeader, seesConnected bool
}

func natwiseSettingsOf(tr *http.Transport) natwiseSettings {
	return natwiseSettings{
		tls:               tr.TLSClientConfig,
		http2:             tr.HTTP2,
		protocols:         natwiseProtocols(tr),
		dials:             tr.Dial != nil || tr.DialContext != nil,
		maxConns:          tr.MaxConnsPerHost,
		maxIdle:           tr.IdleConnTimeout,
		tlsHandshake:      tr.TLSHandshakeTimeout,
		header:            tr.ResponseHeaderTimeout,
		expect:            tr.ExpectContinueTimeout,
		maxHeader:         tr.MaxResponseHeaderBytes,
		noCompression:     tr.DisableCompression,
		connectHeader:     reflect.ValueOf(tr.ProxyConnectHeader).Pointer(),
		getsConnectHeader: tr.GetProxyConnectHeader != nil,
		seesConnected:     tr.OnProxyConnectResponse != nil,
	}
}

// natwiseProtocols returns the protocols that tr speaks, by the rules that the
// documentation of http.Transport gives for ForceAttemptHTTP2 and TLSNextProto.
func natwiseProtocols(tr *http.Transport) http.Protocols {
	if tr.Protocols != nil {
		return *tr.Protocols
	}
	var p http.Protocols
	p.SetHTTP1(true)
	own := tr.TLSClientConfig != nil || tr.Dial != nil || tr.DialContext != nil || tr.DialTLS != nil || tr.DialTLSContext != nil
	if tr.TLSNextProto != nil {
		p.SetHTTP2(tr.TLSNextProto["h2"] != nil)
	} else {
		p.SetHTTP2(tr.ForceAttemptHTTP2 || !own)
	}
	return p
}

// transport returns an httpx.Transport with the settings of now.
func (a *natwiseAdapter) transport() *httpx.Transport {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := natwiseSettingsOf(a.tuned)
	if n := len(a.ours); n > 0 && now == a.settings {
		return a.ours[n-1].Transport
	}
	a.settings = now
	o := a.build(now)
	a.ours = append(a.ours, o)
	return o.Transport
}

func (a *natwiseAdapter) build(s natwiseSettings) natwiseOurs {
	path := netpath.Unknown()
	path.Exempt = netpath.NoExempt() // the tests' servers are here
	ledger := &dialer.Ledger{Path: path}
	t := &httpx.Transport{
		Dialer:                 &dialer.Dialer{Ledger: ledger},
		TLS:                    s.tls,
		Proxy:                  a.proxy,
		Protocols:              &s.protocols,
		HTTP2:                  s.http2,
		MaxConns:               s.maxConns,
		MaxIdle:                s.maxIdle,
		TLSHandshakeTimeout:    s.tlsHandshake,
		ResponseHeaderTimeout:  s.header,
		ExpectContinueTimeout:  s.expect,
		MaxResponseHeaderBytes: s.maxHeader,
		DisableCompression:     s.noCompression,
		ProxyConnectHeader:     a.tuned.ProxyConnectHeader,
	}
	names := new(natwiseNames)
	if s.dials {
		t.Dialer.Resolver = names
		t.Dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return a.dial(ctx, network, names.of(address))
		}
	}
	if s.getsConnectHeader {
		t.GetProxyConnectHeader = func(ctx context.Context, proxy *url.URL, target string) (http.Header, error) {
			return a.tuned.GetProxyConnectHeader(ctx, proxy, target)
		}
	}
	if s.seesConnected {
		t.OnProxyConnectResponse = func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
			return a.tuned.OnProxyConnectResponse(ctx, proxy, req, resp)
		}
	}
	return natwiseOurs{t, ledger, names}
}

// proxy does not look at the environment where the test's Transport would not.
func (a *natwiseAdapter) proxy(req *http.Request) (*url.URL, error) {
	if a.tuned.Proxy == nil {
		return nil, nil
	}
	return a.tuned.Proxy(req)
}

// dial calls the test's dial function.
func (a *natwiseAdapter) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	defer natwiseDialing()()
	if a.tuned.DialContext != nil {
		c, err = a.tuned.DialContext(ctx, network, address)
	} else {
		c, err = a.tuned.Dial(network, address)
	}
	if err != nil || c == nil {
		return c, err
	}
	if natwiseHollow(c) {
		c = natwiseFilled{c}
	}
	if natwiseSevers.Load() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.dialed = append(a.dialed, c)
	}
	return c, nil
}

// natwiseHollow reports whether a test's connection has no more than Read, Write and
// Close, and a nil net.Conn for the rest.
func natwiseHollow(c net.Conn) (hollow bool) {
	defer func() { hollow = recover() != nil }()
	c.LocalAddr()
	return false
}

// A natwiseFilled is such a connection with the rest: a Dialer takes what a net.Conn
// promises.
type natwiseFilled struct{ net.Conn }

func (natwiseFilled) LocalAddr() net.Addr              { return new(net.TCPAddr) }
func (natwiseFilled) RemoteAddr() net.Addr             { return new(net.TCPAddr) }
func (natwiseFilled) SetDeadline(time.Time) error      { return nil }
func (natwiseFilled) SetReadDeadline(time.Time) error  { return nil }
func (natwiseFilled) SetWriteDeadline(time.Time) error { return nil }
func (c natwiseFilled) NetConn() net.Conn              { return c.Conn }

// IdleConnKeysForTesting has the keys of connections that are idle, as an
// http.Transport has them for cleartext and no proxy: by name and port.
func (a *natwiseAdapter) IdleConnKeysForTesting() []string {
	keys := []string{}
	a.idle(func(address string, _ dialer.Account) { keys = append(keys, "|http|"+address) })
	slices.Sort(keys)
	return keys
}

func (a *natwiseAdapter) IdleConnKeyCountForTesting() int { return len(a.IdleConnKeysForTesting()) }

// IdleConnStrsForTesting has a string for each connection that is idle, another one
// if connections have been opened since.
func (a *natwiseAdapter) IdleConnStrsForTesting() (conns []string) {
	a.idle(func(address string, b dialer.Account) {
		conns = append(conns, slices.Repeat([]string{fmt.Sprintf("%s, opened %d", address, b.Opened)}, b.Idle)...)
	})
	return conns
}

func (a *natwiseAdapter) IdleConnStrsForTesting_h2() []string { return a.IdleConnStrsForTesting() }

// idle tells of the accounts that have idle connections.
func (a *natwiseAdapter) idle(tell func(address string, b dialer.Account)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.ours {
		for _, b := range o.ledger.Accounts() {
			if b.Idle > 0 {
				tell(o.names.of(b.Key.Dest.String()), b)
			}
		}
	}
}

// natwiseNames gives every name an address, and finds the name again. A Dialer dials
// addresses, and a test's dial function wants to see what was in the URL.
type natwiseNames struct {
	mu        sync.Mutex // guards the fields below
	names     map[netip.Addr]string
	addresses map[string]netip.Addr
}

func (b *natwiseNames) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.names == nil {
		b.names, b.addresses = make(map[netip.Addr]string), make(map[string]netip.Addr)
	}
	addr, ok := b.addresses[host]
	if !ok {
		n := len(b.addresses)
		addr = netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) // RFC 2544: for tests
		b.addresses[host], b.names[addr] = addr, host
	}
	return []netip.Addr{addr}, nil
}

// of puts the name in the place of its address. Other addresses stay.
func (b *natwiseNames) of(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if name, ok := b.names[at.Addr()]; ok {
		_, port, _ := net.SplitHostPort(address)
		return net.JoinHostPort(name, port)
	}
	return address
}
