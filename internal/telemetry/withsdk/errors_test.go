package withsdk_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/pool/conns"
	"github.com/natwise/natwise/sqlx"
)

// fewValues have nothing that changes from one error to the next: a name, or a type. What has
// no name is what nobody needs a graph of.
var fewValues = regexp.MustCompile(`^([a-z_.]+|\*?[a-z0-9/.]+\.[A-Za-z]+)$`)

func TestWhatErrorsAreCalled(t *testing.T) {
	hurried := func(c *town) context.Context {
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		c.Cleanup(cancel)
		return ctx
	}
	dial := func(c *town, ctx context.Context, address string) error {
		conn, err := c.dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			c.Cleanup(func() { conn.Close() })
		}
		return err
	}
	full := func(c *town) {
		for range 2 {
			c.must(dial(c, c.Context(), lines))
		}
	}
	ask := func(c *town, url string) error {
		_, client := c.web()
		return get(hurried(c), client, url)
	}
	for name, e := range map[string]struct {
		meet func(c *town) error
		want string
	}{
		"nobody listens": {func(c *town) error { return dial(c, c.Context(), nowhere) }, "connection_refused"},
		"no such name":   {func(c *town) error { return dial(c, c.Context(), "unknown.example.com:1") }, "name_resolution"},
		"no such name, for a request": {func(c *town) error {
			return ask(c, "http://unknown.example.com/")
		}, "name_resolution"},
		"no port in time": {func(c *town) error {
			full(c)
			return dial(c, hurried(c), lines)
		}, "natwise.budget_exhausted"},
		"no port within MaxWait": {func(c *town) error {
			full(c)
			return dial(c, c.Context(), lines)
		}, "natwise.budget_exhausted"},
		"no port for a request": {func(c *town) error {
			full(c)
			return ask(c, "http://lines.example.com:7000/")
		}, "natwise.budget_exhausted"},
		"no port for a pooled connection": {func(c *town) error {
			full(c)
			_, err := c.conns(conns.Config{}).Get(hurried(c), "tcp", lines)
			return err
		}, "natwise.budget_exhausted"},
		"called off while it waited": {func(c *town) error {
			full(c)
			ctx, off := context.WithCancel(c.Context())
			time.AfterFunc(time.Second, off)
			return dial(c, ctx, lines)
		}, "canceled"},
		"the pool is as large as it may be": {func(c *town) error {
			p := c.conns(conns.Config{Max: 1})
			defer c.lend(p, "").Put()
			_, err := p.Get(hurried(c), "tcp", "lines.example.com:7000")
			return err
		}, "natwise.wait_timeout"},
		"the database's pool is as large as it may be": {func(c *town) error {
			d := &sqlx.Dialer{Dialer: c.dialer}
			db := sqlx.OpenDB(toy{d.DialContext, lines}, sqlx.Config{Dialer: d, Max: 1})
			defer db.Close()
			held, err := db.Conn(c.Context())
			c.must(err)
			defer held.Close()
			return db.PingContext(hurried(c))
		}, "natwise.wait_timeout"},
		"SYNs without answer": {func(c *town) error {
			c.net.BlackHole(lines)
			return dial(c, c.Context(), lines)
		}, "natwise.path_down"},
		"one SYN without answer": {func(c *town) error {
			c.net.BlackHole(lines)
			return dial(c, hurried(c), lines)
		}, "timed_out"},
		"no local port": {func(c *town) error {
			c.dialer.Dial = failing(noLocalPort)
			return dial(c, c.Context(), lines)
		}, "natwise.local_ports"},
		"no route": {func(c *town) error {
			c.dialer.Dial = failing(noRoute)
			return dial(c, c.Context(), lines)
		}, "host_unreachable"},
		"what a dialer below calls a hairpin": {func(c *town) error {
			c.dialer.Dial = failing(hairpin)
			return dial(c, c.Context(), lines)
		}, "natwise.hairpin"},
		"the server speaks no TLS":           {func(c *town) error { return ask(c, "https://example.com:80/") }, "tls"},
		"the certificate is somebody else's": {func(c *town) error { return ask(c, "https://20.1.2.3/") }, "tls"},
		"nobody trusts the certificate": {func(c *town) error {
			c.trust = new(tls.Config)
			return ask(c, "https://example.com/")
		}, "tls"},
		"the versions of TLS have nothing in common": {func(c *town) error {
			c.trust.MaxVersion = tls.VersionTLS11
			return ask(c, "https://example.com/")
		}, "tls"},
		"a handshake without answer": {func(c *town) error {
			tr := &httpx.Transport{Dialer: c.dialer, Proxy: httpx.NoProxy, TLSHandshakeTimeout: time.Second}
			defer tr.Close(c.Context())
			return get(c.Context(), &http.Client{Transport: tr}, "https://"+c.listen("20.1.2.6:7009").Addr().String())
		}, "timed_out"},
		"a proxy that refuses": {func(c *town) error {
			c.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }
			tr := &httpx.Transport{Dialer: c.dialer, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: plain})}
			defer tr.Close(c.Context())
			return get(c.Context(), &http.Client{Transport: tr}, "https://example.com/")
		}, "*httpx.unsentError"},
		"an answer that does not come": {func(c *town) error {
			c.handle = func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Minute) }
			return ask(c, "http://example.com/")
		}, "timed_out"},
		"an answer that does not end": {func(c *town) error {
			c.handle = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "7")
				w.Write([]byte("half"))
			}
			return ask(c, "http://example.com/")
		}, "connection_closed"},
		"the peer has hung up": {func(c *town) error {
			conn := c.lend(c.conns(conns.Config{}), "")
			defer conn.Close()
			c.far().Close()
			return say(c.Context(), conn, "are you there?")
		}, "connection_closed"},
		"the peer has sent a RST": {func(c *town) error {
			conn := c.lend(c.conns(conns.Config{}), "")
			defer conn.Close()
			far := c.far()
			far.(interface{ SetLinger(int) error }).SetLinger(0)
			far.Close()
			return say(c.Context(), conn, "are you there?")
		}, "connection_reset"},
		"the kernel has given up": {func(c *town) error {
			d := *c.dialer
			d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := c.net.DialContext(ctx, network, address)
				return givenUp{conn}, err
			}
			conn, err := d.DialContext(c.Context(), "tcp", lines)
			c.must(err)
			defer conn.Close()
			_, err = conn.Read(make([]byte, 1))
			return err
		}, "natwise.blackhole"},
		"closed on this side": {func(c *town) error {
			conn, err := c.dialer.DialContext(c.Context(), "tcp", lines)
			c.must(err)
			conn.Close()
			return say(c.Context(), conn, "are you there?")
		}, "closed"},
		"the transport is closed": {func(c *town) error {
			tr, client := c.web()
			tr.Close(c.Context())
			return get(c.Context(), client, "http://example.com/")
		}, "*httpx.unsentError"},
		"the pool is closed": {func(c *town) error {
			p := c.conns(conns.Config{})
			p.Close(c.Context())
			_, err := p.Get(c.Context(), "tcp", lines)
			return err
		}, "github.com/natwise/natwise/pool.untouched"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTown(newLens(t), 2)
				err := e.meet(c)
				if err == nil {
					t.Fatal("there is no error")
				}
				var of *url.Error // http.Client's, which natwise never sees
				if errors.As(err, &of) {
					err = of.Err
				}
				got := telemetry.ErrorType(err)
				if got != e.want || !fewValues.MatchString(got) {
					t.Errorf("%q, want %q: %v", got, e.want, err)
				}
			})
		})
	}
}

// givenUp is a connection of which the kernel has given up hope.
type givenUp struct{ net.Conn }

func (c givenUp) Read([]byte) (int, error) {
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ETIMEDOUT}
}
