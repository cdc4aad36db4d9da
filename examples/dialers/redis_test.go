package dialers_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/examples/dialers"
	"github.com/natwise/natwise/internal/servers"
)

// client returns a go-redis client that dials by d, and repeats no command.
func client(t *testing.T, d *dialer.Dialer, addr string) *redis.Client {
	c := redis.NewClient(dialers.Redis(&redis.Options{Addr: addr, MaxRetries: -1}, d))
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAHundredCommandsOfGoRedisAtOnceNeedNoMorePortsThanThereAre(t *testing.T) {
	server := servers.Redis(t)
	d := behindNAT(8)
	c := client(t, d, server.Addr())
	var commands sync.WaitGroup
	for range 100 {
		commands.Go(func() {
			pipe := c.Pipeline() // by itself it has 10 connections for those
			for range 10 {
				pipe.Incr(t.Context(), "turns")
			}
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	commands.Wait()
	if n, err := c.Get(t.Context(), "turns").Int(); n != 1000 || err != nil {
		t.Errorf("%d turns, error %v", n, err)
	}
	if a := account(d, server.Addr()); a.Opened > 8 || a.Opened == 0 || a.Taken() > 8 {
		t.Errorf("%v, %d opened", a, a.Opened)
	}
}

func TestAConnectionOfGoRedisThatEndedWhileIdleIsBookedAndNotUsed(t *testing.T) {
	server := servers.Redis(t)
	d, e := behindNAT(8), behindNAT(8)
	c, admin := client(t, d, server.Addr()), client(t, e, server.Addr())
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "the FIN has come", func() bool { // go-redis looks at the socket itself before a turn
		return c.Ping(t.Context()).Err() == nil && account(d, server.Addr()).Opened == 2
	})
	until(t, "the port cools", func() bool { return cooling(account(d, server.Addr())) == 1 })
}

func TestConnectionsOfGoRedisThatALostServerHadAreBooked(t *testing.T) {
	server := servers.Redis(t)
	d := behindNAT(8)
	c := client(t, d, server.Addr())
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Error("no error without a server")
	}
	until(t, "the port cools", func() bool { return cooling(account(d, server.Addr())) > 0 })
	server.Start()
	until(t, "it works again", func() bool { return c.Ping(t.Context()).Err() == nil })
}

// serveNothing is a Redis that hangs up on whoever wants to count, and tells how often that
// was.
func serveNothing(t *testing.T) (at *gate, counted *atomic.Int64) {
	g, counted := listen(t), new(atomic.Int64)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the crash, which is registered below
	t.Cleanup(g.crash)
	serve := func(c net.Conn) {
		defer c.Close()
		named := true
		for words := bufio.NewScanner(c); words.Scan(); { // *2, $4, INCR, ...: an array of strings
			switch word := strings.ToUpper(words.Text()); {
			case strings.HasPrefix(word, "*"):
				named = false
			case named || strings.HasPrefix(word, "$"):
			case word == "INCR":
				counted.Add(1)
				return
			default:
				named = true
				io.WriteString(c, "-ERR unknown\r\n") // as an old Redis says to HELLO
			}
		}
	}
	serving.Go(func() {
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	return g, counted
}

func TestGoRedisByItselfSendsACommandAgainThatMayHaveRun(t *testing.T) {
	for _, retries := range []int{0, -1} {
		at, counted := serveNothing(t)
		opts := dialers.Redis(&redis.Options{Addr: at.addr(), MaxRetries: retries, Protocol: 2, DisableIdentity: true}, behindNAT(8))
		c := redis.NewClient(opts)
		defer c.Close()
		err := c.Incr(t.Context(), "n").Err()
		want := int64(4) // three more
		if retries < 0 {
			want = 1
		}
		if n := counted.Load(); n != want || err == nil {
			t.Errorf("MaxRetries %d: INCR was sent %d times, error %v", retries, n, err)
		}
		if dialer.SafeToRetry(err) {
			t.Errorf("MaxRetries %d: %v is said to be safe", retries, err)
		}
	}
}

// tlsServer returns where a server is that wants TLS, and what trusts it.
func tlsServer(t *testing.T) (addr string, config *tls.Config) {
	s := httptest.NewUnstartedServer(nil)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
}

func TestGoRedisWithADialerAloneForgetsItsTLSConfig(t *testing.T) {
	server := servers.Redis(t) // which has no TLS
	d := behindNAT(8)
	c := redis.NewClient(&redis.Options{Addr: server.Addr(), TLSConfig: new(tls.Config), Dialer: d.DialContext})
	defer c.Close()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Error("go-redis has learned it: ", err)
	}
}

func TestGoRedisSpeaksTLSOverTheDialer(t *testing.T) {
	addr, config := tlsServer(t)
	d := behindNAT(8)
	opts := dialers.Redis(&redis.Options{Addr: addr, TLSConfig: config}, d)
	c, err := opts.Dialer(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	secured, ok := c.(*tls.Conn)
	if !ok || !secured.ConnectionState().HandshakeComplete {
		t.Errorf("%T has made no handshake", c)
	}
	if _, ours := dialer.Unwrap(c); !ours {
		t.Error("there is none of our connections below")
	}
}

func TestAConnectionWhoseTLSFailsIsClosed(t *testing.T) {
	addr, _ := tlsServer(t)
	d := behindNAT(8)
	opts := dialers.Redis(&redis.Options{Addr: addr, TLSConfig: new(tls.Config)}, d) // trusts nobody whom the server is
	if _, err := opts.Dialer(context.Background(), "tcp", addr); err == nil {
		t.Fatal("no error")
	}
	until(t, "its port cools", func() bool { return cooling(account(d, addr)) == 1 })
}
