package withsdk_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool/conns"
	"github.com/natwise/natwise/sqlx"
)

// everything has natwise do all that it has a metric or a span for, and calls look now and
// then.
func everything(l *lens, look func()) {
	l.Run("in virtual time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mine := *l
			mine.T = t
			c := newTown(&mine, 4)
			c.allOfHTTP(look)
			c.allOfConns(look)
			c.allOfSQL(look)
			c.allThatFails()
			look()
		})
	})
	l.Run("with others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mine := *l
			mine.T = t
			newTown(&mine, 4).allThatIsShared(look)
			look()
		})
	})
	l.Run("by the kernel", func(t *testing.T) {
		mine := *l
		mine.T = t
		mine.whatVanishes(look)
		mine.whatIsForgotten(look)
		mine.whatIsWanting(look)
	})
}

// together has n goroutines do something with a span each, and look on half way.
func (c *town) together(n int, look func(), do func(ctx context.Context) error) {
	c.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			ctx, span := c.ask(c.Context(), "together")
			defer span.End()
			c.must(do(ctx))
		})
	}
	time.Sleep(works / 2)
	look()
	all.Wait()
}

// allOfHTTP is requests in each protocol that wait, are replayed, and whose connections
// are given up.
func (c *town) allOfHTTP(look func()) {
	c.handle = func(w http.ResponseWriter, r *http.Request) { time.Sleep(works) }
	tr, client := c.web()
	for _, url := range []string{"https://example.com/", "https://example.com:8443/", "http://example.com/"} {
		c.together(8, look, func(ctx context.Context) error { return get(ctx, client, url) })
	}
	c.replayed(client)
	tr.CloseIdleConnections() // retired
	c.goAway(client)
	tr.Close(c.Context())
}

// replayed is a request on a connection that ends with it.
func (c *town) replayed(client *http.Client) {
	var once sync.Once
	c.handle = func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { panic(http.ErrAbortHandler) })
	}
	ctx, span := c.ask(c.Context(), "replayed")
	defer span.End()
	c.must(get(ctx, client, "https://example.com:8443/"))
}

// goAway is an HTTP/2 server that takes no more requests on a connection: spent.
func (c *town) goAway(client *http.Client) {
	c.handle = func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") }
	c.must(get(c.Context(), client, "https://example.com/"))
	synctest.Wait()
}

// allOfConns is raw connections that end for each reason that their pool has.
func (c *town) allOfConns(look func()) {
	to := "lines.example.com:7000"
	use := func(cfg conns.Config, end func(p *conns.Pool, conn *conns.Conn)) {
		p := c.conns(cfg)
		end(p, c.lend(p, ""))
		p.Close(c.Context())
		time.Sleep(time.Hour) // its port is free again
	}
	use(conns.Config{}, func(_ *conns.Pool, conn *conns.Conn) { conn.Put() })                                              // shut
	use(conns.Config{}, func(_ *conns.Pool, conn *conns.Conn) { conn.Close() })                                            // discarded
	use(conns.Config{MaxIdle: time.Second}, func(_ *conns.Pool, conn *conns.Conn) { conn.Put(); time.Sleep(time.Minute) }) // idled
	use(conns.Config{MaxLife: time.Second}, func(_ *conns.Pool, conn *conns.Conn) { conn.Put(); time.Sleep(time.Minute) }) // aged
	use(conns.Config{}, func(p *conns.Pool, conn *conns.Conn) { conn.Put(); p.Reset("tcp", to, nil) })
	use(conns.Config{}, func(_ *conns.Pool, conn *conns.Conn) {
		c.far().Close() // peer_fin
		conn.Read(make([]byte, 1))
		conn.Close()
	})
	use(conns.Config{}, func(_ *conns.Pool, conn *conns.Conn) {
		far := c.far()
		far.(interface{ SetLinger(int) error }).SetLinger(0)
		far.Close() // peer_rst
		conn.Read(make([]byte, 1))
		conn.Close()
	})
	beats := 0
	use(conns.Config{BeatEvery: time.Second, Beat: func(ctx context.Context, near net.Conn) error {
		if beats++; beats > 3 {
			return errors.New("it does not answer") // failed
		}
		return nil
	}}, func(_ *conns.Pool, conn *conns.Conn) {
		conn.Put()
		time.Sleep(2 * time.Second)
		look()
		time.Sleep(3 * time.Second)
		look()
	})
	use(conns.Config{Max: 1}, func(p *conns.Pool, conn *conns.Conn) {
		conn.Put()
		c.together(2, look, func(ctx context.Context) error { // one waits
			return p.Do(ctx, "tcp", to, func(ctx context.Context, c *conns.Conn) error { return say(ctx, c, works.String()) })
		})
	})
	c.reclaimed(to)
}

// reclaimed takes the port of a pool for somebody else.
func (c *town) reclaimed(to string) {
	var held []*conns.Conn
	p := c.conns(conns.Config{})
	for range 3 {
		held = append(held, c.lend(p, ""))
	}
	for _, conn := range held {
		conn.Put()
	}
	other := c.conns(conns.Config{})
	for range 4 {
		conn, err := other.Get(c.Context(), "tcp", to)
		if err != nil {
			c.Error(err)
			break
		}
		defer conn.Close()
	}
	p.Close(c.Context())
}

// allOfSQL is a database with one connection, for which operations wait, one of them in vain.
func (c *town) allOfSQL(look func()) {
	time.Sleep(time.Hour)
	d := &sqlx.Dialer{Dialer: c.dialer}
	db := sqlx.OpenDB(toy{d.DialContext, "lines.example.com:7000"}, sqlx.Config{Name: "orders", Dialer: d, Max: 1})
	c.together(3, look, func(ctx context.Context) error {
		_, err := db.ExecContext(ctx, works.String())
		return err
	})
	held, err := db.Conn(c.Context())
	c.must(err)
	hurried, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	ctx, span := c.ask(hurried, "in vain")
	defer span.End()
	if _, err := db.ExecContext(ctx, "hello"); !errors.Is(err, context.DeadlineExceeded) {
		c.Errorf("there is one connection, which is in use, and the error is %v", err)
	}
	held.Close()
	c.must(db.Close())
	nameless := sqlx.OpenDB(toy{d.DialContext, "lines.example.com:7000"}, sqlx.Config{Dialer: d})
	c.must(nameless.PingContext(c.Context()))
	c.must(nameless.Close())
}

// allThatFails is dials in vain.
func (c *town) allThatFails() {
	time.Sleep(time.Hour)
	ctx, span := c.ask(c.Context(), "in vain")
	defer span.End()
	dial := func(ctx context.Context, address string) error {
		conn, err := c.dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			c.Cleanup(func() { conn.Close() })
		}
		return err
	}
	for range 4 {
		c.must(dial(ctx, "lines.example.com:7000"))
	}
	for _, address := range []string{"lines.example.com:7000", "nowhere.example.com:9", "unknown.example.com:9"} {
		hurried, cancel := context.WithTimeout(ctx, time.Second)
		if dial(hurried, address) == nil {
			c.Errorf("%s could be dialed", address)
		}
		cancel()
	}
	c.requestsInVain(ctx)
	c.dialsInVain(ctx)
}

// dialsInVain are those of which it is known why.
func (c *town) dialsInVain(ctx context.Context) {
	c.net.BlackHole(vanished)
	for _, dial := range []dialFunc{nil, failing(noLocalPort), failing(noRoute), failing(hairpin)} {
		d := *c.dialer
		if dial != nil {
			d.Dial = dial
		}
		if conn, err := d.DialContext(ctx, "tcp", "vanished.example.com:9"); err == nil {
			conn.Close()
			c.Error("vanished.example.com could be dialed")
		}
	}
}

// requestsInVain are those for which there is no connection: no port, no server, no TLS.
func (c *town) requestsInVain(ctx context.Context) {
	tr, client := c.web()
	defer tr.Close(ctx)
	for _, url := range []string{"http://lines.example.com:7000/", "http://nowhere.example.com:9/", "https://example.com:80/"} {
		hurried, cancel := context.WithTimeout(ctx, time.Second)
		if get(hurried, client, url) == nil {
			c.Errorf("%s has answered", url)
		}
		cancel()
	}
	d := &sqlx.Dialer{Dialer: c.dialer}
	db := sqlx.OpenDB(toy{d.DialContext, "nowhere.example.com:9"}, sqlx.Config{Name: "nowhere", Dialer: d})
	defer db.Close()
	if err := db.PingContext(ctx); !errors.Is(err, syscall.ECONNREFUSED) {
		c.Errorf("a database that is not there: %v", err)
	}
}

// loopback is a NAT in real time, a ledger, and a server of lines.
func (l *lens) loopback() (*fauxnat.NAT, *dialer.Dialer, netip.AddrPort) {
	l.Helper()
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	nat := &fauxnat.NAT{Path: path}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.Cleanup(func() { c.Close() })
			serving.Go(func() { answerLines(c) })
		}
	})
	l.Cleanup(serving.Wait)
	l.Cleanup(func() { ln.Close() })
	ledger := &dialer.Ledger{Path: path, Ramp: -1, MeterProvider: l.provider(), TracerProvider: l.tracers}
	return nat, &dialer.Dialer{Ledger: ledger, Dial: nat.DialContext}, ln.Addr().(*net.TCPAddr).AddrPort()
}

// whatVanishes is a connection in a black hole.
func (l *lens) whatVanishes(look func()) {
	l.Helper()
	nat, d, at := l.loopback()
	conn, err := d.DialContext(l.Context(), "tcp", at.String())
	if err != nil {
		l.Fatal(err)
	}
	defer conn.Close()
	if n, err := nat.Darken(at); n != 1 || err != nil {
		l.Fatalf("%d flows are dark: %v", n, err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "hello\n")
	if _, err := bufio.NewReader(conn).ReadString('\n'); !errors.Is(err, keepalive.ErrBlackhole) {
		l.Errorf("in a black hole: %v", err)
	}
	conn.Close()
	look()
	runtime.KeepAlive(d)
}

// whatIsForgotten is a connection that nobody closes.
func (l *lens) whatIsForgotten(look func()) {
	l.Helper()
	_, d, at := l.loopback()
	ended := make(chan dialer.Event, 1)
	d.Observe = func(e dialer.Event) {
		if e.Kind == dialer.Ended {
			ended <- e
		}
	}
	func() {
		if _, err := d.DialContext(l.Context(), "tcp", at.String()); err != nil {
			l.Fatal(err)
		}
	}()
	collected(l.T, "a connection that nobody has any more", func() bool { return len(ended) > 0 })
	look()
	runtime.KeepAlive(d) // its ledger would be gone too
}

// collected runs the garbage collector until something is so.
func collected(t *testing.T, what string, done func() bool) {
	t.Helper()
	for tooLong := time.Now().Add(10 * time.Second); !done(); runtime.GC() {
		if time.Now().After(tooLong) {
			t.Fatalf("not collected: %s", what)
		}
	}
}
