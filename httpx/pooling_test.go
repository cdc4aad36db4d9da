package httpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

func TestTransportsThatAreAlikeShareTheirConnections(t *testing.T) {
	pings := &http.HTTP2Config{SendPingTimeout: time.Minute}
	for name, c := range map[string]struct {
		change func(tr *httpx.Transport)
		share  bool
	}{
		"nothing":       {func(*httpx.Transport) {}, true},
		"logger, proxy": {func(tr *httpx.Transport) { tr.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } }, true},
		"retries":       {func(tr *httpx.Transport) { tr.Retry = new(httpx.Retry) }, true},
		"finish":        {func(tr *httpx.Transport) { tr.FinishWithin = -1 }, true},
		"dialer": {func(tr *httpx.Transport) {
			d := *tr.Dialer
			tr.Dialer = &d
		}, false},
		"TLS":      {func(tr *httpx.Transport) { tr.TLS = tr.TLS.Clone() }, false},
		"max":      {func(tr *httpx.Transport) { tr.MaxConns = 7 }, false},
		"life":     {func(tr *httpx.Transport) { tr.MaxLife = time.Hour }, false},
		"pings":    {func(tr *httpx.Transport) { tr.HTTP2 = pings }, false},
		"gzip":     {func(tr *httpx.Transport) { tr.DisableCompression = true }, false},
		"to proxy": {func(tr *httpx.Transport) { tr.ProxyConnectHeader = http.Header{"A": {"b"}} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, []protocol{http1TLS, http2TLS}, func(t *testing.T, p protocol) {
				s := newSite(t, p, echo)
				other := &httpx.Transport{Dialer: s.dialer, TLS: s.transport.TLS, Proxy: httpx.NoProxy}
				c.change(other)
				s.get(s.server.URL)
				s.do(&http.Client{Transport: other}, s.request("GET", s.server.URL, nil))
				want := int64(2)
				if c.share {
					want = 1
				}
				s.dialed(want)
				s.shut(other)
				s.get(s.server.URL) // is not disturbed by that
				s.dialed(want)
			})
		})
	}
}

func TestClientsOfOneDialerShareTheirConnections(t *testing.T) {
	s := newSite(t, http1, echo)
	for range 20 {
		c := httpx.NewClient(s.dialer)
		s.do(c, s.request("GET", s.server.URL, nil))
		defer s.shut(c.Transport.(*httpx.Transport))
	}
	s.dialed(1)
}

func TestCloseIdleConnectionsClosesWhatThisTransportHasUsedLast(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		s.transport.TLS = unchecked(s.transport.TLS)
		other := &httpx.Transport{Dialer: s.dialer, TLS: s.transport.TLS, Proxy: httpx.NoProxy, Protocols: s.transport.Protocols}
		c := &http.Client{Transport: other}
		s.get(s.named("a.example"))
		s.get(s.named("b.example"))
		s.do(c, s.request("GET", s.named("b.example"), nil))
		s.dialed(2)
		s.client.CloseIdleConnections()
		s.nextEnd()
		s.do(c, s.request("GET", s.named("b.example"), nil))
		s.dialed(2)
		s.get(s.named("a.example"))
		s.dialed(3)
		s.shut(other)
	})
}

func TestAForgottenTransportGivesUpItsPart(t *testing.T) {
	s := newSite(t, http1, echo)
	s.transport.MaxIdle = 100 * time.Millisecond
	func() {
		lost := &httpx.Transport{Dialer: s.dialer, Proxy: httpx.NoProxy, MaxIdle: 50 * time.Millisecond}
		s.do(&http.Client{Transport: lost}, s.request("GET", s.server.URL, nil))
	}()
	runtime.GC()
	s.nextEnd()
}

// overTLS starts the server, which speaks HTTP/2, and returns a Transport for it.
func (l *lab) overTLS() *httpx.Transport {
	l.server.EnableHTTP2 = true
	l.server.StartTLS()
	tr := l.transport()
	tr.TLS = &tls.Config{InsecureSkipVerify: true}
	return tr
}

func TestAHerdDialsNoMoreThanItNeeds(t *testing.T) {
	for _, c := range []struct {
		p     protocol
		dials int
	}{{http1, 16}, {h2c, 4}, {http2TLS, 4}} {
		t.Run(c.p.name, func(t *testing.T) {
			inLab(t, 17, func(t *testing.T, lab *lab) { // one is kept for newcomers
				url := "http://20.1.2.3"
				var tr *httpx.Transport
				if c.p.tls {
					tr, url = lab.overTLS(), "https://20.1.2.3:80"
				} else {
					tr = lab.speaking(c.p)
				}
				defer shut(t, tr)
				lab.herd(500, func(int) error { return lab.post(&http.Client{Transport: tr}, url) })
				if n := lab.nat.Stats().Opened; n > c.dials {
					t.Errorf("%d dials, want %d at most", n, c.dials)
				}
				t.Logf("%d dials", lab.nat.Stats().Opened)
			})
		})
	}
}

func TestASecondNameOfAFullAddressIsServedAtOnce(t *testing.T) {
	for _, p := range []protocol{http1, h2c} {
		t.Run(p.name, func(t *testing.T) {
			inLab(t, 18, func(t *testing.T, lab *lab) {
				tr := lab.speaking(p)
				defer shut(t, tr)
				c := &http.Client{Transport: tr}
				lab.herd(100, func(int) error { return lab.post(c, "http://a.example") })
				start := time.Now()
				if err := lab.post(c, "http://b.example"); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > 100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestWhatAnOriginSpeaksIsRemembered(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		tr := lab.overTLS()
		tr.MaxIdle = time.Second
		defer shut(t, tr)
		c := &http.Client{Transport: tr}
		post := func() error { return lab.post(c, "https://20.1.2.3:80") }
		lab.herd(200, func(int) error { return post() })
		first := lab.nat.Stats().Opened
		time.Sleep(5 * time.Minute) // none is left
		lab.herd(200, func(int) error { return post() })
		if again := lab.nat.Stats().Opened - first; again > first {
			t.Errorf("%d dials at first, and %d more when it was known", first, again)
		}
	})
}

func TestAWaitWithoutADeadlineEndsAfterMaxWaitAndNamesTheAccount(t *testing.T) {
	for _, maxWait := range []time.Duration{0, 5 * time.Second} {
		inLab(t, 1, func(t *testing.T, lab *lab) {
			lab.server.Start()
			hog, err := lab.dialer().DialContext(t.Context(), "tcp", address)
			require.NoError(t, err)
			tr := lab.transport()
			tr.MaxWait = maxWait
			want := maxWait
			if want == 0 {
				want = 30 * time.Second
			}
			start := time.Now()
			req, _ := http.NewRequest("POST", "http://20.1.2.3", strings.NewReader("hello"))
			_, err = tr.RoundTrip(req)
			if took := time.Since(start); took != want {
				t.Errorf("it waited %v, want %v", took, want)
			}
			var budget *dialer.BudgetError
			if maxWait > 0 && !errors.Is(err, pool.ErrWait) { // else the ledger's own wait may be over first
				t.Errorf("got %v, want pool.ErrWait too", err)
			}
			if !errors.Is(err, dialer.ErrBudget) || !errors.As(err, &budget) || !dialer.SafeToRetry(err) {
				t.Errorf("got %v", err)
			}
			if !strings.Contains(fmt.Sprint(err), "20.1.2.3:80") {
				t.Errorf("the account is not named: %v", err)
			}
			hog.Close()
			shut(t, tr)
		})
	}
}

func TestAWaitWithoutAnEndIsForWhoSaysSo(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.server.Start()
		lab.ledger.MaxWait = -1
		hog, err := lab.dialer().DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		time.AfterFunc(time.Hour, func() { hog.Close() })
		tr := lab.transport()
		tr.MaxWait = -1
		if err := lab.post(&http.Client{Transport: tr}, "http://20.1.2.3"); err != nil {
			t.Error(err)
		}
		shut(t, tr)
	})
}

// Before the server's SETTINGS have come, a client may open streams that it does not want;
// it refuses them.
func TestAServerGetsNoMoreStreamsThanItWants(t *testing.T) {
	for _, limit := range []int{1, 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			var mu sync.Mutex
			open := make(map[*peer]int)
			refused := 0
			peersIn(t, func(p *peer, stream uint32) {
				mu.Lock()
				defer mu.Unlock()
				if open[p] == limit {
					refused++
					p.refuse(stream)
					return
				}
				open[p]++
				time.AfterFunc(20*time.Millisecond, func() {
					mu.Lock()
					open[p]--
					mu.Unlock()
					p.answer(stream)
				})
			}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
				const requests, most = 200, 19
				start := time.Now()
				lab.herd(requests, func(int) error { return aGET.sendTo(t, tr) })
				took, conns := time.Since(start), lab.nat.Stats().Opened
				if conns > most {
					t.Errorf("%d connections", conns)
				}
				// Twice as long as all connections would take together.
				if rounds := 1 + requests/(most*limit); took > 2*20*time.Millisecond*time.Duration(rounds) {
					t.Errorf("%d requests took %v on %d connections", requests, took, conns)
				}
				t.Logf("%v on %d connections, %d streams refused", took, conns, refused)
			}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(limit)})
		})
	}
}

func TestAConnectionEndsAtItsAgeWhenItIsFree(t *testing.T) {
	for _, p := range []protocol{http1, h2c} {
		t.Run(p.name, func(t *testing.T) {
			inLab(t, 20, func(t *testing.T, lab *lab) {
				tr := lab.speaking(p)
				tr.MaxLife = time.Minute
				defer shut(t, tr)
				c := &http.Client{Transport: tr}
				for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(time.Second) {
					require.NoError(t, lab.post(c, "http://20.1.2.3"))
				}
				// Of between 45 s and 60 s each.
				if n := lab.nat.Stats().Opened; n < 10 || n > 14 {
					t.Errorf("%d connections in 10 min", n)
				}
			})
		})
	}
}

func TestAServersOwnIdleLimitIsHeeded(t *testing.T) {
	for hint, keeps := range map[string]time.Duration{
		"timeout=5":          4 * time.Second,
		"max=100, timeout=2": 1500 * time.Millisecond,
		"TIMEOUT=20":         19 * time.Second,
		"timeout=soon":       10 * time.Minute,
	} {
		t.Run(hint, func(t *testing.T) {
			inLab(t, 20, func(t *testing.T, lab *lab) {
				lab.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Keep-Alive", hint)
					echo(w, r)
				})
				tr := lab.speaking(http1)
				defer shut(t, tr)
				require.NoError(t, lab.post(&http.Client{Transport: tr}, "http://20.1.2.3"))
				time.Sleep(keeps - 100*time.Millisecond)
				synctest.Wait()
				if n := lab.nat.Stats().Live; n != 1 {
					t.Errorf("it was closed before %v", keeps)
				}
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				if n := lab.nat.Stats().Live; n != 0 {
					t.Errorf("it is open after %v", keeps)
				}
			})
		})
	}
}

func TestMaxConnsHoldsForEachOrigin(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		tr := lab.speaking(http1)
		tr.MaxConns = 3
		defer shut(t, tr)
		c := &http.Client{Transport: tr}
		lab.herd(60, func(i int) error { return lab.post(c, fmt.Sprintf("http://%c.example", 'a'+i%2)) })
		if n := lab.nat.Stats().Opened; n != 6 {
			t.Errorf("%d connections, want 3 for each of two names", n)
		}
	})
}

// A record of a name may change.
type record struct {
	mu     sync.Mutex
	addrs  []string
	err    error
	asked  int
	varies bool
}

func (r *record) LookupNetIP(context.Context, string, string) (addrs []netip.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.varies {
		return []netip.Addr{netip.AddrFrom4([4]byte{20, 9, 9, byte(r.asked)})}, r.err
	}
	for _, a := range r.addrs {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, r.err
}

func (r *record) vary(varies bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.varies = varies
}

func (r *record) set(err error, addrs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.addrs = err, addrs
}

func TestConnectionsWhoseAddressLeftTheRecordGoAfterThreeLookUpsThatAgree(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		addrs  []string
		goes   bool
		varies bool
	}{
		"gone":    {addrs: []string{"20.9.9.9"}, goes: true},
		"stays":   {addrs: []string{"20.9.9.9", "20.1.2.3"}},
		"mapped":  {addrs: []string{"::ffff:20.1.2.3"}},
		"unknown": {err: errTest},
		"varies":  {varies: true}, // it tells one of many at a time
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, 20, func(t *testing.T, lab *lab) {
				r := &record{addrs: []string{"20.1.2.3"}}
				tr := lab.speaking(http1)
				tr.Dialer.Resolver = r
				defer shut(t, tr)
				require.NoError(t, lab.post(&http.Client{Transport: tr}, "http://a.example"))
				r.set(c.err, c.addrs...)
				r.vary(c.varies)
				time.Sleep(3 * 45 * time.Second) // three look-ups at most, the first of which is news
				synctest.Wait()
				if n := lab.nat.Stats().Live; n != 1 {
					t.Error("it has gone already")
				}
				time.Sleep(110 * time.Second) // four at least
				synctest.Wait()
				if goes := lab.nat.Stats().Live == 0; goes != c.goes {
					t.Errorf("it has gone: %t after %d look-ups", goes, r.asked)
				}
			})
		})
	}
}

func TestAConnectionToAnAddressStaysThoughItsOtherEndHasAnother(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		tr := lab.speaking(http1)
		tr.Dialer.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return lab.nat.DialContext(ctx, network, "20.1.2.3:80") // as the kernel does for 0.0.0.0
		}
		defer shut(t, tr)
		require.NoError(t, lab.post(&http.Client{Transport: tr}, "http://0.0.0.0"))
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if n := lab.nat.Stats().Live; n != 1 {
			t.Error("it has gone")
		}
	})
}

// slowNames take 3 min to be found, once they are slow.
type slowNames struct {
	everyName
	slow      atomic.Bool
	asked     atomic.Int64
	now, most atomic.Int64 // look-ups at a time
}

func (r *slowNames) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if r.slow.Load() {
		r.asked.Add(1)
		r.most.Store(max(r.most.Load(), r.now.Add(1)))
		defer r.now.Add(-1)
		select {
		case <-time.After(3 * time.Minute):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return r.everyName.LookupNetIP(ctx, network, host)
}

func TestASweepBeginsWhenTheLastOneIsOver(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		r := new(slowNames)
		tr := lab.speaking(http1)
		tr.Dialer.Resolver, tr.Dialer.Timeout = r, -1
		tr.MaxIdle = time.Hour
		defer shut(t, tr)
		c := &http.Client{Transport: tr}
		require.NoError(t, lab.post(c, "http://a.example"))
		r.slow.Store(true)
		time.Sleep(time.Minute + time.Second) // the first one has begun
		require.NoError(t, lab.post(c, "http://20.1.2.3"))
		time.Sleep(10 * time.Minute)
		if asked, most := r.asked.Load(), r.most.Load(); asked < 2 || most != 1 {
			t.Errorf("%d look-ups, %d of them at a time", asked, most)
		}
	})
}

func TestAConnectionThatWasSilentForTooLongIsNotUsedAgain(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		tr := lab.speaking(http1)
		tr.Dialer.Plan = keepalive.Plan{Idle: -1} // no probes: the path forgets after 4 min
		tr.MaxIdle = time.Hour
		defer shut(t, tr)
		c := &http.Client{Transport: tr}
		require.NoError(t, lab.post(c, "http://20.1.2.3"))
		time.Sleep(5 * time.Minute)
		if err := lab.post(c, "http://20.1.2.3"); err != nil {
			t.Error(err)
		}
		if n := lab.nat.Stats().Opened; n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}
