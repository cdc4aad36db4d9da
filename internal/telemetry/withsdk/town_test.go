package withsdk_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool/conns"
)

// Where the servers of a town are: public addresses, which are counted.
const (
	second  = "20.1.2.3:443"  // HTTP/2 over TLS, of example.com
	secure  = "20.1.2.3:8443" // HTTP/1.1 over TLS
	plain   = "20.1.2.3:80"   // HTTP/1.1
	lines   = "20.1.2.6:7000" // answers each line with a line, as its databases do
	nowhere = "20.1.2.7:9"    // nobody listens
	// Nobody answers, once it is a black hole.
	vanished = "20.1.2.8:9"
)

const works = 20 * time.Millisecond // what a server does before it answers

// A town is servers behind a NAT in virtual time, and a ledger that an SDK looks at.
type town struct {
	*lens
	net    memnet.Network
	nat    *fauxnat.NAT
	ledger *dialer.Ledger
	dialer *dialer.Dialer
	trust  *tls.Config

	handle http.HandlerFunc // what web servers do; nil: they answer at once

	mu   sync.Mutex // guards the fields below
	fars []net.Conn // the ends of the servers of lines, in the order of the dials
}

// newTown has so many ports for each destination. In the end all of them must have come
// free. It is called in a synctest bubble.
func newTown(l *lens, ports int) *town {
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: ports}}
	c := &town{lens: l}
	c.nat = &fauxnat.NAT{Path: path, Dial: c.net.DialContext}
	c.ledger = &dialer.Ledger{Path: path, Ramp: -1, MeterProvider: l.provider(), TracerProvider: l.tracers}
	c.dialer = &dialer.Dialer{Ledger: c.ledger, Dial: c.nat.DialContext, Resolver: names{
		"example.com": "20.1.2.3", "lines.example.com": "20.1.2.6", "nowhere.example.com": "20.1.2.7", "vanished.example.com": "20.1.2.8",
	}}
	c.serveWeb(plain, func(s *httptest.Server) { s.Start() })
	c.serveWeb(secure, func(s *httptest.Server) { s.StartTLS() })
	c.serveWeb(second, func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() })
	c.serveLines(lines)
	c.Cleanup(func() {
		time.Sleep(time.Hour) // every hold is over
		synctest.Wait()
		for _, a := range c.ledger.Accounts() {
			c.Errorf("left behind: %v", a)
		}
	})
	return c
}

// names are what a Resolver knows.
type names map[string]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if ip, ok := n[host]; ok {
		return []netip.Addr{netip.MustParseAddr(ip)}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (c *town) listen(address string) net.Listener {
	c.Helper()
	ln, err := c.net.Listen(address)
	if err != nil {
		c.Fatal(err)
	}
	return ln
}

func (c *town) serveWeb(address string, start func(*httptest.Server)) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.handle != nil {
			c.handle(w, r)
		}
	}))
	s.Listener.Close()
	s.Listener = c.listen(address)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s)
	if s.Certificate() != nil {
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		c.trust = &tls.Config{RootCAs: roots}
	}
	c.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
}

func (c *town) serveLines(address string) {
	ln := c.listen(address)
	c.Cleanup(func() { ln.Close() })
	go func() {
		for {
			far, err := ln.Accept()
			if err != nil {
				return
			}
			c.Cleanup(func() { far.Close() })
			c.mu.Lock()
			c.fars = append(c.fars, far)
			c.mu.Unlock()
			go answerLines(far)
		}
	}()
}

// answerLines waits for the time that a line names before it answers, and says nothing to
// one that asks for silence.
func answerLines(c net.Conn) {
	defer c.Close()
	for in := bufio.NewScanner(c); in.Scan(); {
		if in.Text() == "silence" {
			continue
		}
		d, _ := time.ParseDuration(in.Text())
		time.Sleep(d)
		if _, err := io.WriteString(c, "done\n"); err != nil {
			return
		}
	}
}

// far returns the server's end of the last connection to lines.
func (c *town) far() net.Conn {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fars[len(c.fars)-1]
}

// web returns a client. Its connections end with the test.
func (c *town) web() (*httpx.Transport, *http.Client) {
	t := &httpx.Transport{Dialer: c.dialer, TLS: c.trust, Proxy: httpx.NoProxy}
	c.Cleanup(func() { t.Close(context.Background()) })
	return t, &http.Client{Transport: t}
}

// get reads an answer to its end.
func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// must fails the test with err, and goes on.
func (c *town) must(err error) {
	c.Helper()
	if err != nil {
		c.Error(err)
	}
}

// conns returns a pool of raw connections. It ends with the test.
func (c *town) conns(cfg conns.Config) *conns.Pool {
	p := conns.New(c.dialer, cfg)
	c.Cleanup(func() { p.Close(context.Background()) })
	return p
}

// lend has a connection from p, and says a line on it.
func (c *town) lend(p *conns.Pool, line string) *conns.Conn {
	c.Helper()
	conn, err := p.Get(c.Context(), "tcp", "lines.example.com:7000")
	if err != nil {
		c.Fatal(err)
	}
	c.must(say(c.Context(), conn, line))
	return conn
}

// say sends a line and waits for the answer.
func say(ctx context.Context, c net.Conn, line string) error {
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len("done\n")))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A toy is a driver for a database of lines.
type toy struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	address string
}

func (d toy) Driver() driver.Driver            { return d }
func (d toy) Open(string) (driver.Conn, error) { return nil, errToy }

func (d toy) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := d.dial(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	return &toyConn{c}, say(ctx, c, "hello")
}

type toyConn struct{ net.Conn }

var errToy = errors.New("a toy has neither transactions nor prepared statements")

func (c *toyConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, say(ctx, c, query)
}

func (c *toyConn) Ping(ctx context.Context) error      { return say(ctx, c, "ping") }
func (c *toyConn) Prepare(string) (driver.Stmt, error) { return nil, errToy }
func (c *toyConn) Begin() (driver.Tx, error)           { return nil, errToy }
