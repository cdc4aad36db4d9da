package httpx_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
)

// everyNameAt has one address for every name.
type everyNameAt netip.Addr

func (a everyNameAt) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.Addr(a)}, nil
}

const vip = "10.0.0.100" // of a balancer that has this host for a backend

// tellWho answers with what the client takes the server for.
func tellWho(w http.ResponseWriter, r *http.Request) {
	name := ""
	if r.TLS != nil {
		name = r.TLS.ServerName
	}
	fmt.Fprintf(w, "%s, secured as %q", r.Host, name)
}

func TestAHairpinIsDialedHereUnderItsName(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, tellWho)
		here := netip.MustParseAddrPort(s.server.Listener.Addr().String())
		s.dialer.Resolver = everyNameAt(netip.MustParseAddr(vip))
		s.dialer.Hairpin = map[netip.AddrPort]netip.AddrPort{
			netip.MustParseAddrPort(vip + ":80"): here, netip.MustParseAddrPort(vip + ":443"): here, // on another port
		}
		to, secured := "http://example.com/", ""
		if p.tls {
			to, secured = "https://example.com/", "example.com"
		}
		for range 2 {
			resp, body := s.get(to)
			if want := fmt.Sprintf("example.com, secured as %q", secured); body != want || (resp.ProtoMajor == 2) != p.two {
				t.Errorf("got %q by %s, want %q", body, resp.Proto, want)
			}
		}
		s.dialed(1)
		if a := s.ledger.Accounts(); len(a) != 1 || a[0].Key.Dest != here {
			t.Errorf("booked is %v", a)
		}
		if p.tls {
			_, err := s.client.Get("https://another.example/") // for which the server has no certificate
			if err == nil || !strings.Contains(err.Error(), "certificate is valid for") {
				t.Errorf("got %v", err)
			}
		}
	})
}

// swept opens a connection and leaves it alone for more sweeps than it takes to end one that
// leads elsewhere.
func (l *lab) swept(tr *httpx.Transport) (live int) {
	l.Helper()
	tr.MaxIdle = time.Hour
	require.NoError(l.T, l.post(&http.Client{Transport: tr}, "http://a.example"))
	time.Sleep(6 * time.Minute)
	synctest.Wait()
	return l.nat.Stats().Live
}

func TestConnectionsThatAreDialedHereStayWhileTheBalancerIsInTheRecord(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		r := &record{addrs: []string{vip}}
		tr := lab.speaking(http1)
		tr.Dialer.Resolver = r
		tr.Dialer.Hairpin = map[netip.AddrPort]netip.AddrPort{netip.MustParseAddrPort(vip + ":80"): netip.MustParseAddrPort(address)}
		defer shut(t, tr)
		if n := lab.swept(tr); n != 1 {
			t.Errorf("%d connections have stayed", n)
		}
		r.set(nil, "10.0.0.101") // another one, for which nothing stands
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if n := lab.nat.Stats().Live; n != 0 {
			t.Errorf("%d connections have stayed", n)
		}
	})
}

func TestConnectionsThroughTheDialersProxyStayWhereverTheNameLeads(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		const at = "20.1.2.9:3128"
		ln, err := lab.net.Listen(at)
		require.NoError(t, err)
		proxy := newRaw(t, ln, func(c net.Conn, _ int64) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			far, err := lab.net.DialContext(context.Background(), "tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			join(c, r, far)
		})
		defer proxy.stop()
		tr := lab.speaking(http1)
		tr.Dialer.Resolver = &record{addrs: []string{"20.9.9.9"}} // where no connection of ours leads
		tr.Dialer.Proxy = func(string, string) (*url.URL, error) { return &url.URL{Scheme: "http", Host: at}, nil }
		defer shut(t, tr)
		if n := lab.swept(tr); n != 1 {
			t.Errorf("%d connections have stayed", n)
		}
	})
}

// dialsBy has the site's Dialer go through a proxy, and look no names up.
func (s *site) dialsBy(proxy string) {
	s.Helper()
	u, err := url.Parse(proxy)
	require.NoError(s.T, err)
	s.dialer.Proxy = func(string, string) (*url.URL, error) { return u, nil }
	s.dialer.Resolver = resolverFunc(func(host string) { s.Errorf("%q was looked up", host) })
}

func TestRequestsGoThroughTheDialersProxy(t *testing.T) {
	for _, scheme := range []string{"http", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			overEach(t, protocols, func(t *testing.T, p protocol) {
				s := newSite(t, p, tellWho)
				var r *relay
				if scheme == "http" {
					r = newRelay(t, false)
					s.dialsBy("http://me:pass%20word@" + r.Listener.Addr().String())
				} else {
					s.dialsBy("socks5://me:pass%20word@" + newSocks(t).Addr().String())
				}
				_, port, _ := net.SplitHostPort(s.server.Listener.Addr().String())
				secured := ""
				if p.tls {
					secured = "example.com"
				}
				for range 2 {
					resp, body := s.get(s.named("example.com"))
					if want := fmt.Sprintf("example.com:%s, secured as %q", port, secured); body != want || (resp.ProtoMajor == 2) != p.two {
						t.Errorf("got %q by %s, want %q", body, resp.Proto, want)
					}
				}
				s.dialed(1)
				if r != nil && (r.tunnels.Load() != 1 || r.plain.Load() != 0 || r.field("Proxy-Authorization") != "Basic bWU6cGFzcyB3b3Jk") {
					t.Errorf("%d tunnels, %d requests passed on, asked by %q", r.tunnels.Load(), r.plain.Load(), r.field("Proxy-Authorization"))
				}
				if p.tls {
					_, err := s.client.Get(s.named("another.example"))
					if err == nil || !strings.Contains(err.Error(), "certificate is valid for") {
						t.Errorf("got %v", err)
					}
				}
				s.shut(s.transport) // before the proxy stops
			})
		})
	}
}

func TestTheTransportsProxyIsDialedThroughTheDialers(t *testing.T) {
	overEach(t, []protocol{http1, http1TLS, http2TLS}, func(t *testing.T, p protocol) {
		s := newSite(t, p, tellWho)
		near, far := newRelay(t, false), newRelay(t, false)
		s.by(far.URL)
		s.dialsBy(near.URL)
		if resp, body := s.get(s.named("example.com")); !strings.HasPrefix(body, "example.com") || (resp.ProtoMajor == 2) != p.two {
			t.Errorf("got %q by %s", body, resp.Proto)
		}
		s.dialed(1)
		if near.tunnels.Load() != 1 || far.tunnels.Load()+far.plain.Load() != 1 || near.plain.Load() != 0 {
			t.Errorf("the near one made %d tunnels, the far one %d and passed on %d requests", near.tunnels.Load(), far.tunnels.Load(), far.plain.Load())
		}
		s.shut(s.transport)
	})
}

func TestWhatTheDialersProxyRefusesWasNotSent(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		r := newRelay(t, false)
		r.refuse.Store(true)
		s := newSite(t, p, echo)
		s.dialsBy("http://me:hush@" + r.Listener.Addr().String())
		_, err := s.transport.RoundTrip(s.request("POST", s.named("example.com"), strings.NewReader("hello")))
		if err == nil || !strings.Contains(err.Error(), "proxy "+r.Listener.Addr().String()+": 407 Proxy Authentication Required") || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v", err)
		}
		if err := saysHow(err, true); err != nil {
			t.Error(err)
		}
		var d *dialer.DialError
		if !errors.As(err, &d) || d.Verdict != dialer.Unknown {
			t.Errorf("got %#v", err)
		}
		if n := s.served.Load(); n != 0 {
			t.Errorf("%d requests were served", n)
		}
	})
}
