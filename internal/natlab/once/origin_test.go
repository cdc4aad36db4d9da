package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// A house is an origin on loopback.
type house struct {
	*origin
	tls *tls.Config

	mu        sync.Mutex // guards addresses
	addresses map[string]string
}

func onLoopback(t *testing.T) *house {
	t.Helper()
	cert, root, err := certify()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{tls: clientTLS(root), addresses: make(map[string]string)}
	h.origin = newOrigin(cert, func(port string) (net.Listener, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		address := h.addresses[port]
		if address == "" {
			address = "127.0.0.1:0"
		}
		ln, err := net.Listen("tcp", address)
		if err == nil {
			h.addresses[port] = ln.Addr().String()
		}
		return ln, err
	})
	if err := h.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.kill(true) })
	return h
}

// client returns one of net/http's.
func (h *house) client(t *testing.T, over string) *client {
	c := &client{over: over, base: "https://" + h.addresses[":443"]}
	if over == http1 {
		c.base = "http://" + h.addresses[":80"]
	}
	tr := &http.Transport{TLSClientConfig: h.tls.Clone(), Protocols: protocols(over)}
	t.Cleanup(tr.CloseIdleConnections)
	c.Transport = tr
	return c
}

func send(t *testing.T, c *client, id string, body io.Reader) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/count", body)
	if err != nil {
		t.Fatal(err)
	}
	return c.answered(req, id)
}

func TestTheCountsOutliveTheOrigin(t *testing.T) {
	for _, over := range three {
		for _, reset := range []bool{true, false} {
			h := onLoopback(t)
			c := h.client(t, over)
			for range 2 {
				if err := send(t, c, "a", body("a", true)); err != nil {
					t.Fatal(over, err)
				}
			}
			h.kill(reset)
			if h.runs() {
				t.Error(over, "it runs on")
			}
			if err := send(t, c, "b", body("b", false)); !errors.Is(err, syscall.ECONNREFUSED) && !isReset(err) {
				t.Errorf("%s: asked while it was down: %v", over, err)
			}
			if err := h.start(); err != nil {
				t.Fatal(err)
			}
			c = h.client(t, over)
			if err := send(t, c, "a", body("a", false)); err != nil {
				t.Errorf("%s: after the restart: %v", over, err)
			}
			if a, b := h.count("a"), h.count("b"); a != 3 || b != 0 || h.wrong() != 0 {
				t.Errorf("%s: counted %d, %d, wrong %d", over, a, b, h.wrong())
			}
		}
	}
}

// isReset reports whether a connection ended under a request: by RST, or by the FIN of an
// origin that is gone.
func isReset(err error) bool {
	return slices.ContainsFunc([]error{syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed},
		func(end error) bool { return errors.Is(err, end) })
}

func TestARequestCountsThoughItsBodyNeverComes(t *testing.T) {
	h := onLoopback(t)
	r, w := io.Pipe()
	over := make(chan error, 1)
	go func() { over <- send(t, h.client(t, http1), "a", r) }()
	io.WriteString(w, "a") // it is read when the header was sent
	for h.count("a") == 0 {
		time.Sleep(time.Millisecond)
	}
	if !h.reset(netip.MustParseAddr("127.0.0.1")) {
		t.Error("there is no connection to reset")
	}
	w.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-over; err == nil || h.count("a") != 1 {
		t.Errorf("%v, counted %d", err, h.count("a"))
	}
}

func TestABodyOfAnotherRequestIsNoticed(t *testing.T) {
	h := onLoopback(t)
	if err := send(t, h.client(t, http2), "a", strings.NewReader("b\n")); err != nil || h.wrong() != 1 {
		t.Errorf("%v, wrong %d", err, h.wrong())
	}
}

func TestAnAnswerToAnotherRequestIsStrange(t *testing.T) {
	h := onLoopback(t)
	c := h.client(t, http1)
	c.Transport = renamer{c.Transport}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.answered(req, "a"); !errors.Is(err, errStrange) {
		t.Error(err)
	}
}

// A renamer sends another request than it was asked to.
type renamer struct{ http.RoundTripper }

func (r renamer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set(idField, "somebody else")
	return r.RoundTripper.RoundTrip(req)
}

func TestAnAnswerTakesAsLongAsItIsAskedTo(t *testing.T) {
	h := onLoopback(t)
	s := newStream(h.client(t, http1))
	begin := time.Now()
	s.ask(begin, 50*time.Millisecond)
	if l := s.Between(begin, never); l.All() != 1 || l.Failed > 0 || l.Quantile(1).Value < 0 || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("%+v after %v", l, time.Since(begin))
	}
	if l := s.Between(begin, begin); l.All() != 0 {
		t.Errorf("before it was asked: %+v", l)
	}
}

// lab skips the test where there can be none.
func lab(t *testing.T, who ...string) *stage {
	natlab.Need(t, natlab.Config{Path: work.Path()})
	st, err := open(work.Path().Idle, three, who...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func TestEachFaultEndsAConnectionOfEachClient(t *testing.T) {
	for _, k := range []work.Kind{forget, sever, reset} {
		st := lab(t, ours, tuned)
		for _, c := range st.clients {
			if err := send(t, c, "a", body("a", false)); err != nil {
				t.Fatal(c.who, c.over, err)
			}
		}
		var was [][]*net.TCPConn
		for _, c := range st.clients {
			was = append(was, st.open(c.at))
		}
		st.strikes = 3 // the fourth time, HTTP/2 is not spared
		if n := st.strike(k); n != len(st.clients) {
			t.Errorf("fault %d struck %d of %d", k, n, len(st.clients))
		}
		for i, c := range st.clients {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/count", body("b", true))
			if err != nil {
				t.Fatal(err)
			}
			err = c.answered(req, "b")
			cancel()
			if k == forget {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s, %s: its flow was forgotten, and %v", c.who, c.over, err)
				}
				for _, flow := range was[i] {
					cut(flow, true) // its owner would wait for an answer to its FIN
				}
				continue
			}
			// An acknowledgement that was late may have met the RST before the request.
			for until := time.Now().Add(5 * time.Second); len(was[i]) != 1 || !closed(was[i][0]); time.Sleep(time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("%s, %s: fault %d has not ended the one of %d connections", c.who, c.over, k, len(was[i]))
				}
			}
		}
	}
}

func TestTheOriginComesBackFromEveryOutage(t *testing.T) {
	st := lab(t, ours)
	for _, k := range []work.Kind{killRST, killFIN, vanish} {
		for i, k := range []work.Kind{k, restart, restart} {
			n, err := st.do(k)
			if err != nil {
				t.Fatal(err)
			}
			if want := 1 - i/2; n != want { // whoever runs is not restarted
				t.Errorf("fault %d struck %d times, want %d", k, n, want)
			}
		}
		// A new connection each time: what the old ones do is what is measured.
		c := st.client(tuned, http2, st.Server(0))
		if err := send(t, c, "a", body("a", false)); err != nil {
			t.Errorf("after fault %d: %v", k, err)
		}
		c.close()
	}
	if n := st.origin.count("a"); n != 3 {
		t.Errorf("counted %d", n)
	}
}
