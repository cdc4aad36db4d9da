package httpx_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive"
)

// answersWhenTold is a handler that tells of each request and answers it when told to.
type answersWhenTold struct {
	arrived chan struct{}
	answer  chan string
}

func newAnswers() *answersWhenTold {
	return &answersWhenTold{make(chan struct{}, 100), make(chan string)}
}

func (a *answersWhenTold) handle(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/wait" {
		return
	}
	a.arrived <- struct{}{}
	if body, ok := <-a.answer; ok {
		w.Write([]byte(body))
	}
}

// cancelled sends a GET that is called off when it has arrived.
func (a *answersWhenTold) cancelled(s *site) {
	s.Helper()
	ctx, cancel := context.WithCancelCause(s.Context())
	go func() {
		<-a.arrived
		cancel(errTest)
	}()
	_, err := s.client.Do(s.request("GET", s.server.URL+"/wait", nil).WithContext(ctx))
	if !errors.Is(err, errTest) {
		s.Errorf("got %v", err)
	}
}

func TestACanceledGETWhoseAnswerComesInTimeKeepsItsConnection(t *testing.T) {
	for _, body := range []string{"", "a late answer"} {
		overEach(t, []protocol{http1, http1TLS}, func(t *testing.T, p protocol) {
			a := newAnswers()
			s := newSite(t, p, a.handle)
			s.transport.FinishWithin = soon
			s.transport.MaxConns = 1 // the next request waits until the first is done with
			a.cancelled(s)
			a.answer <- body
			s.get(s.server.URL)
			s.dialed(1)
		})
	}
}

func TestACanceledGETWhoseAnswerDoesNotComeInTimeEndsByReset(t *testing.T) {
	for _, within := range []time.Duration{-1, 10 * time.Millisecond} {
		overEach(t, []protocol{http1, http1TLS}, func(t *testing.T, p protocol) {
			a := newAnswers()
			s := newSite(t, p, a.handle)
			s.transport.FinishWithin = within
			a.cancelled(s)
			if e := s.nextEnd(); e.How != keepalive.RSTByUs {
				t.Errorf("ended by %v", e.How)
			}
			close(a.answer)
			s.get(s.server.URL)
			s.dialed(2)
		})
	}
}

func TestABodyThatIsClosedEarlySavesItsConnectionIfTheRestIsShort(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Path[1:])
			if r.URL.RawQuery == "flush" { // then nobody knows how long it is
				w.(http.Flusher).Flush()
			}
			w.Write(make([]byte, n))
		})
		closeEarly := func(path string) {
			resp, err := s.client.Get(s.server.URL + path)
			require.NoError(t, err)
			io.ReadFull(resp.Body, make([]byte, 10))
			resp.Body.Close()
		}
		for range 3 {
			closeEarly("/100000")
			closeEarly("/100000?flush")
		}
		s.dialed(1)
		closeEarly("/10000000")
		closeEarly("/10")
		want := int64(2)
		if p.two {
			want = 1 // a stream ends without its connection
		}
		s.dialed(want)
	})
}

func TestABodyWithoutEndDoesNotHoldItsCloserUp(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		for _, endless := range []string{"/silent", "/loud"} {
			s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				for r.URL.Path == "/loud" {
					if _, err := w.Write(make([]byte, 10_000)); err != nil {
						return
					}
				}
				<-r.Context().Done()
			})
			resp, err := s.client.Get(s.server.URL + endless)
			require.NoError(t, err)
			start := time.Now()
			resp.Body.Close()
			if took := time.Since(start); took > 500*time.Millisecond {
				t.Errorf("%s: Close took %v, which is bounded by 50 ms", endless, took)
			}
		}
	})
}

// A logbook is where slog writes.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// forget makes a request whose body nobody closes.
func (s *site) forget() {
	s.Helper()
	resp, err := s.client.Get(s.server.URL + "/body?secret=1")
	require.NoError(s.T, err)
	_ = resp
}

func TestABodyThatIsForgottenIsFoundAndTold(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, hang)
		var log logbook
		s.transport.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s.transport.MaxConns = 1
		for n := 1; n <= 2; n++ {
			s.forget()
			for deadline := time.Now().Add(soon); strings.Count(log.String(), "forgotten") < n; runtime.Gosched() {
				if runtime.GC(); time.Now().After(deadline) { // which finds it in its own time
					t.Fatalf("nobody noticed number %d", n)
				}
			}
		}
		first, second, _ := strings.Cut(log.String(), "\n")
		if strings.Contains(first, "saving_test.go") || !strings.Contains(second, "saving_test.go") || !strings.Contains(second, "forget") {
			t.Errorf("the place is told from the second one on; got\n%s", log.String())
		}
		if strings.Contains(log.String(), "secret") {
			t.Errorf("a URL is in the log:\n%s", log.String())
		}
		s.forget()
		got := make(chan *http.Response)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			resp, err := s.client.Do(s.request("GET", s.server.URL+"/body", nil).WithContext(ctx)) // on the only connection there may be
			if err != nil {
				t.Error(err)
			}
			got <- resp
		}()
		for done := false; !done; runtime.Gosched() {
			select {
			case resp := <-got:
				if resp != nil {
					resp.Body.Close()
				}
				done = true
			default:
				runtime.GC()
			}
		}
		if n := strings.Count(log.String(), "forgotten"); n != 2 {
			t.Errorf("of three, two of which were made in one place, %d are told", n)
		}
	})
}

func TestCloseDoesNotWaitForBodiesThatWereForgotten(t *testing.T) {
	s := newSite(t, http1, hang)
	s.forget()
	closed := make(chan error)
	go func() { closed <- s.transport.Close(context.Background()) }()
	for deadline := time.Now().Add(soon); ; runtime.GC() {
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("it waits for ever")
		}
	}
}

// Close must not be told twice that an exchange is over: then it would not wait for another.
func TestCloseWaitsForAllExchangesAfterOneWasCanceled(t *testing.T) {
	a := newAnswers()
	s := newSite(t, http1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			hang(w, r)
			return
		}
		a.handle(w, r)
	})
	other := httpx.NewClient(s.dialer).Transport.(*httpx.Transport) // so that the connections stay
	other.Proxy = httpx.NoProxy
	s.do(&http.Client{Transport: other}, s.request("GET", s.server.URL, nil))
	defer s.shut(other)
	s.transport.FinishWithin = soon
	a.cancelled(s)
	a.answer <- "late"
	s.get(s.server.URL)
	resp, err := s.client.Get(s.server.URL + "/body")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.transport.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close did not wait for an open body: %v", err)
	}
	resp.Body.Close()
}
