package httpx_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/natwise/natwise/dialer"
)

// A diary is what the hooks of a trace were told, in order.
type diary struct {
	mu      sync.Mutex // guards the fields below
	entries []string
	got     []httptrace.GotConnInfo
}

func (d *diary) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, what)
}

// read returns what was noted so far.
func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

func (d *diary) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(hostPort string) { d.note("GetConn " + hostPort) },
		GotConn: func(info httptrace.GotConnInfo) {
			d.note("GotConn")
			d.mu.Lock()
			defer d.mu.Unlock()
			d.got = append(d.got, info)
		},
		DNSStart:          func(info httptrace.DNSStartInfo) { d.note("DNSStart " + info.Host) },
		DNSDone:           func(info httptrace.DNSDoneInfo) { d.note("DNSDone") },
		ConnectStart:      func(network, addr string) { d.note("ConnectStart " + network + " " + addr) },
		ConnectDone:       func(network, addr string, err error) { d.note("ConnectDone") },
		TLSHandshakeStart: func() { d.note("TLSHandshakeStart") },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			d.note("TLSHandshakeDone " + state.NegotiatedProtocol)
		},
		WroteHeaders:         func() { d.note("WroteHeaders") },
		WroteRequest:         func(httptrace.WroteRequestInfo) { d.note("WroteRequest") },
		GotFirstResponseByte: func() { d.note("GotFirstResponseByte") },
		PutIdleConn:          func(err error) { d.note("PutIdleConn") },
	})
}

func TestTheTraceIsThatOfNetHTTP(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		s.dialer.Resolver = nil // net's, which has hooks
		s.transport.TLS = unchecked(s.transport.TLS)
		url := s.named("localhost")
		addr := s.server.Listener.Addr().String()
		hostPort := strings.Replace(addr, "127.0.0.1", "localhost", 1)

		var first, second diary
		s.do(s.client, s.request("GET", url, nil).WithContext(first.trace(t.Context())))
		s.do(s.client, s.request("GET", url, nil).WithContext(second.trace(t.Context())))

		connect := []string{"DNSStart localhost", "DNSDone", "ConnectStart tcp " + addr, "ConnectDone"}
		if p.tls {
			alpn := "http/1.1"
			if p.two {
				alpn = "h2"
			}
			connect = append(connect, "TLSHandshakeStart", "TLSHandshakeDone "+alpn)
		}
		exchange := []string{"GotConn", "WroteHeaders", "WroteRequest", "GotFirstResponseByte"}
		if !p.two {
			exchange = append(exchange, "PutIdleConn")
		}
		get := []string{"GetConn " + hostPort}
		if got, want := settled(first.read()), settled(slices.Concat(get, connect, exchange)); !slices.Equal(got, want) {
			t.Errorf("the first request:\n got %q\nwant %q", got, want)
		}
		if got, want := settled(second.read()), settled(slices.Concat(get, exchange)); !slices.Equal(got, want) {
			t.Errorf("the second one:\n got %q\nwant %q", got, want)
		}
	})
}

// settled sorts what follows GotConn: net/http writes and reads in two goroutines.
func settled(entries []string) []string {
	slices.Sort(entries[slices.Index(entries, "GotConn")+1:])
	return entries
}

// unchecked does not care for the names in certificates.
func unchecked(c *tls.Config) *tls.Config {
	if c = c.Clone(); c != nil {
		c.InsecureSkipVerify = true
	}
	return c
}

func TestGotConnShowsTheRealConnection(t *testing.T) {
	overEach(t, protocols, func(t *testing.T, p protocol) {
		s := newSite(t, p, echo)
		var d diary
		for range 2 {
			s.do(s.client, s.request("GET", s.server.URL, nil).WithContext(d.trace(t.Context())))
		}
		require.Len(t, d.got, 2)
		fresh, kept := d.got[0], d.got[1]
		if fresh.Reused || fresh.WasIdle {
			t.Errorf("of a fresh connection: %+v", fresh)
		}
		if !kept.Reused || !kept.WasIdle || kept.IdleTime <= 0 {
			t.Errorf("of a kept one: %+v", kept)
		}
		if fresh.Conn != kept.Conn {
			t.Error("it is not the same connection")
		}
		flow, ours := dialer.Unwrap(kept.Conn)
		if !ours || flow.BytesRead() == 0 || flow.RemoteAddr().String() != s.server.Listener.Addr().String() {
			t.Errorf("below it is %v", flow)
		}
		tc, secured := kept.Conn.(*tls.Conn)
		if secured != p.tls || secured && !tc.ConnectionState().HandshakeComplete {
			t.Errorf("it is a %T", kept.Conn)
		}
	})
}

func TestGotConnTellsForHowLongTheConnectionWasIdle(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.server.Start()
		tr := lab.transport()
		defer shut(t, tr)
		c := &http.Client{Transport: tr}
		var d diary
		get := func() {
			req, _ := http.NewRequestWithContext(d.trace(t.Context()), "GET", "http://20.1.2.3", nil)
			resp, err := c.Do(req)
			require.NoError(t, err)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		get()
		time.Sleep(3 * time.Second)
		get()
		if info := d.got[1]; !info.WasIdle || info.IdleTime != 3*time.Second {
			t.Errorf("got %+v", info)
		}
	})
}

func TestPutIdleConnComesBeforeTheEndOfTheBodyIsRead(t *testing.T) {
	s := newSite(t, http1, echo)
	var d diary
	resp, err := s.client.Do(s.request("POST", s.server.URL, strings.NewReader("hello")).WithContext(d.trace(t.Context())))
	require.NoError(t, err)
	if slices.Contains(d.read(), "PutIdleConn") {
		t.Error("it came before the body was read")
	}
	io.Copy(io.Discard, resp.Body)
	if !slices.Contains(d.read(), "PutIdleConn") {
		t.Error("it did not come")
	}
	resp.Body.Close()
}
