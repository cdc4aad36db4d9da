package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

// A line is one connection to the origin, over which one request goes at a time.
type line interface {
	ask(ctx context.Context) error                   // a request and its answer, 200 bytes each
	wait(ctx context.Context, d time.Duration) error // the same, and the answer takes so long
	name(ctx context.Context, as string) error       // the server's end, for origin.reset
	write() error                                    // a piece of a request that never ends
	hang() error                                     // a request that gets no answer

	// upload sends size bytes, which the origin takes late, and returns how many
	// came there, and when the last was written.
	upload(ctx context.Context, size int64) (came int64, written time.Time, err error)

	local() netip.AddrPort
	remote() netip.AddrPort
	end() *fate
	close()
}

// dialLine opens a line to an address. What HTTP is spoken over, install makes of
// an http.Transport; it is dialed with the first request.
func dialLine(ctx context.Context, dial dialFunc, install func(*http.Transport) http.RoundTripper,
	client *tls.Config, over, address string) (line, error) {
	if over != plain && over != overTLS {
		return dialWeb(dial, install, client, over, address), nil
	}
	c, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if over == overTLS {
		secure := tls.Client(c, client)
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		c = secure
	}
	return newStream(c), nil
}

// A fate is how something ended for its user, and when.
type fate struct {
	once sync.Once
	over chan struct{} // closed when it has; then the others are set
	at   time.Time
	err  error
}

func newFate() *fate { return &fate{over: make(chan struct{})} }

// is notes the fate. Only the first counts.
func (f *fate) is(err error) {
	f.once.Do(func() {
		f.at, f.err = time.Now(), err
		close(f.over)
	})
}

// after waits for the fate until ctx is done, and returns how long after an
// instant it came.
func (f *fate) after(ctx context.Context, since time.Time) (work.Reading, error) {
	select {
	case <-f.over:
		return work.Seconds(f.at.Sub(since)), f.err
	case <-ctx.Done():
	}
	select {
	case <-f.over: // the last moment counts
		return work.Seconds(f.at.Sub(since)), f.err
	default:
	}
	return work.MoreThan(time.Since(since)), nil
}

// A stream is a line without HTTP. Somebody always reads it, as protocols do that
// may be told something at any time.
type stream struct {
	net.Conn
	answers chan message
	fate    *fate
}

func newStream(c net.Conn) *stream {
	s := &stream{Conn: c, answers: make(chan message, 1), fate: newFate()}
	go s.read()
	return s
}

// read reads answers until the connection ends.
func (s *stream) read() {
	for {
		var m message
		if _, err := io.ReadFull(s.Conn, m[:]); err != nil {
			s.fate.is(err)
			return
		}
		select {
		case s.answers <- m:
		default: // nobody waits any more, not even for the one before
		}
	}
}

// send sends a message of that kind.
func (s *stream) send(what byte, text string) error {
	m := newMessage(what, text)
	_, err := s.Conn.Write(m[:])
	return err
}

// next waits for the answer.
func (s *stream) next(ctx context.Context) (message, error) {
	select {
	case m := <-s.answers:
		return m, nil
	case <-s.fate.over:
		return message{}, s.fate.err
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
}

func (s *stream) request(ctx context.Context, what byte, text string) error {
	if err := s.send(what, text); err != nil {
		return err
	}
	_, err := s.next(ctx)
	return err
}

func (s *stream) ask(ctx context.Context) error { return s.request(ctx, answer, "") }
func (s *stream) wait(ctx context.Context, d time.Duration) error {
	return s.request(ctx, slow, d.String())
}
func (s *stream) name(ctx context.Context, as string) error { return s.request(ctx, name, as) }
func (s *stream) write() error                              { return s.send(take, "") }
func (s *stream) hang() error                               { return s.send(take, "") }

func (s *stream) upload(ctx context.Context, size int64) (came int64, written time.Time, err error) {
	if err := s.send(later, strconv.FormatInt(size, 10)); err != nil {
		return 0, written, err
	}
	if _, err := io.CopyN(s.Conn, zeros{}, size); err != nil {
		return 0, written, err
	}
	written = time.Now()
	m, err := s.next(ctx)
	if err != nil {
		return 0, written, err
	}
	came, err = strconv.ParseInt(m.text(), 10, 64)
	return came, written, err
}

func (s *stream) local() netip.AddrPort  { return addrPort(s.Conn.LocalAddr()) }
func (s *stream) remote() netip.AddrPort { return addrPort(s.Conn.RemoteAddr()) }
func (s *stream) end() *fate             { return s.fate }
func (s *stream) close()                 { s.Conn.Close() }

// zeros is as many as anybody reads.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// A web is a line over HTTP, by a client of its own. Its fate is that of the
// connection or, if that comes first, of a request that is meant not to end.
type web struct {
	client *http.Client
	base   string // of URLs
	fate   *fate

	life context.Context // ended by close, and with it the requests that are meant not to end
	die  context.CancelFunc

	mu   sync.Mutex     // guards the fields below
	conn net.Conn       // the first one
	body *io.PipeWriter // of what write sends; nil before the first
}

// dialWeb makes a web. The transport dials by dial, unless install has it dial
// otherwise.
func dialWeb(dial dialFunc, install func(*http.Transport) http.RoundTripper, client *tls.Config, over, address string) *web {
	tr := &http.Transport{DialContext: dial, TLSClientConfig: client.Clone(), ForceAttemptHTTP2: over == http2}
	w := &web{client: &http.Client{Transport: install(tr)}, base: "https://" + address, fate: newFate()}
	if over == http1 {
		w.base = "http://" + address
	}
	w.life, w.die = context.WithCancel(context.Background())
	dial = tr.DialContext
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return heard{c, w.fate}, nil
	}
	return w
}

// A heard connection has its fate heard by whoever reads it all the time.
type heard struct {
	net.Conn
	fate *fate
}

func (c heard) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.fate.is(err)
	}
	return n, err
}

// NetConn lets natwise see its own connection.
func (c heard) NetConn() net.Conn { return c.Conn }

func (w *web) ask(ctx context.Context) error {
	_, err := w.do(ctx, http.MethodGet, "/answer", nil)
	return err
}

func (w *web) wait(ctx context.Context, d time.Duration) error {
	_, err := w.do(ctx, http.MethodGet, "/wait?for="+url.QueryEscape(d.String()), nil)
	return err
}

func (w *web) name(ctx context.Context, as string) error {
	_, err := w.do(ctx, http.MethodGet, "/name?as="+url.QueryEscape(as), nil)
	return err
}

func (w *web) do(ctx context.Context, method, path string, body io.Reader) (string, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: w.got})
	req, err := http.NewRequestWithContext(ctx, method, w.base+path, body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Padding", padding)
	resp, err := w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(text), err
}

// padding makes a request about as long as a message.
var padding = strings.Repeat("p", len(message{})/2)

func (w *web) got(info httptrace.GotConnInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		w.conn = info.Conn
	}
}

// write begins a request whose body goes on and on.
func (w *web) write() error {
	w.mu.Lock()
	if w.body == nil {
		var r *io.PipeReader
		r, w.body = io.Pipe()
		go func() {
			_, err := w.do(w.life, http.MethodPost, "/answer", r)
			w.fate.is(err)
		}()
	}
	body := w.body
	w.mu.Unlock()
	m := newMessage(take, "")
	_, err := body.Write(m[:])
	return err
}

func (w *web) hang() error {
	go func() {
		_, err := w.do(w.life, http.MethodGet, "/wait", nil)
		w.fate.is(err)
	}()
	return nil
}

func (w *web) upload(ctx context.Context, size int64) (came int64, written time.Time, err error) {
	body := &noted{io.LimitReader(zeros{}, size), newFate()}
	text, err := w.do(ctx, http.MethodPost, "/later", body)
	if err != nil {
		return 0, written, err
	}
	if _, err := fmt.Sscan(text, &came); err != nil {
		return 0, written, err
	}
	<-body.end.over
	return came, body.end.at, nil
}

// A noted reader knows when it was read to its end.
type noted struct {
	io.Reader
	end *fate
}

func (n *noted) Read(b []byte) (int, error) {
	m, err := n.Reader.Read(b)
	if err == io.EOF {
		n.end.is(nil)
	}
	return m, err
}

func (w *web) first() net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

func (w *web) local() netip.AddrPort  { return addrPort(w.first().LocalAddr()) }
func (w *web) remote() netip.AddrPort { return addrPort(w.first().RemoteAddr()) }
func (w *web) end() *fate             { return w.fate }

func (w *web) close() {
	w.die()
	w.mu.Lock()
	body := w.body
	w.mu.Unlock()
	if body != nil {
		body.CloseWithError(net.ErrClosed) // net/http waits for it
	}
	w.client.CloseIdleConnections()
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
