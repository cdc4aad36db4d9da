package httpx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive"
)

// A message is a request to be, and what is known of it.
type message struct {
	name   string
	method string
	key    string // the field that says it is idempotent; "": none
	body   func() io.Reader
}

func inMemory() io.Reader { return strings.NewReader("hello") }

// streams cannot be had again.
func streams() io.Reader { return newTape(strings.NewReader("hello")) }

var (
	aGET       = message{name: "GET", method: "GET"}
	aPOST      = message{name: "POST", method: "POST", body: inMemory}
	aStream    = message{name: "POST that streams", method: "POST", body: streams}
	aKeyedPOST = message{name: "POST with a key", method: "POST", key: "Idempotency-Key", body: inMemory}

	idempotent = []message{
		aGET, aKeyedPOST,
		{name: "HEAD", method: "HEAD"},
		{name: "OPTIONS", method: "OPTIONS"},
		{name: "TRACE", method: "TRACE"},
		{name: "POST with an old key", method: "POST", key: "X-Idempotency-Key", body: inMemory},
	}
	notIdempotent = []message{
		aPOST, aStream,
		{name: "PUT", method: "PUT", body: inMemory},
		{name: "DELETE", method: "DELETE"},
		{name: "PATCH", method: "PATCH", body: inMemory},
	}
)

var errNoEcho = errors.New("what was sent did not come back")

// send sends a message to url.
func (s *site) send(m message, url string) error {
	s.Helper()
	var body io.Reader
	if m.body != nil {
		body = m.body()
	}
	ctx, cancel := context.WithTimeout(s.Context(), 2*soon)
	defer cancel()
	req := s.request(m.method, url, body).WithContext(ctx)
	if _, streaming := body.(*tape); streaming {
		req.ContentLength = 5
	}
	if m.key != "" {
		req.Header.Set(m.key, "k")
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && m.body != nil && string(got) != "hello" {
		err = fmt.Errorf("%w, but %q", errNoEcho, got)
	}
	return err
}

// mayDie answers, or ends the connection of those requests that are condemned.
type mayDie struct {
	how       keepalive.How
	condemned atomic.Int64 // how many of the next requests
	half      bool         // the answer begins before the end
}

func (d *mayDie) handle(w http.ResponseWriter, r *http.Request) {
	if d.condemned.Add(-1) < 0 {
		echo(w, r)
		return
	}
	if d.half {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		io.WriteString(w, "the beginning")
		w.(http.Flusher).Flush()
	}
	sever(r, d.how)
}

func TestAnIdempotentRequestIsReplayedOnceWhenItsKeptConnectionDies(t *testing.T) {
	for _, how := range []keepalive.How{keepalive.RSTByPeer, keepalive.FINByPeer} {
		overEach(t, protocols, func(t *testing.T, p protocol) {
			for _, m := range idempotent {
				t.Run(m.name, func(t *testing.T) {
					d := &mayDie{how: how}
					s := newSite(t, p, d.handle)
					s.get(s.server.URL)
					d.condemned.Store(1)
					if err := s.send(m, s.server.URL); err != nil {
						t.Error(err)
					}
					if n := s.served.Load(); n != 3 {
						t.Errorf("%d requests were served, want 3", n)
					}
				})
			}
		})
	}
}

func TestWhatMayHaveRunAndIsNotIdempotentIsNotReplayed(t *testing.T) {
	for _, how := range []keepalive.How{keepalive.RSTByPeer, keepalive.FINByPeer} {
		overEach(t, protocols, func(t *testing.T, p protocol) {
			for _, m := range notIdempotent {
				t.Run(m.name, func(t *testing.T) {
					d := &mayDie{how: how}
					s := newSite(t, p, d.handle)
					s.get(s.server.URL)
					d.condemned.Store(1)
					err := s.send(m, s.server.URL)
					require.Error(t, err)
					if err := saysHow(err, false); err != nil {
						t.Error(err)
					}
					if n := s.served.Load(); n != 2 {
						t.Errorf("%d requests were served, want 2", n)
					}
				})
			}
		})
	}
}

func TestWhatDiesOnAFreshConnectionIsReplayedOnceIfItIsIdempotent(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		for m, want := range map[*message]int64{&aGET: 2, &aPOST: 1} {
			d := &mayDie{how: keepalive.RSTByPeer}
			s := newSite(t, p, d.handle)
			d.condemned.Store(100)
			err := s.send(*m, s.server.URL)
			require.Error(t, err)
			if err := saysHow(err, false); err != nil {
				t.Error(err)
			}
			finished := keepalive.FaultOf(err) == keepalive.Finished // as HTTP/2 may call a RST: then it dislikes us
			if n := s.served.Load(); n != want && !(finished && n == 1) {
				t.Errorf("%d %ss were served, want %d: %v", n, m.name, want, err)
			}
		}
	})
}

func TestNothingIsReplayedWhoseAnswerHasBegun(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		d := &mayDie{how: keepalive.RSTByPeer, half: true}
		s := newSite(t, p, d.handle)
		s.get(s.server.URL)
		d.condemned.Store(1)
		if err := s.send(aGET, s.server.URL); err == nil {
			t.Error("half an answer was taken for a whole one")
		}
		if n := s.served.Load(); n != 2 {
			t.Errorf("%d requests were served, want 2", n)
		}
	})
}

func TestARequestThatMayHaveRunIsReplayedNoMoreThanThreeTimes(t *testing.T) {
	overEach(t, []protocol{http1, http1TLS}, func(t *testing.T, p protocol) {
		const kept = 5
		var together sync.WaitGroup
		together.Add(kept)
		d := &mayDie{how: keepalive.RSTByPeer}
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/together" {
				together.Done()
				together.Wait()
			}
			d.handle(w, r)
		})
		var all sync.WaitGroup
		for range kept {
			all.Go(func() {
				if err := s.send(aGET, s.server.URL+"/together"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		s.dialed(kept)
		d.condemned.Store(kept)
		if err := s.send(aGET, s.server.URL); err == nil {
			t.Error("it was answered in the end")
		}
		if n := s.served.Load() - kept; n != 4 {
			t.Errorf("it was served %d times", n)
		}
	})
}

// A request that its server dies of would close them all.
func TestARequestThatDiesAgainAndAgainLeavesTheOtherConnectionsAlone(t *testing.T) {
	overEach(t, []protocol{http1, http1TLS}, func(t *testing.T, p protocol) {
		const kept = 8
		var together sync.WaitGroup
		together.Add(kept)
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/together":
				together.Done()
				together.Wait()
			case "/poison":
				sever(r, keepalive.RSTByPeer)
			}
			echo(w, r)
		})
		var all sync.WaitGroup
		for range kept {
			all.Go(func() {
				if err := s.send(aGET, s.server.URL+"/together"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := s.send(aGET, s.server.URL+"/poison"); err == nil {
			t.Error("the poison was answered")
		}
		for range kept - 4 {
			if err := s.send(aGET, s.server.URL); err != nil {
				t.Error(err)
			}
		}
		s.dialed(kept)
	})
}

func TestWhatWasNeverWrittenIsReplayed(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		for _, m := range append(notIdempotent, idempotent...) {
			t.Run(m.name, func(t *testing.T) {
				s := newSite(t, p, echo)
				s.get(s.server.URL)
				s.last.Load().broken.Store(true)
				if err := s.send(m, s.server.URL); err != nil {
					t.Error(err)
				}
				if n := s.served.Load(); n != 2 {
					t.Errorf("%d requests were served, want 2", n)
				}
			})
		}
	})
}

func TestConnectionsThatDiedIdleAreNoAffairOfTheRequests(t *testing.T) {
	overEach(t, []protocol{http1, http1TLS}, func(t *testing.T, p protocol) {
		const kept = 10
		var together sync.WaitGroup
		together.Add(kept)
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/together" {
				together.Done()
				together.Wait()
			}
			echo(w, r)
		})
		var broken []*brittle
		var mu sync.Mutex
		dial := s.dialer.Dial
		s.dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				broken = append(broken, c.(*brittle))
			}
			return c, err
		}
		var all sync.WaitGroup
		for range kept {
			all.Go(func() {
				if err := s.send(aGET, s.server.URL+"/together"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, b := range broken {
			b.broken.Store(true)
		}
		if err := s.send(aStream, s.server.URL); err != nil {
			t.Error(err)
		}
	})
}

func TestADialThatFailsIsNotReplayed(t *testing.T) {
	s := newSite(t, http1, echo)
	closed := localListener(t)
	address := closed.Addr().String()
	closed.Close()
	var dials atomic.Int64
	dial := s.dialer.Dial
	s.dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	body := newTape(strings.NewReader("hello"))
	_, err := s.transport.RoundTrip(s.request("POST", "http://"+address, body))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	if err := saysHow(err, true); err != nil {
		t.Error(err)
	}
	within(t, body.closed)
	if body.reads.Load() > 0 {
		t.Error("the body was read all the same")
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d dials", n)
	}
}

func TestTheErrorsAreThoseOfNetHTTP(t *testing.T) {
	d := &mayDie{how: keepalive.FINByPeer}
	s := newSite(t, http1, d.handle)
	s.get(s.server.URL)
	d.condemned.Store(1)
	if err := s.send(aPOST, s.server.URL); err != io.EOF {
		t.Errorf("got %T %v, want EOF as it is", err, err)
	}
}

// peersIn makes a lab whose server speaks HTTP/2 by frames, and a Transport to it.
func peersIn(t *testing.T, asked func(p *peer, stream uint32), f func(t *testing.T, tr *httpx.Transport, lab *lab), settings ...http2.Setting) {
	t.Helper()
	inLab(t, 20, func(t *testing.T, lab *lab) {
		peers := newPeers(t, lab.server.Listener, settings, asked)
		tr := lab.transport()
		tr.Protocols = only2()
		f(t, tr, lab)
		shut(t, tr)
		peers.stop()
	})
}

// sendTo sends a message in a lab.
func (m message) sendTo(t *testing.T, tr *httpx.Transport) error {
	t.Helper()
	err := (&site{T: t, transport: tr}).send(m, "http://20.1.2.3")
	if errors.Is(err, errNoEcho) {
		return nil // peers answer without a body
	}
	return err
}

func TestAStreamThatTheServerRefusesIsReplayed(t *testing.T) {
	for _, m := range []message{aGET, aPOST, aKeyedPOST} {
		t.Run(m.name, func(t *testing.T) {
			var streams atomic.Int64
			peersIn(t, func(p *peer, stream uint32) {
				if n := streams.Add(1); n == 2 || n == 3 {
					p.refuse(stream)
				} else {
					p.answer(stream)
				}
			}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
				for range 2 {
					if err := m.sendTo(t, tr); err != nil {
						t.Error(err)
					}
				}
				if n := streams.Load(); n != 4 {
					t.Errorf("%d streams, want 4", n)
				}
			})
		})
	}
}

func TestAServerThatRefusesForEverIsAskedAFewTimes(t *testing.T) {
	for _, welcome := range []int64{0, 1} { // requests that it answers before
		t.Run(fmt.Sprint("after ", welcome), func(t *testing.T) {
			var streams atomic.Int64
			peersIn(t, func(p *peer, stream uint32) {
				switch n := streams.Add(1) - welcome; {
				case n <= 0 || n > 1000: // it is no use to go on for ever
					p.answer(stream)
				default:
					p.refuse(stream)
				}
			}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
				for range welcome {
					require.NoError(t, aGET.sendTo(t, tr))
				}
				err := aPOST.sendTo(t, tr)
				if err := saysHow(err, true); err != nil {
					t.Error(err) // refused is: it has not run
				}
				if n := streams.Load() - welcome; n < 2 || n > 8 {
					t.Errorf("%d streams", n)
				}
			})
		})
	}
}

func TestWhatWasReadOfABodyThatCannotBeHadAgainIsNotReplayed(t *testing.T) {
	read := make(chan struct{}, 1)
	var streams atomic.Int64
	peersIn(t, func(p *peer, stream uint32) {
		streams.Add(1)
		<-read
		p.refuse(stream)
	}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
		body := newTape(readerFunc(func([]byte) (int, error) {
			select {
			case read <- struct{}{}:
			default:
			}
			return 0, io.EOF
		}))
		s := &site{T: t, transport: tr}
		req := s.request("POST", "http://20.1.2.3", body)
		if _, err := tr.RoundTrip(req); err == nil {
			t.Error("it was answered")
		}
		<-body.closed
		if n := streams.Load(); n != 1 {
			t.Errorf("%d streams", n)
		}
	})
}

func TestStreamsBeyondTheLastOneAreReplayedElsewhere(t *testing.T) {
	for _, m := range []message{aGET, aPOST} {
		t.Run(m.name, func(t *testing.T) {
			peersIn(t, func(p *peer, stream uint32) {
				if p.n == 0 && stream > 1 {
					p.goAway(1)
					return
				}
				p.answer(stream)
			}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
				for range 2 {
					if err := m.sendTo(t, tr); err != nil {
						t.Error(err)
					}
				}
				if s := lab.nat.Stats(); s.Opened != 2 {
					t.Errorf("%d connections, want 2", s.Opened)
				}
			})
		})
	}
}

// Streams up to the last one may have run, and the connection then ends.
func TestStreamsUpToTheLastOneAreReplayedOnlyIfIdempotent(t *testing.T) {
	for _, m := range []message{aGET, aPOST} {
		t.Run(m.name, func(t *testing.T) {
			var streams atomic.Int64
			peersIn(t, func(p *peer, stream uint32) {
				streams.Add(1)
				if p.n == 0 && stream > 1 {
					p.goAway(stream)
					p.Close()
					return
				}
				p.answer(stream)
			}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
				if err := m.sendTo(t, tr); err != nil {
					t.Fatal(err)
				}
				err := m.sendTo(t, tr)
				want := int64(3)
				if m.method == "POST" {
					want = 2
				}
				if (err == nil) != (m.method == "GET") || dialer.SafeToRetry(err) {
					t.Errorf("got %v", err)
				}
				if n := streams.Load(); n != want {
					t.Errorf("%d streams, want %d", n, want)
				}
			})
		})
	}
}

// The server says that it takes no more just when the request has got the connection.
func TestAConnectionThatIsNotUsableAnyMoreHasNotSentTheRequest(t *testing.T) {
	for _, m := range []message{aGET, aPOST, aStream} {
		t.Run(m.name, func(t *testing.T) {
			first := make(chan *peer, 1)
			peersIn(t, func(p *peer, stream uint32) {
				if p.n == 0 {
					first <- p
				}
				p.answer(stream)
			}, func(t *testing.T, tr *httpx.Transport, lab *lab) {
				if err := m.sendTo(t, tr); err != nil {
					t.Fatal(err)
				}
				p := <-first
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
					if info.Reused {
						p.goAway(1)
						synctest.Wait() // until it is known
					}
				}})
				body := newTape(bytes.NewReader(nil))
				req, err := http.NewRequestWithContext(ctx, m.method, "http://20.1.2.3", body)
				require.NoError(t, err)
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				resp.Body.Close()
			})
		})
	}
}

// The worst that a server can do to those who want each POST to run once: it answers, and
// ends the connection without a word, when the next request may be on its way.
func TestNoPOSTRunsTwiceWhateverBecomesOfItsConnection(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		var mu sync.Mutex
		ran := make(map[string]int)
		var turn atomic.Int64
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			id, err := io.ReadAll(r.Body)
			if err != nil {
				return // it was cut off before
			}
			mu.Lock()
			ran[string(id)]++
			mu.Unlock()
			switch turn.Add(1) % 7 {
			case 0:
				sever(r, keepalive.FINByPeer)
			case 1:
				sever(r, keepalive.RSTByPeer)
			case 2:
				go sever(r, keepalive.FINByPeer) // about when the answer goes out
			case 3:
				w.Header().Set("Connection", "close")
			}
		})
		var all sync.WaitGroup
		var answered atomic.Int64
		for g := range 8 {
			all.Go(func() {
				for i := range 40 {
					id := fmt.Sprint(g, "-", i)
					resp, err := s.client.Post(s.server.URL, "text/plain", strings.NewReader(id))
					mu.Lock()
					n := ran[id]
					mu.Unlock()
					switch {
					case err == nil:
						answered.Add(1)
						resp.Body.Close()
						if n != 1 {
							t.Errorf("%s was answered and ran %d times", id, n)
						}
					case dialer.SafeToRetry(err) && n > 0:
						t.Errorf("%s ran, and its error says that it did not: %v", id, err)
					}
				}
			})
		}
		all.Wait()
		for id, n := range ran {
			if n > 1 {
				t.Errorf("%s ran %d times", id, n)
			}
		}
		if answered.Load() == 0 {
			t.Error("none was answered")
		}
	})
}
