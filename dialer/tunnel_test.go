package dialer_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A wish is what a proxy was asked for.
type wish struct{ address, user, password string }

// A dialect is a way to ask a proxy.
type dialect struct {
	scheme string
	hear   func(c net.Conn, known bool) (wish, error) // known: it wants a user
	yes    string
}

var (
	overHTTP  = dialect{"http", hearCONNECT, "HTTP/1.1 200 Connection established\r\n\r\n"}
	overSOCKS = dialect{"socks5", hearSOCKS, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"}

	dialects = []dialect{overHTTP, overSOCKS, {"socks5h", overSOCKS.hear, overSOCKS.yes}}
)

func hearCONNECT(c net.Conn, _ bool) (w wish, err error) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return w, err
	}
	if r.Method != http.MethodConnect || r.Host != r.RequestURI {
		return w, fmt.Errorf("asked to %s %s of %s", r.Method, r.RequestURI, r.Host)
	}
	if basic := r.Header.Get("Proxy-Authorization"); basic != "" {
		r.Header.Set("Authorization", basic)
		w.user, w.password, _ = r.BasicAuth()
	}
	w.address = r.Host
	return w, nil
}

// hearSOCKS is the server's part of RFC 1928 and RFC 1929, up to its answer.
func hearSOCKS(c net.Conn, known bool) (w wish, err error) {
	field := func(n int) []byte {
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		return b
	}
	counted := func() []byte { return field(int(field(1)[0])) }

	method := byte(0)
	if known {
		method = 2
	}
	if version, methods := field(1)[0], counted(); version != 5 || !bytes.Contains(methods, []byte{method}) {
		return w, fmt.Errorf("version %d, methods %v: %w", version, methods, err)
	}
	c.Write([]byte{5, method})
	if known {
		field(1)
		w.user, w.password = string(counted()), string(counted())
		c.Write([]byte{1, 0})
	}
	var host string
	switch request := field(4); request[3] {
	case 1:
		host = netip.AddrFrom4([4]byte(field(4))).String()
	case 3:
		host = string(counted())
	case 4:
		host = netip.AddrFrom16([16]byte(field(16))).String()
	}
	w.address = net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(field(2))))
	return w, err
}

// newProxy serves connections on loopback, each of which is closed when serve returns. The
// test does not end before.
func newProxy(t *testing.T, serve func(c net.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	return ln.Addr().String()
}

// counting is a ledger that counts flows to loopback too.
func counting() *dialer.Ledger {
	path := azure(4)
	path.Exempt = netpath.NoExempt()
	return &dialer.Ledger{Path: path, Ramp: -1}
}

// by is what has all dials go by one proxy.
func by(scheme, address string, user *url.Userinfo) func(string, string) (*url.URL, error) {
	return func(string, string) (*url.URL, error) {
		return &url.URL{Scheme: scheme, Host: address, User: user}, nil
	}
}

// nobody fails the test if it is asked for a name.
func nobody(t *testing.T) resolver {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		t.Errorf("%q was looked up", host)
		return nil, errBroken
	}
}

func TestATunnelLeadsWhereItWasAskedFor(t *testing.T) {
	for _, how := range dialects {
		for _, user := range []*url.Userinfo{nil, url.UserPassword("me", "a:b@c d")} {
			for address, want := range map[string]string{
				"service.example:443":          "service.example:443", // the proxy looks it up
				"service.example:https":        "service.example:443",
				"20.1.2.3:80":                  "20.1.2.3:80",
				"[2001:db8::1]:443":            "[2001:db8::1]:443",
				strings.Repeat("x", 63) + ":1": strings.Repeat("x", 63) + ":1",
			} {
				t.Run(fmt.Sprint(how.scheme, user != nil, address), func(t *testing.T) {
					heard := make(chan wish, 1)
					proxy := newProxy(t, func(c net.Conn) {
						w, err := how.hear(c, user != nil)
						if err != nil {
							t.Error(err)
						}
						heard <- w
						io.WriteString(c, how.yes)
						io.Copy(c, c)
					})
					goesBy(t, by(how.scheme, proxy, user), proxy, address)
					w := wish{address: want}
					if user != nil {
						w.user, w.password = "me", "a:b@c d"
					}
					if got := <-heard; got != w {
						t.Errorf("the proxy was asked for %+v, want %+v", got, w)
					}
				})
			}
		}
	}
}

// goesBy dials address by a proxy that echoes, and looks at all that is told of it.
func goesBy(t *testing.T, choose func(string, string) (*url.URL, error), proxy, address string) {
	t.Helper()
	var opened dialer.Event
	d := &dialer.Dialer{Ledger: counting(), Resolver: nobody(t), Proxy: choose, Observe: func(e dialer.Event) {
		if e.Kind == dialer.Opened {
			opened = e
		}
	}}
	at := netip.MustParseAddrPort(proxy)
	if got, err := d.Remotes(t.Context(), "tcp", address); len(got) != 1 || got[0] != at {
		t.Errorf("it would lead to %v: %v", got, err)
	}
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k := c.(*dialer.Conn)
	if k.BytesRead() != 0 || k.BytesWritten() != 0 {
		t.Errorf("%d bytes read, %d written before anybody has", k.BytesRead(), k.BytesWritten())
	}
	if opened.Host != address || opened.Remote != at {
		t.Errorf("told was %+v", opened)
	}
	if as := d.Ledger.Accounts(); len(as) != 1 || as[0].Key.Dest != at || as[0].Active != 1 {
		t.Errorf("booked was %v", as)
	}
	hello := []byte("hello")
	if _, err := c.Write(hello); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != "hello" {
		t.Errorf("got %q: %v", hello, err)
	}
	if k.BytesRead() != 5 || k.BytesWritten() != 5 {
		t.Errorf("%d bytes read, %d written", k.BytesRead(), k.BytesWritten())
	}
}

func TestWhatTheServerSaysFirstIsNotLost(t *testing.T) {
	const greeting = "220 mail.example ESMTP\r\n\r\n220 again\r\n"
	bound := map[string]string{
		"IPv4": overSOCKS.yes,
		"IPv6": "\x05\x00\x00\x04" + strings.Repeat("\x00", 16+2),
		"name": "\x05\x00\x00\x03\x03a.b\x00\x00",
	}
	type answer struct {
		how  dialect
		yes  string
		name string
	}
	answers := []answer{
		{overHTTP, "HTTP/1.1 200 OK\r\n\r\n", "HTTP"},
		{overHTTP, "HTTP/1.0 200\r\n\r\n", "HTTP/1.0"},
		{overHTTP, "HTTP/1.1 299 Fine\r\nVia: 1.1 proxy\r\n\r\n", "HTTP with another 2xx"},
		{overHTTP, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "HTTP with a length"}, // RFC 9110, section 9.3.6
		{overHTTP, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP in chunks"},
		{overHTTP, "HTTP/1.1 200 OK\nVia: 1.1 proxy\n\n", "HTTP with bare line feeds"}, // RFC 9112, section 2.2
	}
	for name, yes := range bound {
		answers = append(answers, answer{overSOCKS, yes, "SOCKS bound to " + name})
	}
	for _, a := range answers {
		t.Run(a.name, func(t *testing.T) {
			proxy := newProxy(t, func(c net.Conn) {
				a.how.hear(c, false)
				io.WriteString(c, a.yes+greeting) // in one segment
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			})
			d := &dialer.Dialer{Ledger: new(dialer.Ledger), Proxy: by(a.how.scheme, proxy, nil)}
			c, err := d.DialContext(t.Context(), "tcp", "mail.example:25")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := io.ReadAll(c); string(got) != greeting {
				t.Errorf("the server said %q: %v", got, err)
			}
		})
	}
}

// A refusal is a proxy that does not do what it is asked for.
type refusal struct {
	scheme string
	serve  func(c net.Conn)
	says   string
}

// saying answers CONNECT.
func saying(answer string) func(net.Conn) {
	return func(c net.Conn) {
		overHTTP.hear(c, false)
		io.WriteString(c, answer)
	}
}

// replying answers a request by SOCKS.
func replying(answer string) func(net.Conn) {
	return func(c net.Conn) {
		overSOCKS.hear(c, true)
		io.WriteString(c, answer)
	}
}

// opening answers the first word of SOCKS.
func opening(answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		for _, a := range answers {
			c.Read(make([]byte, 512)) // whole: it was one write
			io.WriteString(c, a)
		}
	}
}

func reset(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }

var refusals = map[string]refusal{
	"wants a user":             {"http", saying("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"), "407 Proxy Authentication Required"},
	"cannot get there":         {"http", saying("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n"), "502 Bad Gateway"},
	"sends elsewhere":          {"http", saying("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), "302 Found"},
	"speaks something else":    {"http", saying("SSH-2.0-OpenSSH_9.6\r\n\r\n"), "malformed HTTP"},
	"says a number too large":  {"http", saying("HTTP/1.1 20000 OK\r\n\r\n"), "malformed HTTP"},
	"never ends":               {"http", saying("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-More: and more\r\n", 5000)), "no end after 65536 bytes"},
	"never ends its line":      {"http", saying("HTTP/1.1 200 " + strings.Repeat("O", 70000)), "no end after 65536 bytes"},
	"closes":                   {"http", saying(""), "EOF"},
	"closes in the middle":     {"http", saying("HTTP/1.1 200 OK\r\nVia:"), "EOF"},
	"SOCKS wants another user": {"socks5", opening("\x05\x02", "\x01\x01"), "authentication failed"},
	"SOCKS wants what we lack": {"socks5", opening("\x05\xff"), "no acceptable authentication methods"},
	"SOCKS of version 4":       {"socks5", opening("\x04\x5a"), "unexpected protocol version 4"},
	"SOCKS that is HTTP":       {"socks5", opening("HTTP/1.1 400 Bad Request\r\n\r\n"), "unexpected protocol version 72"},
	"SOCKS closes":             {"socks5", opening(), "EOF"},
	"SOCKS closes later":       {"socks5", replying("\x05"), "EOF"},
	"SOCKS fails":              {"socks5", replying("\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"), "general SOCKS server failure"},
	"SOCKS forbids":            {"socks5", replying("\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"), "not allowed by ruleset"},
	"SOCKS knows no network":   {"socks5", replying("\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"), "network unreachable"},
	"SOCKS knows no host":      {"socks5", replying("\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"), "host unreachable"},
	"SOCKS is refused":         {"socks5h", replying("\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"), "connection refused"},
	"SOCKS knows no such code": {"socks5h", replying("\x05\x63\x00\x01\x00\x00\x00\x00\x00\x00"), "unknown code: 99"},
}

func TestAProxyThatRefusesSaysWhyAndLeavesNothingBehind(t *testing.T) {
	for name, r := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			proxy := newProxy(t, func(c net.Conn) {
				defer close(ended)
				r.serve(c)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c) // until the other end has closed
			})
			var log bytes.Buffer
			d := &dialer.Dialer{Ledger: counting(), Proxy: by(r.scheme, proxy, url.UserPassword("me", "hush"))}
			d.Ledger.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			var events []dialer.Event
			d.Observe = func(e dialer.Event) { events = append(events, e) }
			_, err := d.DialContext(t.Context(), "tcp", "service.example:443")
			var whole *dialer.DialError
			if !errors.As(err, &whole) || !strings.Contains(err.Error(), "dial tcp service.example:443: proxy "+proxy+": ") || !strings.Contains(err.Error(), r.says) {
				t.Fatalf("got %v, want %q", err, r.says)
			}
			if v := dialer.VerdictOf(err); v != dialer.Unknown || whole.Verdict != v {
				t.Errorf("the verdict is %v: %v", v, err)
			}
			if !dialer.SafeToRetry(err) || whole.Timeout() {
				t.Errorf("safe to retry: %t; a timeout: %t", dialer.SafeToRetry(err), whole.Timeout())
			}
			<-ended
			as := d.Ledger.Accounts()
			if len(as) != 1 || as[0].Key.Dest.String() != proxy || as[0].Taken() != 1 || as[0].Active+as[0].Dialing+as[0].Idle != 0 {
				t.Errorf("booked is %v", as)
			}
			told := fmt.Sprintf("%v %+v %+v %+v %s", err, events, as, d.Ledger.Diagnoses(), &log)
			for _, secret := range []string{"hush", "bWU6aHVzaA"} {
				if strings.Contains(told, secret) {
					t.Errorf("%q is told: %s", secret, told)
				}
			}
		})
	}
}

func TestAProxyThatResetsIsDown(t *testing.T) {
	for _, how := range dialects {
		proxy := newProxy(t, func(c net.Conn) {
			c.Read(make([]byte, 1))
			reset(c)
		})
		d := &dialer.Dialer{Ledger: counting(), Proxy: by(how.scheme, proxy, nil)}
		_, err := d.DialContext(t.Context(), "tcp", "service.example:443")
		var whole *dialer.DialError
		if !errors.As(err, &whole) || whole.Verdict != dialer.PeerDown || dialer.VerdictOf(err) != dialer.PeerDown || !strings.Contains(err.Error(), "proxy "+proxy) {
			t.Errorf("%s: %v", how.scheme, err)
		}
		if as := d.Ledger.Accounts(); len(as) != 1 || as[0].Taken() != 1 || as[0].Active != 0 {
			t.Errorf("booked is %v", as)
		}
	}
}

func TestAFailedTunnelIsTold(t *testing.T) {
	proxy := newProxy(t, saying("HTTP/1.1 502 Bad Gateway\r\n\r\n"))
	var told []dialer.Event
	d := &dialer.Dialer{Ledger: counting(), Proxy: by("http", proxy, nil), Observe: func(e dialer.Event) { told = append(told, e) }}
	d.DialContext(t.Context(), "tcp", "service.example:443")
	failed := 0
	for _, e := range told {
		switch {
		case e.Kind == dialer.Opened:
			t.Errorf("it is told to be there: %+v", e)
		case e.Kind == dialer.Failed && e.Host == "service.example:443" && e.Err != nil:
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d times told that it failed: %+v", failed, told)
	}
}

// inSilence has a proxy in virtual time, on a private address, that says no more than a
// beginning, on a host that listens.
func inSilence(t *testing.T, how dialect, says string, f func(t *testing.T, d *dialer.Dialer)) {
	const proxy = "10.0.0.9:3128"
	inLab(t, 4, func(t *testing.T, lab *lab) {
		ln, err := lab.net.Listen(proxy)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					io.WriteString(c, says)
					io.Copy(io.Discard, c)
					c.Close()
				}()
			}
		}()
		d := lab.dialer()
		d.Proxy = by(how.scheme, proxy, nil)
		d.Resolver = nobody(t)
		lab.ledger.SetHost(dialer.Host{Strays: func() (uint64, bool) { return 0, true }, Listening: []uint16{443, 3128}})
		f(t, d)
		synctest.Wait()
		if s := lab.nat.Stats(); s.Live != 0 {
			t.Errorf("%d connections are left", s.Live)
		}
	})
}

func TestAProxyThatHangsIsBounded(t *testing.T) {
	enough := errors.New("enough")
	for _, how := range dialects {
		for _, says := range []string{"", how.yes[:5]} {
			for name, test := range map[string]struct {
				timeout, deadline, cancel, want time.Duration
				is                              error
			}{
				"by default":            {want: 10 * time.Second, is: context.DeadlineExceeded},
				"by Timeout":            {timeout: 3 * time.Second, deadline: time.Minute, want: 3 * time.Second, is: context.DeadlineExceeded},
				"by the deadline":       {deadline: 2 * time.Second, want: 2 * time.Second, is: context.DeadlineExceeded},
				"by the deadline alone": {timeout: -1, deadline: time.Minute, want: time.Minute, is: context.DeadlineExceeded},
				"by the caller":         {timeout: -1, cancel: time.Second, want: time.Second, is: enough},
			} {
				t.Run(fmt.Sprint(how.scheme, len(says), name), func(t *testing.T) {
					inSilence(t, how, says, func(t *testing.T, d *dialer.Dialer) {
						d.Timeout = test.timeout
						ctx, cancel := context.WithCancelCause(t.Context())
						defer cancel(nil)
						if test.cancel > 0 {
							time.AfterFunc(test.cancel, func() { cancel(enough) })
						}
						if test.deadline > 0 {
							limited, end := context.WithTimeout(ctx, test.deadline)
							defer end()
							ctx = limited
						}
						start := time.Now()
						_, err := d.DialContext(ctx, "tcp", "service.example:443")
						if took := waited(start); took != test.want || !errors.Is(err, test.is) {
							t.Errorf("after %v: %v", took, err)
						}
						var n net.Error
						if !errors.As(err, &n) || n.Timeout() != (test.cancel == 0) {
							t.Errorf("a timeout: %v", err)
						}
						if !strings.Contains(err.Error(), "proxy 10.0.0.9:3128: ") || dialer.VerdictOf(err) != dialer.Unknown {
							t.Errorf("got %v", err)
						}
						if ds := d.Ledger.Diagnoses(); len(ds) > 0 && ds[0].Verdict != dialer.Unknown {
							t.Errorf("it is thought to be %+v", ds)
						}
					})
				})
			}
		}
	}
}

func TestATunnelOutlivesWhatItWasDialedFor(t *testing.T) {
	for _, how := range dialects {
		proxy := newProxy(t, func(c net.Conn) {
			how.hear(c, false)
			io.WriteString(c, how.yes)
			io.Copy(c, c)
		})
		d := &dialer.Dialer{Ledger: new(dialer.Ledger), Proxy: by(how.scheme, proxy, nil), Timeout: 5 * time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		c, err := d.DialContext(ctx, "tcp", "service.example:443")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte{1}); err != nil {
			t.Errorf("%s: %v", how.scheme, err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", how.scheme, err)
		}
		c.Close()
	}
}

func TestAProxyIsChosenByDestination(t *testing.T) {
	direct := echo(t)
	proxy := newProxy(t, func(c net.Conn) {
		overHTTP.hear(c, false)
		io.WriteString(c, overHTTP.yes)
		io.Copy(c, c)
	})
	var asked []string
	d := &dialer.Dialer{Ledger: counting(), Proxy: func(network, address string) (*url.URL, error) {
		asked = append(asked, network+" "+address)
		switch address {
		case "service.example:443":
			return url.Parse("http://" + proxy)
		case "broken.example:443":
			return nil, errBroken
		}
		return nil, nil
	}}
	for address, remote := range map[string]string{"service.example:443": proxy, direct.Addr().String(): direct.Addr().String()} {
		c, err := d.DialContext(t.Context(), "tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RemoteAddr().String(); got != remote {
			t.Errorf("%s leads to %s, want %s", address, got, remote)
		}
		c.Close()
		if want := "tcp4 " + address; len(asked) != 1 || asked[0] != want {
			t.Errorf("asked was for %q, want %q", asked, want)
		}
		asked = nil
	}
	if _, err := d.DialContext(t.Context(), "tcp", "broken.example:443"); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "Dialer.Proxy") {
		t.Errorf("got %v", err)
	}
}

func TestAProxyThatMakesNoSenseIsNamed(t *testing.T) {
	for _, test := range []struct {
		via  url.URL
		says []string
	}{
		{url.URL{Host: "proxy.example:3128"}, []string{"Proxy", `the scheme ""`}},
		{url.URL{Scheme: "https", Host: "proxy.example"}, []string{"Proxy", `the scheme "https"`, "want http, socks5 or socks5h"}},
		{url.URL{Scheme: "proxy.example", Opaque: "3128"}, []string{"Proxy", `the scheme "proxy.example"`}},
		{url.URL{Scheme: "http"}, []string{"Proxy", "no host"}},
		{url.URL{Scheme: "socks5", Host: ":1080"}, []string{"Proxy", "no host"}},
		{url.URL{Scheme: "http", Host: "proxy.example:0"}, []string{"Proxy", "port 0"}},
		{url.URL{Scheme: "http", Host: "proxy.example:65536"}, []string{"Proxy", "port 65536"}},
	} {
		test.via.User = url.UserPassword("me", "hush")
		d := &dialer.Dialer{Ledger: new(dialer.Ledger), Resolver: nobody(t), Proxy: func(string, string) (*url.URL, error) { return &test.via, nil }}
		_, err := d.DialContext(t.Context(), "tcp", "service.example:443")
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", test.via.Redacted(), err)
			continue
		}
		for _, part := range test.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q in it", test.via.Redacted(), err, part)
			}
		}
	}
}

func TestANameThatIsNoNameIsNotSentToAProxy(t *testing.T) {
	for _, how := range dialects {
		proxy := newProxy(t, func(c net.Conn) {
			if w, err := how.hear(c, false); err == nil && how.scheme == "http" {
				t.Errorf("it was asked for %q", w.address)
			}
		})
		d := &dialer.Dialer{Ledger: new(dialer.Ledger), Proxy: by(how.scheme, proxy, nil)}
		for _, address := range []string{"a.example\r\nX-More: 1:443", strings.Repeat("x", 256) + ":443\x00"} {
			if _, err := d.DialContext(t.Context(), "tcp", address); err == nil {
				t.Errorf("%s: %q was dialed", how.scheme, address)
			}
		}
	}
}

func TestAProxysAddressThatCannotBeReadIsNoSecret(t *testing.T) {
	d := &dialer.Dialer{Ledger: new(dialer.Ledger), Proxy: func(string, string) (*url.URL, error) {
		return url.Parse(strings.Replace("http://me:hush@proxy.example:1", ":1", ":port", 1))
	}}
	_, err := d.DialContext(t.Context(), "tcp", "service.example:443")
	if err == nil || !strings.Contains(err.Error(), "Dialer.Proxy") || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

func TestAProxyHasAName(t *testing.T) {
	proxy := newProxy(t, func(c net.Conn) {
		overHTTP.hear(c, false)
		io.WriteString(c, overHTTP.yes)
	})
	at := netip.MustParseAddrPort(proxy)
	dead := netip.MustParseAddr("127.0.0.77") // nobody listens there
	d := &dialer.Dialer{Ledger: counting(), Proxy: by("http", fmt.Sprintf("proxy.example:%d", at.Port()), nil),
		Resolver: names{"proxy.example": {dead, at.Addr()}}}
	c, err := d.DialContext(t.Context(), "tcp", "service.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != proxy {
		t.Errorf("it leads to %s", got)
	}
	d.Resolver = names{}
	if _, err := d.DialContext(t.Context(), "tcp", "service.example:443"); dialer.VerdictOf(err) != dialer.DNS || !strings.Contains(err.Error(), "proxy.example") {
		t.Errorf("without an address: %v", err)
	}
}

func TestAProxyThatIsNotThereIsNamedByItsAddress(t *testing.T) {
	proxy := newProxy(t, func(net.Conn) {})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().String()
	ln.Close()
	d := &dialer.Dialer{Ledger: counting(), Proxy: by("http", gone, nil)}
	_, err = d.DialContext(t.Context(), "tcp", proxy)
	if dialer.VerdictOf(err) != dialer.PeerDown || !strings.Contains(err.Error(), gone) {
		t.Errorf("got %v", err)
	}
}

// Not in virtual time: the kernel is asked what came before the connection was there.
func TestASlowProxyIsNoOldSocket(t *testing.T) {
	t.Parallel()
	proxy := newProxy(t, func(c net.Conn) {
		overHTTP.hear(c, false)
		time.Sleep(time.Second) // it takes the proxy so long to get there
		io.WriteString(c, overHTTP.yes)
		io.Copy(c, c)
	})
	var opened dialer.Event
	d := &dialer.Dialer{Ledger: counting(), Proxy: by("http", proxy, nil), Observe: func(e dialer.Event) {
		if e.Kind == dialer.Opened {
			opened = e
		}
	}}
	c, err := d.DialContext(t.Context(), "tcp", "service.example:443")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if opened.Stale {
		t.Errorf("told was %+v", opened)
	}
}

func TestWhatIsDialedInsteadOfABalancer(t *testing.T) {
	ln := echo(t)
	here := ln.Addr().String()
	for _, test := range []struct {
		name, of, instead, address string
		want                       string
		says                       string
	}{
		{name: "as it is", of: "10.0.0.100:80", instead: here, address: "10.0.0.100:80", want: here},
		{name: "by its name", of: "10.0.0.100:80", instead: here, address: "balancer.example:80", want: here},
		{name: "mapped", of: "[::ffff:10.0.0.100]:80", instead: here, address: "10.0.0.100:80", want: here},
		{name: "asked for mapped", of: "10.0.0.100:80", instead: here, address: "[::ffff:10.0.0.100]:80", want: here},
		{name: "instead mapped", of: "10.0.0.100:80", instead: "[::ffff:" + strings.Replace(here, ":", "]:", 1), address: "10.0.0.100:80", want: here},
		{name: "another port", of: "10.0.0.100:80", instead: "127.0.0.1:1", address: here, want: here},
		{name: "nothing", of: "10.0.0.100:80", address: "10.0.0.100:80", says: "Hairpin[10.0.0.100:80]"},
		{name: "no port", of: "10.0.0.100:80", instead: "127.0.0.1:0", address: "10.0.0.100:80", says: "Hairpin[10.0.0.100:80]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var instead netip.AddrPort
			if test.instead != "" {
				instead = netip.MustParseAddrPort(test.instead)
			}
			d := &dialer.Dialer{
				Ledger:   counting(),
				Hairpin:  map[netip.AddrPort]netip.AddrPort{netip.MustParseAddrPort(test.of): instead},
				Resolver: names{"balancer.example": {netip.MustParseAddr("10.0.0.100")}},
			}
			remotes, err := d.Remotes(t.Context(), "tcp", test.address)
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("it would lead to %v: %v", remotes, err)
				}
				return
			}
			if len(remotes) != 1 || remotes[0].String() != test.want {
				t.Errorf("it would lead to %v, want %v: %v", remotes, test.want, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c, err := d.DialContext(ctx, "tcp", test.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.RemoteAddr().String(); got != test.want {
				t.Errorf("it leads to %v", got)
			}
		})
	}
}
