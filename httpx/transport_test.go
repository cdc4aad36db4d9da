//lint:file-ignore SA1019 Request.Cancel is still what http.Client uses
package httpx_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
)

// echo answers with what was sent.
func echo(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }

func TestEachProtocolCarriesRequestsOnOneConnection(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		for range 3 {
			req := s.request("POST", s.server.URL, strings.NewReader("hello"))
			resp, err := s.transport.RoundTrip(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			if resp.Body.Close(); err != nil || string(body) != "hello" {
				t.Errorf("got %q, %v", body, err)
			}
			major := 1
			if p.two {
				major = 2
			}
			if resp.ProtoMajor != major {
				t.Errorf("spoke %s", resp.Proto)
			}
			if p.tls != (resp.TLS != nil) {
				t.Errorf("TLS is %v", resp.TLS)
			}
			if resp.Request != req {
				t.Error("the response is to another request")
			}
		}
		s.dialed(1)
	})
}

func TestAnswersWithoutABodyFreeTheirConnectionAtOnce(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/204":
				w.WriteHeader(http.StatusNoContent)
			case "/304":
				w.WriteHeader(http.StatusNotModified)
			case "/head":
				w.Header().Set("Content-Length", "1000000")
			}
		})
		s.transport.MaxConns = 1
		for _, c := range []struct{ method, path string }{{"GET", "/204"}, {"GET", "/304"}, {"HEAD", "/head"}, {"GET", "/200"}} {
			resp, err := s.client.Do(s.request(c.method, s.server.URL+c.path, nil))
			require.NoError(t, err)
			_ = resp.Body // nobody closes it
		}
		s.get(s.server.URL)
		s.dialed(1)
	})
}

func TestTrailersGoBothWays(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
			w.Header().Set("X-Sum", r.Trailer.Get("X-Sum")+" and back")
		})
		req := s.request("POST", s.server.URL, nil)
		req.ContentLength = -1
		req.Trailer = http.Header{"X-Sum": nil}
		req.Body = io.NopCloser(io.MultiReader(strings.NewReader("hello"), readerFunc(func([]byte) (int, error) {
			req.Trailer.Set("X-Sum", "five")
			return 0, io.EOF
		})))
		resp, body := s.do(s.client, req)
		if got := resp.Trailer.Get("X-Sum"); body != "hello" || got != "five and back" {
			t.Errorf("got %q, trailer %q", body, got)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestEarlyHintsReachTheTrace(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		})
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", header.Get("Link")))
				return nil
			},
		})
		s.do(s.client, s.request("GET", s.server.URL, nil).WithContext(ctx))
		if want := "103 </style.css>; rel=preload"; len(hints) != 1 || hints[0] != want {
			t.Errorf("got %q, want %q", hints, want)
		}
	})
}

func TestABodyWaitsUntilTheServerExpectsIt(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/refused" {
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			echo(w, r)
		})
		s.transport.ExpectContinueTimeout = soon
		for path, want := range map[string]struct {
			status int
			reads  bool
		}{"/": {200, true}, "/refused": {417, false}} {
			body := newTape(strings.NewReader("hello"))
			req := s.request("POST", s.server.URL+path, body)
			req.Header.Set("Expect", "100-continue")
			start := time.Now()
			resp, _ := s.do(s.client, req)
			if resp.StatusCode != want.status || body.reads.Load() > 0 != want.reads {
				t.Errorf("%s: status %d after %d reads of the body", path, resp.StatusCode, body.reads.Load())
			}
			if took := time.Since(start); took >= soon {
				t.Errorf("%s: it took %v", path, took)
			}
			within(t, body.closed)
		}
	})
}

func TestABodyThatNobodySaysToExpectIsSentAfterAWhile(t *testing.T) {
	s := newSite(t, http1, func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack() // so that nobody says "100 Continue"
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if got, err := io.ReadAll(io.LimitReader(rw, 5)); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	s.transport.ExpectContinueTimeout = 20 * time.Millisecond
	req := s.request("POST", s.server.URL, strings.NewReader("hello"))
	req.Header.Set("Expect", "100-continue")
	start := time.Now()
	s.do(s.client, req)
	if took := time.Since(start); took < s.transport.ExpectContinueTimeout || took > soon {
		t.Errorf("it took %v", took)
	}
}

func TestGzipIsUndoneUnlessSomebodyWantsIt(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, "hello")
	z.Close()
	zipped := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			io.WriteString(w, "hello")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	}
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, zipped)
		resp, body := s.get(s.server.URL)
		if body != "hello" || !resp.Uncompressed || resp.ContentLength != -1 || resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("got %q, uncompressed: %t, length %d, %v", body, resp.Uncompressed, resp.ContentLength, resp.Header)
		}
		req := s.request("GET", s.server.URL, nil)
		req.Header.Set("Accept-Encoding", "gzip")
		if _, body := s.do(s.client, req); body != packed.String() {
			t.Errorf("who asked for gzip got %q", body)
		}
		s.dialed(1)
	})
	t.Run("disabled", func(t *testing.T) {
		s := newSite(t, http1, zipped)
		s.transport.DisableCompression = true
		if resp, body := s.get(s.server.URL); body != "hello" || resp.Uncompressed {
			t.Errorf("got %q, uncompressed: %t", body, resp.Uncompressed)
		}
	})
}

func TestAStreamGoesBothWaysAtATime(t *testing.T) {
	overEach(t, []protocol{http2TLS, h2c}, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				fmt.Fprintln(w, lines.Text(), "back")
				w.(http.Flusher).Flush()
			}
		})
		out, in := io.Pipe()
		resp, err := s.client.Do(s.request("POST", s.server.URL, out))
		require.NoError(t, err)
		defer resp.Body.Close()
		answers := bufio.NewScanner(resp.Body)
		for i := range 3 {
			fmt.Fprintln(in, "line", i)
			if want := fmt.Sprint("line ", i, " back"); !answers.Scan() || answers.Text() != want {
				t.Fatalf("got %q, want %q", answers.Text(), want)
			}
		}
		in.Close()
		if answers.Scan() || answers.Err() != nil {
			t.Errorf("after the end: %q, %v", answers.Text(), answers.Err())
		}
	})
}

func TestCookiesAndRedirectsAreFollowed(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/login":
				http.SetCookie(w, &http.Cookie{Name: "who", Value: "me"})
				http.Redirect(w, r, "/home", http.StatusSeeOther)
			case "/moved":
				http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
			case "/home":
				c, err := r.Cookie("who")
				fmt.Fprint(w, r.Method, " ", c, " ", err)
			case "/echo":
				echo(w, r)
			}
		})
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		s.client.Jar = jar
		if _, body := s.do(s.client, s.request("POST", s.server.URL+"/login", strings.NewReader("secret"))); body != "GET who=me <nil>" {
			t.Errorf("got %q", body)
		}
		resp, body := s.do(s.client, s.request("PUT", s.server.URL+"/moved", strings.NewReader("hello")))
		if body != "hello" || resp.Request.URL.Path != "/echo" {
			t.Errorf("got %q from %s", body, resp.Request.URL.Path)
		}
		s.dialed(1)
	})
}

// hang answers /body with headers alone, and everything else not at all, until the
// client goes.
func hang(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/body" {
		w.Write([]byte("the beginning"))
		w.(http.Flusher).Flush()
	}
	<-r.Context().Done()
	panic(http.ErrAbortHandler) // or the client may see the end of the body before that of its connection
}

func TestTheTimeoutOfAClientIsNamedInItsError(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, hang)
		s.client.Timeout = time.Second // long enough for a busy machine to open a connection
		for path, want := range map[string]string{"/": "Client.Timeout exceeded while awaiting headers", "/body": "Client.Timeout or context cancellation while reading body"} {
			resp, err := s.client.Get(s.server.URL + path)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", path, err, want)
			}
		}
	})
}

func TestARequestEndsWithItsContextAndTellsTheCause(t *testing.T) {
	for _, path := range []string{"/", "/body"} {
		t.Run(path, func(t *testing.T) {
			overEach(t, protocols, func(t *testing.T, p protocol) {
				arrived := make(chan struct{}, 1)
				s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
					arrived <- struct{}{}
					hang(w, r)
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if path == "/" {
					go func() {
						<-arrived
						cancel(errTest)
					}()
				}
				resp, err := s.transport.RoundTrip(s.request("GET", s.server.URL+path, nil).WithContext(ctx))
				if err == nil {
					cancel(errTest)
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if !errors.Is(err, errTest) {
					t.Errorf("got %v", err)
				}
				if dialer.SafeToRetry(err) {
					t.Error("what has arrived is said to be safe to send again")
				}
			})
		})
	}
}

func TestARequestEndsWhenItsCancelIsClosed(t *testing.T) {
	for _, path := range []string{"/", "/body"} {
		t.Run(path, func(t *testing.T) {
			overEach(t, protocols, func(t *testing.T, p protocol) {
				arrived := make(chan struct{}, 1)
				s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
					arrived <- struct{}{}
					hang(w, r)
				})
				cancel := make(chan struct{})
				req := s.request("GET", s.server.URL+path, nil)
				req.Cancel = cancel
				if path == "/" {
					go func() {
						<-arrived
						close(cancel)
					}()
				}
				resp, err := s.transport.RoundTrip(req)
				if err == nil {
					close(cancel)
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if err == nil || !strings.Contains(err.Error(), "request canceled") {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestAnAnswerHasATimeLimitOfItsOwn(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, hang)
		s.transport.ResponseHeaderTimeout = 20 * time.Millisecond
		_, err := s.transport.RoundTrip(s.request("GET", s.server.URL, nil))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || dialer.SafeToRetry(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnAnswerMayNotHaveHeadersWithoutEnd(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 100_000))
		})
		s.transport.MaxResponseHeaderBytes = 50_000
		if resp, err := s.client.Get(s.server.URL); err == nil {
			resp.Body.Close()
			t.Error("they were taken")
		}
	})
}

func TestWhatCannotBeSentCostsNoConnection(t *testing.T) {
	s := newSite(t, http1, echo)
	for name, spoil := range map[string]func(*http.Request){
		"no URL":                func(r *http.Request) { r.URL = nil },
		"no header":             func(r *http.Request) { r.Header = nil },
		"no host":               func(r *http.Request) { r.URL.Host = "" },
		"unknown scheme":        func(r *http.Request) { r.URL.Scheme = "gopher" },
		"invalid method":        func(r *http.Request) { r.Method = "GET IT" },
		"invalid header name":   func(r *http.Request) { r.Header["A B"] = []string{"c"} },
		"invalid header value":  func(r *http.Request) { r.Header["A"] = []string{"a secret\n"} },
		"invalid trailer value": func(r *http.Request) { r.Trailer = http.Header{"A": {"a secret\n"}} },
	} {
		t.Run(name, func(t *testing.T) {
			body := newTape(strings.NewReader("hello"))
			req := s.request("POST", s.server.URL, body)
			spoil(req)
			_, err := s.transport.RoundTrip(req)
			require.Error(t, err)
			if err := saysHow(err, true); err != nil {
				t.Error(err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows what may be a secret: %v", err)
			}
			within(t, body.closed)
		})
	}
	s.dialed(0)
}

func TestATransportSaysWhatIsWrongWithIt(t *testing.T) {
	for want, tr := range map[string]*httpx.Transport{
		"Transport.MaxConns is -1":               {MaxConns: -1},
		"Transport.MaxIdle is -1s":               {MaxIdle: -time.Second},
		"Transport.MaxLife is -1s":               {MaxLife: -time.Second},
		"Transport.TLSHandshakeTimeout is -1s":   {TLSHandshakeTimeout: -time.Second},
		"Transport.ResponseHeaderTimeout is -1s": {ResponseHeaderTimeout: -time.Second},
		"Transport.ExpectContinueTimeout is -1s": {ExpectContinueTimeout: -time.Second},
		"Transport.MaxResponseHeaderBytes is -1": {MaxResponseHeaderBytes: -1},
		"Retry.Attempts is -1":                   {Retry: &httpx.Retry{Attempts: -1}},
	} {
		body := newTape(strings.NewReader("hello"))
		req, err := http.NewRequest("POST", "http://origin.example", body)
		require.NoError(t, err)
		if _, err := tr.RoundTrip(req); err == nil || !strings.Contains(err.Error(), want) || !dialer.SafeToRetry(err) {
			t.Errorf("got %v, want %q", err, want)
		}
		within(t, body.closed)
		tr.CloseIdleConnections()
		shut(t, tr)
	}
}

func TestTheZeroTransportWorks(t *testing.T) {
	t.Setenv("HTTP_PROXY", "") // net/http reads it once; loopback has no proxy in any case
	s := newSite(t, http1, echo)
	var tr httpx.Transport
	defer shut(t, &tr)
	if _, body := s.do(&http.Client{Transport: &tr}, s.request("PUT", s.server.URL, strings.NewReader("hello"))); body != "hello" {
		t.Errorf("got %q", body)
	}
	s.dialed(0) // by the dialer of the site
}

func TestAClosedTransportSendsNothing(t *testing.T) {
	s := newSite(t, http1, echo)
	s.get(s.server.URL)
	s.shut(s.transport)
	body := newTape(strings.NewReader("hello"))
	_, err := s.transport.RoundTrip(s.request("POST", s.server.URL, body))
	if err := saysHow(err, true); err != nil {
		t.Error(err)
	}
	within(t, body.closed)
	s.shut(s.transport) // once more
	s.dialed(1)
	if n := s.served.Load(); n != 1 {
		t.Errorf("%d requests were served", n)
	}
}

func TestCloseWaitsForBodiesAsLongAsItsContextLasts(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		finish := make(chan struct{})
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-finish
			io.WriteString(w, "the end")
		})
		resp, err := s.client.Get(s.server.URL)
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errTest)
		if err := s.transport.Close(ctx); !errors.Is(err, errTest) || !strings.Contains(err.Error(), "1 requests") {
			t.Errorf("got %v", err)
		}
		closed := make(chan error)
		go func() { closed <- s.transport.Close(t.Context()) }()
		select {
		case err := <-closed:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(20 * time.Millisecond): // for nothing to happen
		}
		close(finish)
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "the end" {
			t.Errorf("got %q, %v", body, err)
		}
		if resp.Body.Close(); within(t, closed) != nil {
			t.Error("Close failed")
		}
	})
}

// switches is a server's side of a protocol of its own: it sends back each line.
func switches(w http.ResponseWriter, r *http.Request) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		io.WriteString(c, line)
	}
}

func TestAConnectionThatSwitchesProtocolsIsItsCallersFromThenOn(t *testing.T) {
	overEach(t, []protocol{http1, http1TLS, http2TLS}, func(t *testing.T, p protocol) {
		s := newSite(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/switch" {
				switches(w, r)
			}
		})
		s.get(s.server.URL)
		req := s.request("GET", s.server.URL+"/switch", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "lines")
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := s.client.Do(req.WithContext(ctx))
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		conn, ok := resp.Body.(io.ReadWriteCloser)
		require.True(t, ok, "a body that can be written to")
		cancel() // it is the request's, and that is over
		s.shut(s.transport)
		answers := bufio.NewReader(conn)
		for i := range 3 {
			fmt.Fprintln(conn, "line", i)
			if got, err := answers.ReadString('\n'); got != fmt.Sprintln("line", i) {
				t.Errorf("got %q, %v", got, err)
			}
		}
		if a := s.ledger.Accounts(); len(a) != 1 || a[0].Active != 1 {
			t.Errorf("booked is %v", a)
		}
		conn.Close()
	})
}

func TestAnUpgradeThatIsRefusedIsAnAnswerLikeAnyOther(t *testing.T) {
	s := newSite(t, http2TLS, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	for range 2 {
		req := s.request("GET", s.server.URL, nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "lines")
		if _, body := s.do(s.client, req); body != "HTTP/1.1" {
			t.Errorf("got %q", body)
		}
	}
	s.dialed(1)
}

func TestAHostMayHaveAnyForm(t *testing.T) {
	s := newSite(t, http1, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	port := s.server.Listener.Addr().(*net.TCPAddr).Port
	var asked []string
	s.dialer.Resolver = resolverFunc(func(host string) { asked = append(asked, host) })
	for _, host := range []string{"a.example", "bücher.example"} {
		s.get(fmt.Sprintf("http://%s:%d", host, port))
	}
	slices.Sort(asked)
	if want := []string{"a.example", "xn--bcher-kva.example"}; !slices.Equal(slices.Compact(asked), want) {
		t.Errorf("looked up were %q, want %q", asked, want)
	}
}

func TestTheRequestOfTheCallerIsNotChanged(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		body := newTape(strings.NewReader("hello"))
		req := s.request("POST", s.server.URL, body)
		header, u := maps.Clone(req.Header), *req.URL
		s.do(s.client, req)
		if !maps.EqualFunc(header, req.Header, slices.Equal) || *req.URL != u || req.Body != io.ReadCloser(body) {
			t.Errorf("it is %v now", req)
		}
	})
}
