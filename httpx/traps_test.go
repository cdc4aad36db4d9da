//lint:file-ignore SA1019 Request.Cancel is still what http.Client uses
package httpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"reflect"
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
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/keepalive"
)

// http.ClientConn has traps. Each test here fails without the rule that avoids one.

// An http.Transport with MaxConnsPerHost panics when a ClientConn of it closes.
func TestMaxConnsIsCountedWithoutNetHTTP(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") })
		s.transport.MaxConns = 1
		for range 3 {
			s.get(s.server.URL)
		}
		s.transport.CloseIdleConnections()
	})
}

// An http.Transport without keepalives makes each ClientConn carry one exchange only.
func TestConnectionsAreKeptUnlessARequestSaysOtherwise(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		s.get(s.server.URL)
		s.get(s.server.URL)
		s.dialed(1)
		req := s.request("GET", s.server.URL, nil)
		req.Close = true
		s.do(s.client, req)
		s.nextEnd()
		s.get(s.server.URL)
		s.dialed(2)
	})
}

// IdleConnTimeout is heeded on HTTP/2 and ignored on HTTP/1. It is MaxIdle that counts,
// on both alike.
func TestAnIdleConnectionEndsAfterMaxIdleAndNotBefore(t *testing.T) {
	for _, p := range []protocol{http1, h2c} {
		for _, maxIdle := range []time.Duration{0, 30 * time.Second} {
			t.Run(fmt.Sprint(p.name, " ", maxIdle), func(t *testing.T) {
				inLab(t, 20, func(t *testing.T, lab *lab) {
					tr := lab.speaking(p)
					defer shut(t, tr)
					tr.MaxIdle = maxIdle
					want := maxIdle
					if want == 0 {
						want = 10 * time.Minute
					}
					require.NoError(t, lab.post(&http.Client{Transport: tr}, "http://20.1.2.3"))
					time.Sleep(want - time.Second)
					synctest.Wait()
					if n := lab.nat.Stats().Live; n != 1 {
						t.Errorf("%d connections after %v", n, want-time.Second)
					}
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if n := lab.nat.Stats().Live; n != 0 {
						t.Errorf("%d connections after %v", n, want+time.Second)
					}
				})
			})
		}
	}
}

// The hook of a ClientConn is called by its methods: a lock that both take is a deadlock.
func TestNoLockIsHeldWhileAConnectionTellsOfItself(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/sever" {
				sever(r, keepalive.RSTByPeer)
			}
		})
		s.transport.MaxConns = 4
		ctx, stop := context.WithCancel(t.Context())
		var work, nuisance sync.WaitGroup
		nuisance.Go(func() {
			for ctx.Err() == nil {
				s.transport.CloseIdleConnections()
				runtime.Gosched()
			}
		})
		for g := range 8 {
			work.Go(func() {
				for i := range 50 {
					path := "/"
					if (g+i)%10 == 0 {
						path = "/sever"
					}
					if resp, err := s.client.Get(s.server.URL + path); err == nil {
						resp.Body.Close()
					}
				}
			})
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			work.Wait()
			stop()
			nuisance.Wait()
		}()
		select {
		case <-done:
		case <-time.After(10 * soon):
			panic("they hang: see where")
		}
	})
}

// A RoundTrip beyond what a connection can carry waits in it, and takes the turn of
// another: then a request hangs behind a stranger's though connections are free.
func TestNoRequestWaitsInAConnectionThatIsFull(t *testing.T) {
	hung := make(chan *peer, 1)
	var streams atomic.Int64
	peersIn(t, func(p *peer, stream uint32) {
		if streams.Add(1) == 1 {
			p.answer(stream)
			return
		}
		if p.n == 0 {
			hung <- p // and no answer
			return
		}
		p.answer(stream)
	}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
		require.NoError(t, aGET.sendTo(t, tr))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://20.1.2.3", nil)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tr.RoundTrip(req)
		}()
		<-hung
		start := time.Now()
		for range 5 {
			require.NoError(t, aGET.sendTo(t, tr))
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("they took %v behind a request that hangs", took)
		}
		cancel()
		<-ended
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
}

// A context that has ended already costs an HTTP/1 ClientConn its connection.
func TestARequestThatIsCanceledBeforeItIsSentCostsNothing(t *testing.T) {
	for _, m := range []message{aGET, aPOST, aStream} {
		t.Run(m.name, func(t *testing.T) {
			overEach(t, protocols, func(t *testing.T, p protocol) {
				s := newSite(t, p, echo)
				s.get(s.server.URL)
				for range 10 { // since it is a race in net/http
					ctx, cancel := context.WithCancelCause(t.Context())
					ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { cancel(errTest) }})
					var body io.Reader
					if m.body != nil {
						body = m.body()
					}
					_, err := s.transport.RoundTrip(s.request(m.method, s.server.URL, body).WithContext(ctx))
					if !errors.Is(err, errTest) {
						t.Errorf("got %v", err)
					}
				}
				s.get(s.server.URL)
				s.dialed(1)
				if n := s.served.Load(); n != 2 {
					t.Errorf("%d requests were served, want 2", n)
				}
			})
		})
	}
}

// A ledgered context counts the contexts below it.
type ledgeredContext struct {
	context.Context
	live *atomic.Int64
}

// Value hides what package context would find its own contexts by.
func (c ledgeredContext) Value(any) any { return nil }

func (c ledgeredContext) AfterFunc(f func()) func() bool {
	c.live.Add(1)
	stop := context.AfterFunc(c.Context, f)
	return func() bool {
		if stop() {
			c.live.Add(-1)
			return true
		}
		return false
	}
}

// A RoundTrip of an HTTP/1 ClientConn that fails leaves a context below the caller's, and
// a goroutine where Request.Cancel is set.
func TestRequestsLeaveNothingWithTheContextOfTheirCaller(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/sever" {
				sever(r, keepalive.RSTByPeer)
			}
			io.WriteString(w, "hello")
		})
		parent, stop := context.WithCancel(t.Context())
		defer stop()
		ctx := ledgeredContext{parent, new(atomic.Int64)}
		never := make(chan struct{})
		before := runtime.NumGoroutine()
		for range 50 {
			for _, path := range []string{"/", "/sever"} {
				req := s.request("POST", s.server.URL+path, strings.NewReader("hello")).WithContext(ctx)
				req.Cancel = never
				if resp, err := s.transport.RoundTrip(req); err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		}
		s.transport.CloseIdleConnections()
		if n := ctx.live.Load(); n != 0 {
			t.Errorf("%d contexts are left", n)
		}
		if stacks := leak.Beyond(before + 20); stacks != "" { // the server's, and those of a connection
			t.Errorf("goroutines are left:\n%s", stacks)
		}
	})
}

// A RoundTrip of a ClientConn leaves the request's body open on a connection that is dead.
// (What is wrong with a request is found before: TestWhatCannotBeSentCostsNoConnection.)
func TestTheBodyOfARequestIsClosedWhateverHappens(t *testing.T) {
	for name, c := range map[string]struct {
		path    string
		prepare func(*site, *http.Request) *http.Request
	}{
		"answered": {path: "/"},
		"severed":  {path: "/sever"},
		"refused":  {path: "/refuse"},
		"the connection had broken": {path: "/", prepare: func(s *site, r *http.Request) *http.Request {
			s.last.Load().broken.Store(true)
			return r
		}},
		"it breaks and there is no other": {path: "/", prepare: func(s *site, r *http.Request) *http.Request {
			s.last.Load().broken.Store(true)
			s.dialer.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errTest }
			return r
		}},
		"canceled before": {path: "/", prepare: func(s *site, r *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			return r.WithContext(ctx)
		}},
		"canceled with the connection": {path: "/", prepare: func(s *site, r *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(r.Context())
			return r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { cancel() }}))
		}},
		"canceled while it waits": {path: "/hang", prepare: func(s *site, r *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(r.Context())
			return r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { cancel() }}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, protocols, func(t *testing.T, p protocol) {
				s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/sever":
						sever(r, keepalive.RSTByPeer)
					case "/refuse":
						w.WriteHeader(http.StatusExpectationFailed)
					case "/hang":
						io.Copy(io.Discard, r.Body)
						<-r.Context().Done()
					default:
						io.Copy(io.Discard, r.Body)
					}
				})
				s.get(s.server.URL)
				body := newTape(strings.NewReader("hello"))
				req := s.request("POST", s.server.URL+c.path, body)
				if c.prepare != nil {
					req = c.prepare(s, req)
				}
				if resp, err := s.transport.RoundTrip(req); err == nil {
					resp.Body.Close()
				}
				within(t, body.closed)
			})
		})
	}
}

// Errors come out of a ClientConn as types that only net/http's own Transport takes off.
func TestErrorsCarryNoTypesOfNetHTTPsOwn(t *testing.T) {
	for _, how := range []keepalive.How{keepalive.FINByPeer, keepalive.RSTByPeer} {
		overEach(t, []protocol{http1, http1TLS}, func(t *testing.T, p protocol) {
			d := &mayDie{how: how}
			s := newSite(t, p, d.handle)
			s.get(s.server.URL)
			d.condemned.Store(1)
			err := s.send(aPOST, s.server.URL)
			for e := err; e != nil; e = errors.Unwrap(e) {
				if name := reflect.TypeOf(e).String(); strings.HasPrefix(name, "http.") {
					t.Errorf("a %s is in %v", name, err)
				}
			}
		})
	}
}

// After GOAWAY an idle HTTP/2 ClientConn says nothing, and its TCP connection stays open.
func TestAnIdleConnectionOnWhichTheServerTakesNoMoreIsClosed(t *testing.T) {
	first := make(chan *peer, 1)
	asked := func(p *peer, stream uint32) {
		select {
		case first <- p:
		default:
		}
		p.answer(stream)
	}
	peersIn(t, asked, func(t *testing.T, tr *httpx.Transport, lab *lab) {
		require.NoError(t, aGET.sendTo(t, tr))
		(<-first).goAway(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := lab.nat.Stats().Live; n != 0 {
			t.Errorf("%d connections after a minute", n)
		}
	})
}

func TestARequestRightAfterGOAWAYTakesAnotherConnection(t *testing.T) {
	peersIn(t, func(p *peer, stream uint32) {
		p.answer(stream)
		if p.n == 0 {
			p.goAway(stream)
		}
	}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
		require.NoError(t, aPOST.sendTo(t, tr))
		synctest.Wait()
		require.NoError(t, aPOST.sendTo(t, tr))
		if s := lab.nat.Stats(); s.Opened != 2 || s.Live != 1 {
			t.Errorf("%d connections, of which %d live; want 2 and 1", s.Opened, s.Live)
		}
	})
}

// A ClientConn sends any request as it is, a secret one in clear text too.
func TestASecretRequestIsNeverSentInClearText(t *testing.T) {
	s := newSite(t, http1, echo)
	s.get(s.server.URL)
	secret := s.request("POST", strings.Replace(s.server.URL, "http:", "https:", 1), strings.NewReader("secret"))
	_, err := s.transport.RoundTrip(secret)
	if err := saysHow(err, true); err != nil {
		t.Error(err)
	}
	if n := s.served.Load(); n != 1 {
		t.Errorf("%d requests were served", n)
	}
}

func TestARequestGoesToItsHostAndNoOther(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, strings.Split(r.Host, ":")[0])
		})
		s.transport.TLS = unchecked(s.transport.TLS)
		var asked sync.Map
		for _, host := range []string{"a.example", "b.example", "a.example"} {
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
				was, known := asked.LoadOrStore(info.Conn, host)
				if known && was != host {
					t.Errorf("%s goes over the connection of %s", host, was)
				}
			}})
			if _, body := s.do(s.client, s.request("GET", s.named(host), nil).WithContext(ctx)); body != host {
				t.Errorf("%s was taken for %s", host, body)
			}
		}
		s.dialed(2)
	})
}

// A ClientConn tells no GetConn and no GotConn: TestTheTraceIsThatOfNetHTTP.

// Errors of dials come out raw, whatever their context says.
func TestADialThatIsCutShortTellsWhy(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errTest) })
			return ctx, func() { cancel(nil) }
		}, errTest},
		"late": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, context.DeadlineExceeded},
		"late for a cause": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, errTest)
		}, errTest},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, 20, func(t *testing.T, lab *lab) {
				lab.server.Start()
				lab.net.BlackHole(address)
				tr := lab.transport()
				ctx, cancel := c.end(t.Context())
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://20.1.2.3", nil)
				start := time.Now()
				_, err := tr.RoundTrip(req)
				if late := ctx.Err() == context.DeadlineExceeded; !errors.Is(err, c.want) || late && !dialer.SafeToRetry(err) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if took := time.Since(start); took != time.Second {
					t.Errorf("after %v", took)
				}
				shut(t, tr)
				lab.net.Heal(address)
			})
		})
	}
}

// An http.Transport of somebody else's may be any: ours is made of our own settings.
func TestNothingOfTheDefaultTransportIsUsed(t *testing.T) {
	was := http.DefaultTransport
	defer func() { http.DefaultTransport = was }()
	http.DefaultTransport = &http.Transport{
		MaxConnsPerHost:   1,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MaxVersion: tls.VersionTLS10},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errTest
		},
	}
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		for range 2 {
			s.get(s.server.URL)
		}
		s.dialed(1)
	})
}

// Before the server has told how many streams it wants, a ClientConn says a hundred.
func TestStreamsBeyondWhatTheServerWantsAreNotLost(t *testing.T) {
	const limit = 5
	var mu sync.Mutex
	streams := make(map[*peer][]uint32)
	peersIn(t, func(p *peer, stream uint32) {
		mu.Lock()
		defer mu.Unlock()
		if len(streams[p]) == limit {
			p.refuse(stream)
			return
		}
		if streams[p] = append(streams[p], stream); len(streams[p]) == 1 {
			time.AfterFunc(20*time.Millisecond, func() {
				mu.Lock()
				defer mu.Unlock()
				for _, s := range streams[p] {
					p.answer(s)
				}
				streams[p] = nil
			})
		}
	}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
		lab.herd(200, func(int) error { return aPOST.sendTo(t, tr) })
		if n := lab.nat.Stats().Opened; n > 19 { // one is kept for newcomers
			t.Errorf("%d connections", n)
		}
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: limit})
}
