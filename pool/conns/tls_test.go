package conns_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/pool/conns"
)

const name = "example.com:443" // as it stands in the certificate

var certificate = sync.OnceValue(func() *httptest.Server {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	s.TLS.ClientAuth = tls.RequestClientCert // or tickets come within the handshake
	return s
})

// certified returns both sides' settings for a TLS 1.3 server on example.com.
func certified() (client, server *tls.Config) {
	s := certificate()
	return &tls.Config{
		RootCAs:            s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		MinVersion:         tls.VersionTLS13,
		ClientSessionCache: tls.NewLRUClientSessionCache(8), // or it gets no tickets
	}, s.TLS
}

// hosts is a resolver.
type hosts map[string]string

func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr(h[host])}, nil
}

// A vault is the server's end of a TLS connection.
type vault struct {
	*tls.Conn
	raw   far
	asked string // the name that the client wanted
}

// onTLS is onStage with an echo server that speaks TLS; what it returns are the
// ends of it, in the order of the dials.
func onTLS(t *testing.T, n int, f func(t *testing.T, s *stage, cfg conns.Config, vaults chan *vault)) {
	t.Helper()
	client, server := certified()
	onStage(t, n, func(t *testing.T, s *stage) {
		s.dialer.Resolver = hosts{"example.com": "20.1.2.3"}
		vaults := make(chan *vault, 16)
		s.serve = func(c net.Conn) { guard(c, server, vaults) }
		f(t, s, conns.Config{TLS: client}, vaults)
	})
}

// guard is repeat through TLS.
func guard(c net.Conn, server *tls.Config, vaults chan *vault) {
	v := &vault{Conn: tls.Server(c, server), raw: c.(far)}
	if err := v.Handshake(); err != nil {
		c.Close()
		return
	}
	v.asked = v.ConnectionState().ServerName
	vaults <- v
	repeat(v)
}

func (s *stage) named() *conns.Conn {
	s.Helper()
	c, err := s.pool.Get(s.Context(), "tcp", name)
	if err != nil {
		s.Fatal(err)
	}
	return c
}

func TestTheServerIsAskedForByItsName(t *testing.T) {
	for _, test := range []struct{ address, serverName string }{{name, ""}, {here, "example.com"}} {
		t.Run(test.address, func(t *testing.T) {
			onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, vaults chan *vault) {
				cfg.TLS = cfg.TLS.Clone()
				cfg.TLS.ServerName = test.serverName
				s.start(cfg)
				c, err := s.pool.Get(t.Context(), "tcp", test.address)
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, c, "secret")
				if v := <-vaults; v.asked != "example.com" {
					t.Errorf("asked for %q", v.asked)
				}
				if c, ok := c.NetConn().(*tls.Conn); !ok || c.ConnectionState().Version != tls.VersionTLS13 {
					t.Errorf("NetConn is a %T", c)
				}
				if _, err := c.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("SyscallConn: %v", err)
				}
				if cfg.TLS.ServerName != test.serverName {
					t.Error("the user's Config was changed")
				}
				c.Put()
			})
		})
	}
}

func TestATLSFailureClosesTheFlowAndFreesThePort(t *testing.T) {
	onTLS(t, 1, func(t *testing.T, s *stage, cfg conns.Config, _ chan *vault) {
		s.ledger.MaxWait = -1
		s.start(cfg)
		_, err := s.pool.Get(t.Context(), "tcp", here) // not in the certificate
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || !strings.Contains(err.Error(), here) || !dialer.SafeToRetry(err) {
			t.Errorf("got %v", err)
		}
		if a := s.account(); a.Active+a.Idle != 0 || a.Taken() != 1 {
			t.Errorf("the port is not cooling: %v", a)
		}
		c := s.named() // when the port is free
		exchange(t, c, "secret")
		c.Put()
	})
}

func TestASilentTLSServerIsGivenUpInTime(t *testing.T) {
	onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, _ chan *vault) {
		s.serve = nil
		cfg.OpenTimeout = 3 * time.Second
		s.start(cfg)
		start := time.Now()
		_, err := s.pool.Get(t.Context(), "tcp", name)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if a := s.account(); a.Active+a.Idle != 0 {
			t.Errorf("its flow is still there: %v", a)
		}
	})
}

func TestHelloSpeaksThroughTLSOrBeforeIt(t *testing.T) {
	onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, _ chan *vault) {
		client := cfg.TLS
		greet := func(_ context.Context, c net.Conn) (net.Conn, error) { return c, talk(c, "AUTH") }
		cfg.Hello = greet
		s.start(cfg)
		c := s.named()
		exchange(t, c, "secret")
		c.Put()
		s.pool.Close(t.Context())

		serve := s.serve
		s.serve = func(c net.Conn) {
			io.CopyN(c, c, int64(len("STARTTLS")))
			serve(c)
		}
		s.start(conns.Config{Hello: func(ctx context.Context, c net.Conn) (net.Conn, error) {
			if err := talk(c, "STARTTLS"); err != nil {
				return nil, err
			}
			client := client.Clone()
			client.ServerName = "example.com"
			upgraded := tls.Client(c, client)
			return upgraded, upgraded.HandshakeContext(ctx)
		}})
		first := s.named()
		exchange(t, first, "secret")
		first.Put()
		second := s.named()
		if flow(second) != flow(first) {
			t.Error("another one was dialed")
		}
		second.Put()
	})
}

// secrets are what may come through TLS while a connection is idle.
var secrets = map[string]func(v *vault){
	"FIN":               func(v *vault) { v.raw.Close() },
	"RST":               func(v *vault) { reset(v.raw) },
	"close_notify, FIN": func(v *vault) { v.Close() },
	"close_notify":      func(v *vault) { v.CloseWrite() },
	"data":              func(v *vault) { v.Write([]byte("by the way")) },
	"garbage":           func(v *vault) { v.raw.Write([]byte("this is no record of TLS")) },
}

func TestWhatHasEndedOrSpokenThroughTLSIsNotLent(t *testing.T) {
	for what, come := range secrets {
		t.Run(what, func(t *testing.T) {
			onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, vaults chan *vault) {
				s.start(cfg)
				first := s.named()
				exchange(t, first, "secret")
				first.Put()
				come(<-vaults)
				synctest.Wait()
				second := s.named()
				if flow(second) == flow(first) {
					t.Error("it was lent")
				}
				exchange(t, second, "fresh")
				second.Put()
			})
		})
	}
}

// A server sends its tickets after the handshake: to a connection that was not
// used yet, while it is idle.
func TestSessionTicketsAreNoUnaskedWord(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Minute} { // in which it is looked at
		t.Run(idle.String(), func(t *testing.T) {
			onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, vaults chan *vault) {
				s.start(cfg)
				first := s.named()
				first.Put()
				synctest.Wait()
				if n, err := flow(first).Peek(); n == 0 || err != nil {
					t.Fatalf("there are no tickets, %v: the test shows nothing", err)
				}
				time.Sleep(idle)
				second := s.named()
				if flow(second) != flow(first) {
					t.Error("another one was dialed")
				}
				time.Sleep(time.Second) // no deadline is left
				exchange(t, second, "secret")
				second.Put()
				if a := s.account(); a.Idle != 1 {
					t.Errorf("afterwards: %v", a)
				}
			})
		})
	}
}

// TLS reads ahead what comes together with an answer.
func TestWhatTLSHasReadAheadWasNotAskedFor(t *testing.T) {
	for what, say := range map[string]func(v *vault){
		"in one record":  func(v *vault) { v.Write([]byte("answer, and more")) },
		"in two records": func(v *vault) { v.Write([]byte("answer")); v.Write([]byte(", and more")) },
		"close_notify":   func(v *vault) { v.Write([]byte("answer")); v.CloseWrite() },
	} {
		t.Run(what, func(t *testing.T) {
			onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, vaults chan *vault) {
				s.start(cfg)
				first := s.named()
				exchange(t, first, "tickets are read")
				say(<-vaults)
				b := make([]byte, len("answer"))
				if _, err := io.ReadFull(first, b); err != nil || string(b) != "answer" {
					t.Fatalf("got %q, %v", b, err)
				}
				first.Put()
				second := s.named()
				if flow(second) == flow(first) {
					t.Error("it was lent")
				}
				exchange(t, second, "fresh")
				second.Put()
			})
		})
	}
}

// What nobody has used yet has tickets to read, whenever that is. That they are
// read when it is lent is no sign of life from the path.
func TestTicketsDoNotHideTheSilenceOfThePath(t *testing.T) {
	for _, idle := range []time.Duration{229 * time.Second, 250 * time.Second, time.Hour} {
		for what, beat := range map[string]time.Duration{"looked at": 0, "looked at when it is lent": 2 * time.Hour} {
			t.Run(what+" "+idle.String(), func(t *testing.T) {
				onTLS(t, 4, func(t *testing.T, s *stage, cfg conns.Config, vaults chan *vault) {
					s.dialer.Plan.Idle = -1 // no probes
					if cfg.BeatEvery = beat; beat > 0 {
						cfg.Beat = func(context.Context, net.Conn) error { return nil }
					}
					s.start(cfg)
					first := s.named()
					first.Put()
					time.Sleep(idle)
					second := s.named()
					if lent := flow(second) == flow(first); lent != (idle < 230*time.Second) {
						t.Errorf("lent again: %t", lent)
					}
					exchange(t, second, "remembered")
					second.Put()
				})
			})
		}
	}
}

func TestWhatHasEndedOrSpokenOnASocketIsNotLent(t *testing.T) {
	type arrival struct {
		secure bool
		come   func(net.Conn)
	}
	all := make(map[string]arrival)
	for what, come := range arrivals {
		all[what] = arrival{false, func(c net.Conn) { come(c.(far)) }}
	}
	for what, come := range secrets {
		all["TLS, "+what] = arrival{true, func(c net.Conn) { come(c.(*vault)) }}
	}
	for what, arrival := range all {
		t.Run(what, func(t *testing.T) {
			g, cfg := onGround(t, arrival.secure, repeat)
			p := g.pool(cfg)
			good, bad := g.get(p), g.get(p)
			<-g.fars
			exchange(t, good, "hello")
			exchange(t, bad, "hello")
			good.Put()
			bad.Put() // the warmest
			arrival.come(<-g.fars)
			g.came(bad)
			second := g.get(p)
			if flow(second) != flow(good) {
				t.Error("the one that is in order was not lent")
			}
			exchange(t, second, "in order")
			third := g.get(p)
			if flow(third) == flow(bad) {
				t.Error("the other one was lent")
			}
			exchange(t, third, "fresh")
			third.Put()
			second.Put()
		})
	}
}

func TestTicketsOnASocketAreNoUnaskedWord(t *testing.T) {
	g, cfg := onGround(t, true, repeat)
	p := g.pool(cfg)
	first := g.get(p)
	first.Put()
	g.came(first)
	second := g.get(p)
	if flow(second) != flow(first) {
		t.Error("another one was dialed")
	}
	time.Sleep(10 * time.Millisecond) // no deadline is left
	exchange(t, second, "secret")
	second.Put()
}
