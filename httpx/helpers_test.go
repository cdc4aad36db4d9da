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
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A protocol is a way to speak HTTP.
type protocol struct {
	name     string
	tls, two bool // secured; HTTP/2
}

var (
	http1    = protocol{name: "HTTP/1.1"}
	http1TLS = protocol{name: "HTTP/1.1 over TLS", tls: true}
	http2TLS = protocol{name: "HTTP/2", tls: true, two: true}
	h2c      = protocol{name: "HTTP/2 without TLS", two: true}

	protocols = []protocol{http1, http1TLS, http2TLS, h2c}
)

// overEach runs f as a subtest for each protocol.
func overEach(t *testing.T, over []protocol, f func(t *testing.T, p protocol)) {
	for _, p := range over {
		t.Run(p.name, func(t *testing.T) { f(t, p) })
	}
}

// A site is an HTTP server on loopback, and a Transport to it whose connections are
// counted. When its test ends everything is closed, and nothing may be left.
type site struct {
	*testing.T
	server    *httptest.Server
	ledger    *dialer.Ledger
	dialer    *dialer.Dialer
	transport *httpx.Transport // its fields may be set before the first request
	client    *http.Client

	last   atomic.Pointer[brittle] // connection that was dialed
	dials  atomic.Int64            // that connected
	served atomic.Int64
	ended  chan keepalive.Ending
}

// soon is how long a test waits for what should happen at once.
const soon = 5 * time.Second

func newSite(t *testing.T, p protocol, handler http.HandlerFunc) *site {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	s := &site{T: t, ended: make(chan keepalive.Ending, 4096)}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.served.Add(1)
		handler(w, r)
	}))
	s.server.Config.ErrorLog = unheard
	s.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, serverConn{}, c)
	}
	s.ledger = &dialer.Ledger{Path: booked(), Ramp: -1}
	s.dialer = &dialer.Dialer{Ledger: s.ledger, Resolver: loopback{}, Observe: s.observe, Dial: s.dial}
	s.transport = &httpx.Transport{Dialer: s.dialer, Proxy: httpx.NoProxy}
	s.client = &http.Client{Transport: s.transport}
	switch {
	case p.tls:
		s.server.EnableHTTP2 = p.two
		s.server.StartTLS()
		s.transport.TLS = trusts(s.server)
	case p.two:
		s.server.Config.Protocols = only2()
		s.transport.Protocols = only2()
		s.server.Start()
	default:
		s.server.Start()
	}
	t.Cleanup(func() {
		s.shut(s.transport)
		s.server.CloseClientConnections() // of a test that has failed; else there is none
		s.server.Close()
		s.nothingLeft()
		if stacks := leak.Beyond(goroutines); stacks != "" {
			t.Errorf("goroutines left behind:\n%s", stacks)
		}
	})
	return s
}

// serverConn is the key of the connection in the context of a request that is served.
type serverConn struct{}

// sever ends the connection on which r came, without an answer.
func sever(r *http.Request, how keepalive.How) {
	c := r.Context().Value(serverConn{}).(net.Conn)
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	if how == keepalive.RSTByPeer {
		c.(*net.TCPConn).SetLinger(0)
	}
	c.Close()
}

// booked is a path that counts loopback too, and holds no port for longer than it is
// used: it is the tests in virtual time that wait for ports.
func booked() netpath.Profile {
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	path.Hold = netpath.Hold{FIN: netpath.None, RST: netpath.None, SYN: netpath.None, Idle: netpath.None}
	return path
}

func only2() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &p
}

// trusts is for clients of a test's server.
func trusts(s *httptest.Server) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{RootCAs: roots}
}

// loopback has every name.
type loopback struct{}

func (loopback) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

func (s *site) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	b := &brittle{TCPConn: c.(*net.TCPConn)}
	s.last.Store(b)
	return b, nil
}

func (s *site) observe(e dialer.Event) {
	switch e.Kind {
	case dialer.Opened:
		s.dials.Add(1)
	case dialer.Ended:
		s.ended <- e.Ending
	}
}

// nextEnd waits for a connection to end.
func (s *site) nextEnd() keepalive.Ending {
	s.Helper()
	return within(s.T, s.ended)
}

// within receives from c before too long.
func within[V any](t testing.TB, c <-chan V) (v V) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(soon):
		t.Errorf("nothing came within %v", soon)
	}
	return v
}

// shut closes a Transport that nobody uses.
func (s *site) shut(t *httpx.Transport) {
	s.Helper()
	shut(s.T, t)
}

func shut(t testing.TB, tr *httpx.Transport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// nothingLeft fails the test if a connection is still in use or wanted. One that the
// server has ended may be on its way out.
func (s *site) nothingLeft() {
	s.Helper()
	var left string
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		left = ""
		for _, a := range s.ledger.Accounts() {
			if a.Taken() > 0 || a.Waiting > 0 {
				left = a.String()
			}
		}
		if left == "" {
			return
		}
	}
	s.Errorf("left behind: %s", left)
}

// dialed fails the test unless so many connections were made so far.
func (s *site) dialed(want int64) {
	s.Helper()
	if got := s.dials.Load(); got != want {
		s.Errorf("%d connections, want %d", got, want)
	}
}

// named is the server's URL with another name for it.
func (s *site) named(host string) string {
	return strings.Replace(s.server.URL, "127.0.0.1", host, 1)
}

// get sends a GET and returns the answer, which must be a good one, with its body.
func (s *site) get(url string) (*http.Response, string) {
	s.Helper()
	return s.do(s.client, s.request("GET", url, nil))
}

func (s *site) request(method, url string, body io.Reader) *http.Request {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, url, body)
	require.NoError(s.T, err)
	return req
}

func (s *site) do(c *http.Client, req *http.Request) (*http.Response, string) {
	s.Helper()
	resp, err := c.Do(req)
	require.NoError(s.T, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(s.T, err)
	return resp, string(body)
}

// A tape is a body that tells when it was closed, and cannot be had again.
type tape struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
	reads  atomic.Int64
}

func newTape(r io.Reader) *tape { return &tape{Reader: r, closed: make(chan struct{})} }

func (b *tape) Read(p []byte) (int, error) {
	b.reads.Add(1)
	return b.Reader.Read(p)
}

func (b *tape) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// A raw server is one whose answers are written by hand.
type raw struct {
	net.Listener
	conns sync.WaitGroup
	count atomic.Int64
}

// newRaw serves every connection by serve, which is told how many came before. When it
// returns the connection is closed.
func newRaw(t testing.TB, l net.Listener, serve func(c net.Conn, n int64)) *raw {
	r := &raw{Listener: l}
	r.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := r.count.Add(1) - 1
			r.conns.Go(func() {
				defer c.Close()
				serve(c, n)
			})
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *raw) stop() {
	r.Listener.Close()
	r.conns.Wait()
}

func localListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// saysHow returns an error if err does not say that nothing was sent, or says so though
// something was.
func saysHow(err error, safe bool) error {
	if got := dialer.SafeToRetry(err); got != safe {
		return fmt.Errorf("safe to retry: %t, want %t; the error is %v", got, safe, err)
	}
	return nil
}

var errTest = errors.New("the test's own cause")

// unheard is for servers whose clients misbehave by purpose.
var unheard = log.New(io.Discard, "", 0)

// A resolverFunc is told of look-ups; every name is on loopback.
type resolverFunc func(host string)

func (f resolverFunc) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	f(host)
	return loopback{}.LookupNetIP(ctx, network, host)
}

// transport returns one for the lab's server, which the test closes.
func (l *lab) transport() *httpx.Transport {
	return &httpx.Transport{Dialer: l.dialer(), Proxy: httpx.NoProxy}
}

// A peer is the far end of an HTTP/2 connection without TLS, whose frames are written
// by hand.
type peer struct {
	net.Conn
	n int64 // connections to the same server before

	mu     sync.Mutex // guards the fields below
	frames *http2.Framer
	packed bytes.Buffer
	hpack  *hpack.Encoder
}

// newPeers serves HTTP/2 by frames: asked is told of each request when its header has
// come, one after the other on a connection.
func newPeers(t testing.TB, l net.Listener, settings []http2.Setting, asked func(p *peer, stream uint32)) *raw {
	return newRaw(t, l, func(c net.Conn, n int64) {
		p := &peer{Conn: c, n: n, frames: http2.NewFramer(c, c)}
		p.hpack = hpack.NewEncoder(&p.packed)
		p.serve(settings, asked)
	})
}

func (p *peer) serve(settings []http2.Setting, asked func(p *peer, stream uint32)) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(p.Conn, preface); err != nil {
		return
	}
	p.write(func(f *http2.Framer) error { return f.WriteSettings(settings...) })
	for {
		frame, err := p.frames.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				p.write((*http2.Framer).WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				p.write(func(w *http2.Framer) error { return w.WritePing(true, f.Data) })
			}
		case *http2.HeadersFrame:
			asked(p, f.StreamID)
		}
	}
}

func (p *peer) write(frame func(*http2.Framer) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	frame(p.frames)
}

// answer says 200 and no more.
func (p *peer) answer(stream uint32) {
	p.write(func(f *http2.Framer) error {
		p.packed.Reset()
		p.hpack.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.packed.Bytes(), EndHeaders: true, EndStream: true})
	})
}

func (p *peer) refuse(stream uint32) {
	p.write(func(f *http2.Framer) error { return f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) })
}

// goAway says that last was the last stream.
func (p *peer) goAway(last uint32) {
	p.write(func(f *http2.Framer) error { return f.WriteGoAway(last, http2.ErrCodeNo, nil) })
}

// speaking starts the lab's server, whichever it speaks, and returns a Transport for it.
func (l *lab) speaking(p protocol) *httpx.Transport {
	tr := l.transport()
	if p.two {
		l.server.Config.Protocols = only2()
		tr.Protocols = only2()
	}
	l.server.Start()
	return tr
}
