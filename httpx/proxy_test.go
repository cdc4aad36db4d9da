package httpx_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A relay is an HTTP proxy.
type relay struct {
	*httptest.Server
	tunnels atomic.Int64 // by CONNECT
	plain   atomic.Int64 // requests for http origins
	refuse  atomic.Bool

	mu   sync.Mutex  // guards last
	last http.Header // of the last request
}

func newRelay(t *testing.T, secured bool) *relay {
	t.Helper()
	r := new(relay)
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ErrorLog = unheard
	if r.Start(); secured {
		r.Server.Close()
		r.Server = httptest.NewUnstartedServer(r)
		r.StartTLS()
	}
	t.Cleanup(r.Close)
	return r
}

// toLoopback is the address that stands for any name.
func toLoopback(hostPort string) string {
	_, port, _ := net.SplitHostPort(hostPort)
	return net.JoinHostPort("127.0.0.1", port)
}

func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.last = req.Header.Clone()
	r.mu.Unlock()
	switch {
	case r.refuse.Load():
		w.WriteHeader(http.StatusProxyAuthRequired)
	case req.Method == http.MethodConnect:
		r.tunnels.Add(1)
		r.tunnel(w, req)
	default:
		r.plain.Add(1)
		to := &url.URL{Scheme: "http", Host: toLoopback(req.Host)}
		reverse := httputil.NewSingleHostReverseProxy(to)
		reverse.Transport = &http.Transport{DisableKeepAlives: true}
		reverse.ServeHTTP(w, req)
	}
}

func (r *relay) tunnel(w http.ResponseWriter, req *http.Request) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	far, err := net.Dial("tcp", toLoopback(req.Host))
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	join(c, rw, far)
}

// join passes on what comes from either side until one ends.
func join(near io.WriteCloser, from io.Reader, far net.Conn) {
	var both sync.WaitGroup
	pass := func(to io.WriteCloser, from io.Reader) {
		io.Copy(to, from)
		to.Close()
	}
	both.Go(func() { pass(far, from) })
	both.Go(func() { pass(near, far) })
	both.Wait()
}

// field returns a field of the last request.
func (r *relay) field(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Get(name)
}

// by has the site's Transport go through a proxy.
func (s *site) by(proxy string) *url.URL {
	s.Helper()
	u, err := url.Parse(proxy)
	require.NoError(s.T, err)
	s.transport.Proxy = http.ProxyURL(u)
	return u
}

// alsoTrusts has the site's Transport believe in the certificate of the proxy.
func (s *site) alsoTrusts(r *relay) {
	if r.Certificate() == nil {
		return
	}
	if s.transport.TLS == nil {
		s.transport.TLS = trusts(r.Server)
		return
	}
	s.transport.TLS.RootCAs.AddCert(r.Certificate())
}

func TestRequestsGoThroughAProxy(t *testing.T) {
	for _, secured := range []bool{false, true} {
		t.Run(fmt.Sprintf("secured %t", secured), func(t *testing.T) {
			overEach(t, []protocol{http1, http1TLS, http2TLS}, func(t *testing.T, p protocol) {
				r := newRelay(t, secured)
				s := newSite(t, p, echo)
				s.alsoTrusts(r)
				s.by(strings.Replace(r.URL, "//", "//me:pass%20word@", 1))
				s.transport.ProxyConnectHeader = http.Header{"X-Tunnel": {"yes"}}
				var d diary
				for range 2 {
					req := s.request("POST", s.named("example.com"), strings.NewReader("hello"))
					resp, body := s.do(s.client, req.WithContext(d.trace(t.Context())))
					if body != "hello" || (resp.ProtoMajor == 2) != p.two {
						t.Errorf("got %q by %s", body, resp.Proto)
					}
				}
				s.dialed(1)
				tunnels, plain := int64(1), int64(0)
				if !p.tls {
					tunnels, plain = 0, 2
				}
				if r.tunnels.Load() != tunnels || r.plain.Load() != plain {
					t.Errorf("the proxy made %d tunnels and passed on %d requests", r.tunnels.Load(), r.plain.Load())
				}
				if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:pass word")); r.field("Proxy-Authorization") != want {
					t.Errorf("the proxy was told %q", r.field("Proxy-Authorization"))
				}
				if told := r.field("X-Tunnel") == "yes"; told != p.tls {
					t.Errorf("the header for tunnels came: %t", told)
				}
				if got, want := d.read()[0], "GetConn "+r.Listener.Addr().String(); got != want {
					t.Errorf("as net/http has it: got %q, want %q", got, want)
				}
			})
		})
	}
}

func TestOneConnectionToAProxyServesAllPlainOrigins(t *testing.T) {
	r := newRelay(t, false)
	s := newSite(t, http1, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	s.by(r.URL)
	for i := range 5 {
		host := fmt.Sprintf("origin%d.example", i)
		if _, body := s.get(s.named(host)); !strings.HasPrefix(body, host) {
			t.Errorf("%s answered as %q", host, body)
		}
	}
	s.dialed(1)
}

func TestATunnelServesOneOrigin(t *testing.T) {
	r := newRelay(t, false)
	s := newSite(t, http1TLS, echo)
	s.transport.TLS = unchecked(s.transport.TLS)
	s.by(r.URL)
	for _, host := range []string{"a.example", "b.example", "a.example"} {
		s.get(s.named(host))
	}
	s.dialed(2)
}

func TestWhatAProxyAnswersToCONNECTCanBeSeen(t *testing.T) {
	r := newRelay(t, false)
	s := newSite(t, http1TLS, echo)
	proxy := s.by(r.URL)
	origin := s.server.Listener.Addr().String()
	s.transport.GetProxyConnectHeader = func(_ context.Context, u *url.URL, target string) (http.Header, error) {
		if u.String() != proxy.String() || target != origin {
			t.Errorf("a header for %s through %v", target, u)
		}
		return http.Header{"X-Drawn": {"now"}}, nil
	}
	var status int
	s.transport.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, req *http.Request, resp *http.Response) error {
		status = resp.StatusCode
		return nil
	}
	s.get(s.server.URL)
	if r.field("X-Drawn") != "now" || status != http.StatusOK {
		t.Errorf("the proxy saw %q and answered %d", r.field("X-Drawn"), status)
	}
}

func TestAProxyThatRefusesLeavesNothingBehind(t *testing.T) {
	for _, secured := range []bool{false, true} {
		r := newRelay(t, secured)
		r.refuse.Store(true)
		s := newSite(t, http1TLS, echo)
		s.alsoTrusts(r)
		s.by(r.URL)
		_, err := s.transport.RoundTrip(s.request("POST", s.server.URL, strings.NewReader("hello")))
		if err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required") {
			t.Errorf("got %v", err)
		}
		if err := saysHow(err, true); err != nil {
			t.Error(err)
		}
		s.nextEnd()
		if n := s.served.Load(); n != 0 {
			t.Errorf("%d requests were served", n)
		}
	}
}

func TestAProxyThatCannotBeChosenFailsTheRequest(t *testing.T) {
	s := newSite(t, http1, echo)
	s.transport.Proxy = func(*http.Request) (*url.URL, error) { return nil, errTest }
	body := newTape(strings.NewReader("hello"))
	_, err := s.transport.RoundTrip(s.request("POST", s.server.URL, body))
	if !errors.Is(err, errTest) {
		t.Errorf("got %v", err)
	}
	if err := saysHow(err, true); err != nil {
		t.Error(err)
	}
	within(t, body.closed)
}

// newSocks is a SOCKS5 server (RFC 1928) that wants a name and a password (RFC 1929).
func newSocks(t *testing.T) *raw {
	return newRaw(t, localListener(t), func(c net.Conn, _ int64) {
		if err := serveSocks(c); err != nil && !errors.Is(err, errWrongPassword) {
			t.Errorf("SOCKS: %v", err)
		}
	})
}

var errWrongPassword = errors.New("the password is wrong")

func serveSocks(c net.Conn) error {
	r := bufio.NewReader(c)
	field := func(n int) []byte {
		b := make([]byte, n)
		io.ReadFull(r, b)
		return b
	}
	counted := func() []byte { return field(int(field(1)[0])) }

	if version, methods := field(1)[0], counted(); version != 5 || !bytes.Contains(methods, []byte{2}) {
		return fmt.Errorf("version %d, methods %v", version, methods)
	}
	c.Write([]byte{5, 2})
	field(1)
	if user, password := counted(), counted(); string(user) != "me" || string(password) != "pass word" {
		c.Write([]byte{1, 1})
		return errWrongPassword
	}
	c.Write([]byte{1, 0})
	if request := field(4); !bytes.Equal(request, []byte{5, 1, 0, 3}) {
		return fmt.Errorf("asked for %v, want a connection to a name", request)
	}
	name, port := counted(), binary.BigEndian.Uint16(field(2))
	far, err := net.Dial("tcp", toLoopback(fmt.Sprintf("%s:%d", name, port)))
	if err != nil {
		return err
	}
	c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	join(c, r, far)
	return nil
}

func TestRequestsGoThroughSOCKS(t *testing.T) {
	for _, scheme := range []string{"socks5", "socks5h"} {
		t.Run(scheme, func(t *testing.T) {
			overEach(t, protocols, func(t *testing.T, p protocol) {
				s := newSite(t, p, echo)
				proxy := newSocks(t)
				s.by(scheme + "://me:pass%20word@" + proxy.Addr().String())
				for range 2 {
					resp, body := s.do(s.client, s.request("POST", s.named("example.com"), strings.NewReader("hello")))
					if body != "hello" || (resp.ProtoMajor == 2) != p.two {
						t.Errorf("got %q by %s", body, resp.Proto)
					}
				}
				s.dialed(1)
				s.shut(s.transport) // before the proxy stops
			})
		})
	}
}

func TestSOCKSThatRefusesLeavesNothingBehind(t *testing.T) {
	s := newSite(t, http1, echo)
	proxy := newSocks(t)
	s.by("socks5://me:wrong@" + proxy.Addr().String())
	_, err := s.transport.RoundTrip(s.request("GET", s.server.URL, nil))
	if err := saysHow(err, true); err != nil {
		t.Error(err)
	}
	s.nextEnd()
}

// The environment is read once in a process, so the test is the parent of one.
func TestTheEnvironmentChoosesTheProxyPortByPort(t *testing.T) {
	if os.Getenv("HTTPX_TEST_DIRECT") != "" {
		inEnvironment(t)
		return
	}
	s := newSite(t, http1, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "directly") })
	r := newRelay(t, false)
	r.refuse.Store(true) // who comes here is told so
	_, port, _ := net.SplitHostPort(s.server.Listener.Addr().String())
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	child.Env = append(os.Environ(), "HTTPX_TEST_DIRECT="+port,
		"HTTP_PROXY="+r.URL, "http_proxy=", "NO_PROXY=origin.example:"+port, "no_proxy=", "REQUEST_METHOD=")
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v:\n%s", err, out)
	}
	if n := s.served.Load(); n != 1 {
		t.Errorf("%d requests were served directly, want 1", n)
	}
}

func inEnvironment(t *testing.T) {
	s := newSite(t, http1, echo)
	s.transport.Proxy = nil
	port := os.Getenv("HTTPX_TEST_DIRECT")
	if _, body := s.get("http://origin.example:" + port); body != "directly" {
		t.Errorf("port %s: got %q", port, body)
	}
	for _, other := range []string{"http://origin.example:1", "http://other.example:" + port} {
		resp, err := s.client.Get(other)
		require.NoError(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("%s: %s, want the proxy's refusal", other, resp.Status)
		}
	}
	s.dialed(2)
}

func TestAnUpgradeGoesThroughAProxy(t *testing.T) {
	overEach(t, []protocol{http1TLS, http2TLS}, func(t *testing.T, p protocol) {
		r := newRelay(t, false)
		s := newSite(t, p, switches)
		s.by(r.URL)
		req := s.request("GET", s.server.URL, nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "lines")
		resp, err := s.client.Do(req)
		require.NoError(t, err)
		conn, ok := resp.Body.(io.ReadWriteCloser)
		require.True(t, ok, resp.Status)
		fmt.Fprintln(conn, "hello")
		if got, err := bufio.NewReader(conn).ReadString('\n'); got != "hello\n" {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
	})
}
