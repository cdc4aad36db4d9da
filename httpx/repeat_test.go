package httpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive"
)

// A brittle connection can be made to fail at the next Write, before a byte is sent.
type brittle struct {
	*net.TCPConn
	broken atomic.Bool
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.broken.Load() {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return b.TCPConn.Write(p)
}

// A liar is a listener whose connections may take everything and give it to nobody.
type liar struct {
	net.Listener
	lies atomic.Bool
}

func (l *liar) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lying{c.(*net.TCPConn), l}, nil
}

type lying struct {
	*net.TCPConn
	by *liar
}

func (c *lying) Read(b []byte) (n int, err error) {
	for {
		if n, err = c.TCPConn.Read(b); err != nil || !c.by.lies.Load() {
			return n, err
		}
	}
}

// A mortal is an HTTP/2 server whose connections die, and a client.
type mortal struct {
	*httptest.Server
	client http.Client
	served atomic.Int64
	kill   atomic.Bool // the connection of the next request, when it has come
	last   atomic.Pointer[brittle]
	opened atomic.Int64
	liar   *liar
	quiet  chan struct{} // requests for /quiet get headers, and their end when it is closed
}

func newMortal(t *testing.T) *mortal {
	m := &mortal{quiet: make(chan struct{})}
	m.Server = httptest.NewUnstartedServer(m)
	m.liar = &liar{Listener: m.Listener}
	m.Listener = m.liar
	m.EnableHTTP2 = true
	m.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, m, c.(*tls.Conn).NetConn())
	}
	m.StartTLS()
	t.Cleanup(m.Close)
	d := &dialer.Dialer{Ledger: new(dialer.Ledger), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		m.opened.Add(1)
		b := &brittle{TCPConn: c.(*net.TCPConn)}
		m.last.Store(b)
		return b, nil
	}}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	m.client.Transport = httpx.Wrap(tr, d)
	t.Cleanup(m.client.CloseIdleConnections)
	return m
}

func (m *mortal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.served.Add(1)
	if m.kill.CompareAndSwap(true, false) {
		c := r.Context().Value(m).(*lying)
		c.SetLinger(0)
		c.Close()
		return
	}
	switch r.URL.Path {
	case "/silent":
		<-r.Context().Done()
		return
	case "/quiet":
		w.(http.Flusher).Flush()
		<-m.quiet
	}
	if r.ProtoMajor != 2 {
		w.WriteHeader(http.StatusHTTPVersionNotSupported)
	}
	io.Copy(w, r.Body)
}

// send sends a request with a body, unless it is empty, and wants it echoed.
func (m *mortal) send(method string, body io.Reader, key string) error {
	req, err := http.NewRequest(method, m.URL, body)
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || body != nil && string(got) != "hello") {
		err = errors.New(resp.Status + ", " + string(got))
	}
	return err
}

func TestAnIdempotentRequestWhoseKeptConnectionDiesIsSentOnceMore(t *testing.T) {
	for name, send := range map[string]func(m *mortal) error{
		"GET":             func(m *mortal) error { return m.send("GET", nil, "") },
		"POST with a key": func(m *mortal) error { return m.send("POST", strings.NewReader("hello"), "k") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMortal(t)
			if err := m.send("GET", nil, ""); err != nil {
				t.Fatal(err)
			}
			m.kill.Store(true)
			if err := send(m); err != nil {
				t.Error(err)
			}
			if n := m.served.Load(); n != 3 {
				t.Errorf("%d requests were served, want 3", n)
			}
		})
	}
}

func TestWhatMayHaveRunIsNotRepeated(t *testing.T) {
	m := newMortal(t)
	if err := m.send("GET", nil, ""); err != nil {
		t.Fatal(err)
	}
	m.kill.Store(true)
	if err := m.send("POST", strings.NewReader("hello"), ""); keepalive.FaultOf(err) == keepalive.NoFault {
		t.Errorf("got %v", err)
	}
	if n := m.served.Load(); n != 2 {
		t.Errorf("%d requests were served, want 2", n)
	}
}

func TestARequestThatDiesOnAFreshConnectionIsNotRepeated(t *testing.T) {
	m := newMortal(t)
	m.kill.Store(true)
	if err := m.send("GET", nil, ""); err == nil {
		t.Error("it was answered")
	}
	if n := m.served.Load(); n != 1 {
		t.Errorf("%d requests were served, want 1", n)
	}
}

func TestWhatWasNeverWrittenIsRepeatedIfItsBodyCanBeHadAgain(t *testing.T) {
	for name, c := range map[string]struct {
		body io.Reader
		ok   bool
	}{
		"from memory": {strings.NewReader("hello"), true},
		"streamed":    {io.LimitReader(strings.NewReader("hello"), 5), false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMortal(t)
			if err := m.send("GET", nil, ""); err != nil {
				t.Fatal(err)
			}
			m.last.Load().broken.Store(true)
			if err := m.send("POST", c.body, ""); err == nil != c.ok {
				t.Errorf("got %v, want success: %t", err, c.ok)
			}
			want := int64(1)
			if c.ok {
				want = 2
			}
			if n := m.served.Load(); n != want {
				t.Errorf("%d requests were served, want %d", n, want)
			}
		})
	}
}

// miss asks for an answer that does not come in time.
func (m *mortal) miss(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 1100*time.Millisecond) // longer than an answer takes in order
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", m.URL+"/silent", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestAConnectionOnWhichAnAnswerWasMissedIsNotUsedAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells when something came last")
	}
	m := newMortal(t)
	if err := m.send("GET", nil, ""); err != nil {
		t.Fatal(err)
	}
	head, err := m.client.Head(m.URL) // whose body nobody need close
	if err != nil || head.ProtoMajor != 2 {
		t.Fatalf("got %v, %v", head, err)
	}
	m.liar.lies.Store(true)
	m.miss(t)
	m.liar.lies.Store(false)
	if err := m.send("GET", nil, ""); err != nil {
		t.Error(err)
	}
	if n := m.opened.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestAConnectionOnWhichAnotherWaitsIsNotTakenFromIt(t *testing.T) {
	m := newMortal(t)
	waits, err := m.client.Get(m.URL + "/quiet")
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Body.Close()
	m.liar.lies.Store(true) // to the end: TLS does not forgive what it has missed
	m.miss(t)
	close(m.quiet)
	if _, err := io.Copy(io.Discard, waits.Body); err != nil {
		t.Error(err)
	}
}
