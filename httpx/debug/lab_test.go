package debug_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// A lab is a network in virtual time with a NAT in front of it, a ledger that knows the NAT's
// path, and a page that shows the ledger.
type lab struct {
	*testing.T
	net    memnet.Network
	nat    *fauxnat.NAT
	ledger *dialer.Ledger
	dialer *dialer.Dialer
	page   *debug.Page
	names  names
	fails  map[string]error // of the kernel, by address; set before the first dial there
}

// names is a resolver.
type names map[string]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	a, err := netip.ParseAddr(n[host])
	if err != nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{a}, nil
}

// azure is an App Service's NAT with n ports.
func azure(n int) netpath.Profile {
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
	return path
}

func inLab(t *testing.T, path netpath.Profile, f func(lab *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{T: t, names: make(names), fails: make(map[string]error)}
		l.net.Latency = 8 * time.Millisecond
		l.nat = &fauxnat.NAT{Path: path, Dial: l.net.DialContext}
		l.ledger = &dialer.Ledger{Path: path, Ramp: -1}
		l.dialer = &dialer.Dialer{Ledger: l.ledger, Dial: l.connect, Resolver: l.names}
		l.page = &debug.Page{Ledger: l.ledger}
		t.Cleanup(func() { time.Sleep(20 * time.Minute) }) // until the page looks no more
		f(l)
	})
}

func (l *lab) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if err := l.fails[address]; err != nil {
		return nil, err
	}
	return l.nat.DialContext(ctx, network, address)
}

// raw listens at an address and reads what comes, until the client closes.
func (l *lab) raw(address string) {
	l.Helper()
	ln, err := l.net.Listen(address)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.Cleanup(func() { c.Close() })
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
}

// web is an HTTP server at an address, under a name; an answer takes so long.
func (l *lab) web(name, address string, takes func() time.Duration) {
	l.Helper()
	l.names[name] = netip.MustParseAddrPort(address).Addr().String()
	ln, err := l.net.Listen(address)
	if err != nil {
		l.Fatal(err)
	}
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(takes()):
			case <-r.Context().Done():
			}
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go s.Serve(ln)
	l.Cleanup(func() { s.Close() })
}

// client is closed with the lab.
func (l *lab) client() *http.Client {
	tr := &httpx.Transport{Dialer: l.dialer, Proxy: httpx.NoProxy}
	l.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		tr.Close(ctx)
	})
	return &http.Client{Transport: tr}
}

// dial opens a connection that is nobody's but the test's.
func (l *lab) dial(address string) *dialer.Conn {
	l.Helper()
	c, err := l.dialer.DialContext(l.Context(), "tcp", address)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c.(*dialer.Conn)
}

// fail dials in vain.
func (l *lab) fail(address string) {
	l.Helper()
	if c, err := l.dialer.DialContext(l.Context(), "tcp", address); err == nil {
		c.Close()
		l.Errorf("%s could be dialed", address)
	}
}

// get asks the page as a browser on the same machine does.
func (l *lab) get(query string) *httptest.ResponseRecorder {
	l.Helper()
	return get(l.T, l.page, "/debug/natwise/"+query)
}

func get(t testing.TB, page http.Handler, url string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	page.ServeHTTP(w, request(http.MethodGet, url))
	return w
}

// request is one of a browser on this machine.
func request(method, url string) *http.Request {
	r := httptest.NewRequest(method, url, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "localhost:8080"
	return r
}
