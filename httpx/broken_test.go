package httpx_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A wire is what a broken server is spoken to over.
type wire struct {
	name   string
	secure bool
	two    bool // HTTP/2
}

var (
	plain1  = wire{name: "HTTP1"}
	secure1 = wire{name: "HTTP1 TLS", secure: true}
	plain2  = wire{name: "HTTP2", two: true}
	secure2 = wire{name: "HTTP2 TLS", secure: true, two: true}
)

// A broken is a server, in virtual time, of which a test says every byte, and a
// Transport that has to live with it.
type broken struct {
	*testing.T
	wire
	net    memnet.Network
	ledger *dialer.Ledger
	tr     *httpx.Transport
	serve  func(p *speaker)

	mu      sync.Mutex // guards the fields below
	peers   []*speaker
	ran     map[string]int // requests that came whole and were not refused, by id
	replies []reply
	ids     map[string]bool // of all requests
}

// A speaker is the server's end of a connection. Its number is in each good answer.
type speaker struct {
	net.Conn
	n   int // counted from one
	lab *broken

	carried *atomic.Int64 // requests, as a test counts them; nil: it does not
}

const (
	brokenAddress = "20.1.2.4:80"
	brokenLatency = time.Millisecond
	patience      = 5 * time.Second // of each request
	atOnce        = time.Second     // in which whatever is not a stall must have ended
)

// inBroken runs f in virtual time beside a server that does with its connections what
// serve says, and wants everything to be given back in the end.
func inBroken(t *testing.T, w wire, serve func(p *speaker), f func(b *broken)) {
	t.Helper()
	quiet(t)
	synctest.Test(t, func(t *testing.T) {
		b := &broken{T: t, wire: w, serve: serve, ran: make(map[string]int), ids: make(map[string]bool)}
		b.net.Latency = brokenLatency
		b.ledger = &dialer.Ledger{Path: netpath.AzureLoadBalancer(1024), Ramp: -1}
		b.tr = &httpx.Transport{
			Dialer:                 &dialer.Dialer{Ledger: b.ledger, Dial: b.net.DialContext},
			Proxy:                  httpx.NoProxy,
			MaxResponseHeaderBytes: 16 << 10,
			Protocols:              new(http.Protocols),
			TLS:                    &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}, // short handshakes
		}
		b.tr.Protocols.SetHTTP1(!w.two)
		b.tr.Protocols.SetHTTP2(w.two && w.secure)
		b.tr.Protocols.SetUnencryptedHTTP2(w.two && !w.secure)
		ln, err := b.net.Listen(brokenAddress)
		if err != nil {
			t.Fatal(err)
		}
		go b.accept(ln)
		f(b)
		b.close()
		ln.Close()
	})
}

// quiet keeps net/http from telling of every answer that nobody asked for.
func quiet(t *testing.T) {
	was := log.Writer()
	log.SetOutput(io.Discard)
	t.Cleanup(func() { log.SetOutput(was) })
}

func (b *broken) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		p := &speaker{Conn: c, n: len(b.peers) + 1, lab: b}
		b.peers = append(b.peers, p)
		b.mu.Unlock()
		go b.serve(p)
	}
}

func (b *broken) accepted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.peers)
}

// close ends the Transport, and only then the server.
func (b *broken) close() {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.tr.Close(ctx); err != nil {
		b.Errorf("Close: %v", err)
	}
	time.Sleep(10 * brokenLatency) // the last FINs
	synctest.Wait()
	for _, a := range b.ledger.Accounts() {
		if a.Asked+a.Dialing+a.Active+a.Idle+a.Closing+a.Waiting > 0 {
			b.Errorf("left behind: %v", a)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.replies {
		switch n := b.ran[r.id]; {
		case n > 1 && r.method == http.MethodPost:
			b.Errorf("%s %s ran %d times, and its error was %v", r.method, r.id, n, r.err)
		case n > 0 && r.err != nil && dialer.SafeToRetry(r.err):
			b.Errorf("%s %s ran, and its error says that it did not: %v", r.method, r.id, r.err)
		}
	}
	for _, p := range b.peers {
		p.Close()
	}
}

// A reply is what came of a request.
type reply struct {
	method, id string
	status     int
	conn       int // the number of the connection
	body       string
	err        error // of RoundTrip or of the body
	took       time.Duration
}

// ask sends a request that has its id in a header and in its body, and reads the
// answer. An answer that was meant for another request fails the test.
func (b *broken) ask(method string) reply {
	return b.askWithin(method, patience)
}

func (b *broken) askWithin(method string, timeout time.Duration) reply {
	b.Helper()
	b.mu.Lock()
	r := reply{method: method, id: "id-" + rand.Text()[:12]}
	b.ids[r.id] = true
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("body of " + r.id)
	}
	scheme := "http"
	if b.secure {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+brokenAddress+"/", body)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Id", r.id)
	start := time.Now()
	r.read(b, req)
	if r.took = time.Since(start); r.took > timeout {
		b.Errorf("%s took %v, its deadline was %v: %v", method, r.took, timeout, r.err)
	}
	b.mu.Lock()
	b.replies = append(b.replies, r)
	b.mu.Unlock()
	return r
}

func (r *reply) read(b *broken, req *http.Request) {
	b.Helper()
	resp, err := b.tr.RoundTrip(req)
	if r.err = err; err != nil {
		return
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	r.conn, _ = strconv.Atoi(resp.Header.Get("Conn"))
	if r.status == http.StatusSwitchingProtocols {
		return // its body is the connection, which whoever asked for nothing of the kind closes
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	r.body, r.err = string(body), err
	b.own(r, resp.Header.Get("Answers"))
	b.own(r, r.body)
}

// own wants what came to r not to have been meant for another request.
func (b *broken) own(r *reply, text string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.ids {
		if id != r.id && strings.Contains(text, id) {
			b.Errorf("%q came to %s, which is %s on connection %d", text, r.id, r.method, r.conn)
		}
	}
}

// good wants an answer on one of the server's good connections.
func (b *broken) good(method string) reply {
	b.Helper()
	r := b.ask(method)
	if r.err != nil || r.status != 200 || method != http.MethodHead && r.body != "answer to "+r.id {
		b.Errorf("%s after the fault: status %d, body %q, after %v: %v", method, r.status, r.body, r.took, r.err)
	}
	return r
}

// settle waits until whatever is on its way has come.
func (b *broken) settle() {
	time.Sleep(10 * brokenLatency)
	synctest.Wait()
}

// counts counts a request that came whole.
func (p *speaker) counts(id string) {
	p.lab.mu.Lock()
	defer p.lab.mu.Unlock()
	p.lab.ran[id]++
}

// secured returns p with TLS, where that is spoken.
func (p *speaker) secured() (*speaker, error) {
	if !p.lab.secure {
		return p, nil
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{brokenCertificate()}, NextProtos: []string{"http/1.1"}}
	if p.lab.two {
		cfg.NextProtos = []string{"h2"}
	}
	c := tls.Server(p.Conn, cfg)
	return &speaker{Conn: c, n: p.n, lab: p.lab, carried: p.carried}, c.Handshake()
}

// brokenCertificate is small, so that not too many byte offsets are its own, and good
// in the year 2000, where virtual time begins.
var brokenCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// hold waits until the client has ended the connection.
func (p *speaker) hold() {
	io.Copy(io.Discard, p.Conn)
	p.Close()
}

// sendRST ends it by RST.
func sendRST(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if k, ok := c.(*cut); ok {
		c = k.Conn
	}
	c.(interface{ SetLinger(int) error }).SetLinger(0)
	c.Close()
}

// http1 serves HTTP/1, with the answers that answer writes. It returns when the client
// has ended the connection, or answer has.
func (p *speaker) http1(answer func(p *speaker, k int, req *http.Request, id string) (more bool)) {
	br := bufio.NewReader(p)
	for k := 1; ; k++ {
		req, err := http.ReadRequest(br)
		if err != nil {
			break
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			break
		}
		id := req.Header.Get("Id")
		p.counts(id)
		if !answer(p, k, req, id) {
			break
		}
	}
	p.hold()
}

// goodAnswer is what a good server says to a request.
func goodAnswer(p *speaker, _ int, req *http.Request, id string) bool {
	_, err := io.WriteString(p, good1(p.n, req, id))
	return err == nil
}

func good1(n int, req *http.Request, id string) string {
	body := "answer to " + id
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nConn: %d\r\nAnswers: %s\r\nContent-Length: %d\r\n\r\n", n, id, len(body))
	if req != nil && req.Method == http.MethodHead {
		body = ""
	}
	return head + body
}

// An ending is how a broken server leaves a connection after its words.
type ending uint8

const (
	goOn   ending = iota // serve the next request, well
	fin                  // at once
	rst                  // at once
	silent               // say nothing more
)

func (e ending) String() string { return [...]string{"goes on", "FIN", "RST", "silence"}[e] }

// end ends what may be ended. It reports whether to go on.
func (p *speaker) end(e ending) bool {
	switch e {
	case goOn:
		return true
	case fin:
		p.shut()
	case rst:
		sendRST(p.Conn)
	}
	return false
}

// shut sends a FIN and goes on hearing.
func (p *speaker) shut() {
	c := p.Conn
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // no goodbye: this is a broken server
	}
	c.(interface{ CloseWrite() error }).CloseWrite()
}

// A fault is how one answer is broken. ID stands for the id of the request.
type fault struct {
	name   string
	method string // of the request; empty: GET
	says   string // instead of an answer
	ending ending
	ok     bool // the client may take it for an answer
	reuse  bool // and the connection is as good as before
}

// bad1 are the ways in which an HTTP/1 answer is broken, and how far.
var bad1 = []fault{
	{name: "nothing is wrong", says: "HTTP/1.1 200 OK\r\nAnswers: ID\r\nContent-Length: 2\r\n\r\nok", ok: true, reuse: true},
	{name: "chunked", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ok: true, reuse: true},
	{name: "an early hint", says: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ok: true, reuse: true},
	{name: "100 though nobody expects it", method: "POST", says: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ok: true, reuse: true},
	{name: "nothing, FIN", ending: fin},           // it dislikes us
	{name: "nothing, RST", ending: rst, ok: true}, // a GET: it is sent again
	{name: "silence", ending: silent},
	{name: "a piece of the status line, FIN", says: "HTTP/1.1 2", ending: fin},
	{name: "a piece of the status line, RST", says: "HTTP/1.1 2", ending: rst},
	{name: "a piece of the status line, silence", says: "HTTP/1.1 2", ending: silent},
	{name: "a piece of the header, FIN", says: "HTTP/1.1 200 OK\r\nContent-Le", ending: fin},
	{name: "a piece of the header, silence", says: "HTTP/1.1 200 OK\r\nContent-Le", ending: silent},
	{name: "garbage", says: "\x00\x01\x02\xff\xfe garbage\r\n\r\n"},
	{name: "garbage without an end", says: strings.Repeat("garbage ", 8<<10)},
	{name: "another protocol", says: "SSH-2.0-OpenSSH_9.6\r\n"},
	{name: "HTTP/2", says: "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00", ending: silent},
	{name: "an alert of TLS", says: "\x15\x03\x01\x00\x02\x02\x28", ending: silent},
	{name: "HTTP/3.7", says: "HTTP/3.7 200 OK\r\nContent-Length: 2\r\n\r\nok", ok: true, reuse: true},
	{name: "HTTP/x", says: "HTTP/x 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{name: "HTTP/1.0", says: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", ok: true},
	{name: "status of two digits", says: "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"},
	{name: "status of four digits", says: "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"},
	{name: "negative status", says: "HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok"},
	{name: "a header that is too long", says: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 64<<10) + "\r\nContent-Length: 2\r\n\r\nok"},
	{name: "a header without an end", says: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: a\r\n", 64<<10)},
	{name: "no colon", says: "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\nok"},
	{name: "a space before the colon", says: "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", ending: silent},
	{name: "a NUL in the header", says: "HTTP/1.1 200 OK\r\nA\x00: a\r\nContent-Length: 2\r\n\r\nok"},
	{name: "no name", says: "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok"},
	{name: "Content-Length too long, FIN", says: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", ending: fin},
	{name: "Content-Length too long, RST", says: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", ending: rst},
	{name: "Content-Length too long, silence", says: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", ending: silent},
	{name: "Content-Length too short", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more", ok: true},
	{name: "Content-Length twice", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!"},
	{name: "Content-Length negative", says: "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"},
	{name: "Content-Length beyond 64 bits", says: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok"},
	{name: "Content-Length no number", says: "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"},
	{name: "Content-Length with a plus", says: "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"},
	{name: "Content-Length zero and a body", says: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nok", ok: true},
	{name: "Content-Length and chunks", says: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nAnswers: ID\r\nContent-Length: 4\r\n\r\nmine", ok: true},
	{name: "an unknown transfer coding", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: cheese\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
	{name: "two transfer codings", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
	{name: "a chunk that is longer than its size", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n"},
	{name: "a chunk that is shorter than its size", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok\r\n0\r\n\r\n", ending: fin},
	{name: "a chunk that is shorter than its size, silence", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\nok\r\n0\r\n\r\n", ending: silent},
	{name: "a chunk size beyond 64 bits", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n"},
	{name: "a chunk size of 63 bits", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nok\r\n0\r\n\r\n", ending: fin},
	{name: "a chunk size of 64 bits", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nok\r\n0\r\n\r\n", ending: fin},
	{name: "a chunk size that is negative", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n"},
	{name: "a chunk size that is none", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"},
	{name: "a chunk line without an end", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 64<<10)},
	{name: "no last chunk, FIN", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", ending: fin},
	{name: "half a last chunk, FIN", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", ending: fin},
	{name: "a broken trailer", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngarbage\r\n\r\n"},
	{name: "a trailer without an end", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + strings.Repeat("A: a\r\n", 64<<10)},
	{name: "a body until FIN", says: "HTTP/1.1 200 OK\r\n\r\nok", ending: fin, ok: true},
	{name: "a body until RST", says: "HTTP/1.1 200 OK\r\n\r\nok", ending: rst},
	{name: "a body until nothing", says: "HTTP/1.1 200 OK\r\n\r\nok", ending: silent},
	{name: "Connection: close", says: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", ok: true},
	{name: "FIN after the answer", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ending: fin, ok: true},
	{name: "RST after the answer", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ending: rst, ok: true},
	{name: "bytes after the answer", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n\r\n", ok: true},
	{name: "two answers", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nAnswers: ID\r\nContent-Length: 4\r\n\r\nmine", ok: true},
	{name: "two answers, the second chunked", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nAnswers: ID\r\nContent-Length: 4\r\n\r\nmine", ok: true},
	{name: "two answers without a body", says: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nAnswers: ID\r\nContent-Length: 4\r\n\r\nmine", ok: true},
	{name: "204 with a body", says: "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", ok: true},
	{name: "304 with a body", says: "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", ok: true},
	{name: "HEAD with a body", method: "HEAD", says: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ok: true},
	{name: "HEAD with chunks", method: "HEAD", says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ok: true},
	{name: "a flood of 1xx", says: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 8<<10)},
	{name: "1xx and silence", says: "HTTP/1.1 102 Processing\r\n\r\n", ending: silent},
	{name: "1xx and FIN", says: "HTTP/1.1 102 Processing\r\n\r\n", ending: fin},
	{name: "101 that nobody asked for", says: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cheese\r\n\r\nmoo", ending: fin, ok: true},
	{name: "101 to nothing", says: "HTTP/1.1 101 Switching Protocols\r\n\r\n", ok: true},
	{name: "408 and FIN", says: "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", ending: fin, ok: true},
	{name: "gzip that is none", says: "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"},
	{name: "gzip that is cut off", says: "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"},
	{name: "Keep-Alive beyond reason", says: "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=99999999999999999999, timeout=-1, timeout=\r\nContent-Length: 2\r\n\r\nok", ok: true, reuse: true},
}

// on1 serves well, but for the first answer of the first connection.
func (f fault) on1(p *speaker) {
	p, err := p.secured()
	if err != nil {
		p.hold()
		return
	}
	p.http1(func(p *speaker, k int, req *http.Request, id string) bool {
		if p.n > 1 || k > 1 {
			return goodAnswer(p, k, req, id)
		}
		_, err := io.WriteString(p, strings.ReplaceAll(f.says, "ID", id))
		return p.end(f.ending) && err == nil
	})
}

// stalls reports whether only the deadline ends what f does.
func (f fault) stalls() bool { return f.ending == silent }

func TestABrokenHTTP1AnswerIsNobodysButItsOwn(t *testing.T) {
	for _, w := range []wire{plain1, secure1} {
		for _, f := range bad1 {
			t.Run(w.name+"/"+f.name, func(t *testing.T) {
				inBroken(t, w, f.on1, func(b *broken) { b.survives(f) })
			})
		}
	}
}

// survives has a request meet the fault, and others come after it.
func (b *broken) survives(f fault) {
	b.Helper()
	method := f.method
	if method == "" {
		method = http.MethodGet
	}
	r := b.ask(method)
	if (r.err == nil) != f.ok {
		b.Errorf("status %d, body %q, error %v", r.status, r.body, r.err)
	}
	if !f.stalls() && r.took > atOnce {
		b.Errorf("it took %v: %v", r.took, r.err)
	}
	b.settle()
	next := b.good(http.MethodPost)
	if reused := next.conn == 1; reused != f.reuse {
		b.Errorf("the next request went on connection %d", next.conn)
	}
	b.settle()
	b.good(http.MethodGet)
	if n := b.accepted(); n > 3 {
		b.Errorf("%d connections for one that broke", n)
	}
}

// A server that has nothing but the fault must not have a client come back for more:
// each connection costs a port for minutes.
func TestAServerThatIsAlwaysBrokenIsNotDialedAgainAndAgain(t *testing.T) {
	const few = 8 // the request's own, and what it may be sent again
	always := map[string]func(p *speaker){
		"FIN at once":         func(p *speaker) { p.shut(); p.hold() },
		"RST at once":         func(p *speaker) { sendRST(p.Conn) },
		"FIN in a moment":     func(p *speaker) { time.Sleep(2 * brokenLatency); p.shut(); p.hold() },
		"garbage at once":     func(p *speaker) { io.WriteString(p, "\x00\x01garbage"); p.hold() },
		"garbage and FIN":     func(p *speaker) { io.WriteString(p, "\x00\x01garbage"); p.shut(); p.hold() },
		"garbage in a moment": func(p *speaker) { time.Sleep(2 * brokenLatency); io.WriteString(p, "garbage"); p.hold() },
		"FIN when asked":      func(p *speaker) { p.Read(make([]byte, 1)); p.shut(); p.hold() },
		"RST when asked":      func(p *speaker) { p.Read(make([]byte, 1)); sendRST(p.Conn) },
		"silence":             func(p *speaker) { p.hold() },
	}
	for _, w := range []wire{plain1, secure1, plain2, secure2} {
		for name, serve := range always {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				t.Run(w.name+"/"+name+"/"+method, func(t *testing.T) {
					inBroken(t, w, serve, func(b *broken) {
						if r := b.ask(method); r.err == nil {
							b.Errorf("status %d, body %q", r.status, r.body)
						}
						if n := b.accepted(); n > few {
							b.Errorf("%d connections for one request", n)
						}
					})
				})
			}
		}
	}
}

// The same once TLS is up, or behind a server that speaks it.
func TestAServerThatEndsEveryConnectionAfterTheHandshakeIsNotDialedAgainAndAgain(t *testing.T) {
	const few = 8
	always := map[string]func(p *speaker){
		"FIN at once":     func(p *speaker) { p.shut(); p.hold() },
		"RST at once":     func(p *speaker) { sendRST(p.Conn) },
		"FIN in a moment": func(p *speaker) { time.Sleep(2 * brokenLatency); p.shut(); p.hold() },
		"garbage":         func(p *speaker) { io.WriteString(p, "\x00\x01garbage"); p.hold() },
		"silence":         func(p *speaker) { p.hold() },
	}
	for _, w := range []wire{secure1, secure2} {
		for name, serve := range always {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				greet := func(p *speaker) {
					if p, err := p.secured(); err == nil {
						serve(p)
					}
				}
				inBroken(t, w, greet, func(b *broken) {
					if r := b.ask(http.MethodPost); r.err == nil {
						b.Errorf("status %d, body %q", r.status, r.body)
					}
					if n := b.accepted(); n > few {
						b.Errorf("%d connections for one request", n)
					}
				})
			})
		}
	}
}

func TestAnAnswerBeforeItsRequestIsNobodys(t *testing.T) {
	for _, w := range []wire{plain1, secure1} {
		t.Run(w.name, func(t *testing.T) {
			var early atomic.Bool
			serve := func(p *speaker) {
				p, err := p.secured()
				if err != nil {
					return
				}
				p.http1(func(p *speaker, k int, req *http.Request, id string) bool {
					goodAnswer(p, k, req, id)
					if p.n == 1 {
						time.Sleep(5 * time.Millisecond)
						early.Store(true)
						goodAnswer(p, k, nil, "nobody")
					}
					return true
				})
			}
			inBroken(t, w, serve, func(b *broken) {
				b.good(http.MethodGet)
				b.settle()
				if r := b.good(http.MethodPost); !early.Load() || r.conn != 2 {
					b.Errorf("the second request went on connection %d", r.conn)
				}
			})
		})
	}
}

// late serves well, after ten times as long as anything takes on the way.
func late(p *speaker) {
	p, err := p.secured()
	if err != nil {
		p.hold()
		return
	}
	p.http1(func(p *speaker, k int, req *http.Request, id string) bool {
		time.Sleep(20 * brokenLatency)
		return goodAnswer(p, k, req, id)
	})
}

func TestALateAnswerSavesTheConnectionOfARequestThatWasCalledOff(t *testing.T) {
	for _, w := range []wire{plain1, secure1} {
		t.Run(w.name, func(t *testing.T) {
			inBroken(t, w, late, func(b *broken) {
				b.tr.FinishWithin = time.Second // though ports are not scarce
				b.good(http.MethodGet)
				for range 5 {
					if r := b.askWithin(http.MethodGet, 10*brokenLatency); !errors.Is(r.err, context.DeadlineExceeded) {
						b.Errorf("status %d, error %v", r.status, r.err)
					}
					time.Sleep(30 * brokenLatency)
				}
				if r := b.good(http.MethodGet); r.conn != 1 {
					b.Errorf("the next request went on connection %d", r.conn)
				}
			})
		})
	}
}

func TestCloseWaitsForAnExchangeAfterOthersWereCalledOff(t *testing.T) {
	inBroken(t, plain1, late, func(b *broken) {
		b.tr.FinishWithin = time.Second
		for range 3 {
			b.askWithin(http.MethodGet, 10*brokenLatency)
			time.Sleep(30 * brokenLatency)
		}
		var r reply
		var asking sync.WaitGroup
		asking.Go(func() { r = b.ask(http.MethodGet) })
		synctest.Wait()
		short, cancel := context.WithTimeout(context.Background(), brokenLatency)
		defer cancel()
		err := b.tr.Close(short)
		if err == nil || !strings.Contains(err.Error(), "httpx: 1 requests are under way") {
			b.Errorf("Close while a request is under way: %v", err)
		}
		asking.Wait()
		if r.err != nil {
			b.Errorf("the request that was under way: %v", r.err)
		}
	})
}

// A cut is a connection that ends, by its ending, after so many bytes that the server
// has written or read. Negative: never.
type cut struct {
	net.Conn
	out, in int
	by      ending
	met     atomic.Bool // it has ended
}

var errCut = errors.New("cut off")

func (c *cut) Write(b []byte) (int, error) {
	if c.out < 0 || len(b) < c.out {
		c.out -= min(len(b), max(0, c.out))
		return c.Conn.Write(b)
	}
	n, _ := c.Conn.Write(b[:c.out])
	c.end()
	return n, errCut
}

func (c *cut) Read(b []byte) (int, error) {
	if c.in < 0 {
		return c.Conn.Read(b)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.in)])
	if c.in -= n; c.in == 0 && err == nil {
		c.end()
		err = errCut
	}
	return n, err
}

func (c *cut) end() {
	c.met.Store(true)
	switch c.by {
	case rst:
		sendRST(c.Conn)
		return
	case fin:
		c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	io.Copy(io.Discard, c.Conn)
	c.Conn.Close()
}

// wellBehaved serves p by the protocol of its wire.
func wellBehaved(p *speaker) {
	p, err := p.secured()
	switch {
	case err != nil:
		p.hold()
	case p.lab.two:
		p.http2(script{})
	default:
		p.http1(goodAnswer)
	}
}

// The first connection ends at each byte of two exchanges, the second of which finds
// the connection kept. Whatever becomes of them, the third goes well.
func TestAConnectionThatEndsAtAnyByteCostsNoMoreThanItsOwnExchange(t *testing.T) {
	for _, w := range []wire{plain1, secure1, plain2, secure2} {
		for _, by := range []ending{rst, fin, silent} {
			for _, answers := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%v/answers %t", w.name, by, answers), func(t *testing.T) {
					n := 0
					for survivesCut(t, w, by, answers, n) {
						n += step()
					}
					t.Logf("%d bytes", n)
				})
			}
		}
	}
}

// step is how far apart the bytes are at which connections end.
func step() int {
	if testing.Short() {
		return 17
	}
	return 1
}

// survivesCut has the first connection end after n bytes that the server has written
// (answers) or read. It reports whether both exchanges together had as many.
func survivesCut(t *testing.T, w wire, by ending, answers bool, n int) (met bool) {
	t.Helper()
	c := &cut{out: -1, in: -1, by: by}
	if answers {
		c.out = n
	} else {
		c.in = n + 1
	}
	serve := func(p *speaker) {
		if p.n == 1 {
			c.Conn = p.Conn
			p = &speaker{Conn: c, n: 1, lab: p.lab}
		}
		wellBehaved(p)
	}
	inBroken(t, w, serve, func(b *broken) {
		first := b.ask(http.MethodGet)
		b.settle()
		second := b.ask(http.MethodPost)
		b.settle()
		if met = c.met.Load(); !met {
			return
		}
		if by == silent && first.err == nil && second.err == nil {
			met = false // the silence comes after both
			return
		}
		if w.two && by == silent {
			time.Sleep(2 * time.Minute) // until a ping finds out: there is no TCP_INFO here
		}
		b.good(http.MethodPost)
		if b.Failed() {
			b.Errorf("at byte %d", n)
		}
	})
	return met
}

// A script is what an HTTP/2 server does on its first connection, where that is not
// what a good one does. The others are good.
type script struct {
	hello   string                                                         // instead of SETTINGS
	answer  func(p *speaker2, stream uint32, id string) string             // instead of an answer
	turn    func(p *speaker2, k int, stream uint32, id string) (more bool) // instead of everything below
	every   bool                                                           // and not for the first request alone
	refuses bool                                                           // what it does not answer well it does not run either
	ending  ending                                                         // after hello, or after the answer if there is one
	flood   string                                                         // written again and again, from the answer on
	deaf    bool                                                           // while it floods, it reads nothing
}

// bad2 are the ways in which an HTTP/2 server is broken.
var bad2 = func() []broken2 {
	all := []broken2{
		{name: "nothing is wrong", ok: true, reuse: true},
		{name: "HTTP/1 instead of SETTINGS", s: script{hello: "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nok"}},
		{name: "garbage instead of SETTINGS", s: script{hello: strings.Repeat("garbage ", 100)}},
		{name: "FIN instead of SETTINGS", either: true, s: script{hello: "\x00", ending: fin}},
		{name: "a frame without SETTINGS before", s: script{hello: frame(fPing, 0, 0, "12345678")}},
		{name: "a frame that is too long", s: script{hello: "\xff\xff\xff\x04\x00\x00\x00\x00\x00"}},
		{name: "a setting that is cut off", s: script{hello: frame(fSettings, 0, 0, "12345")}},
		{name: "settings on a stream", s: script{hello: frame(fSettings, 0, 1, "")}},
		{name: "an ack with something in it", s: script{hello: frame(fSettings, 0, 0, "") + frame(fSettings, ack, 0, "123456")}},
		{name: "a window beyond 31 bits", s: script{hello: setting(initialWindow, 1<<31)}},
		{name: "frames of no length", s: script{hello: setting(maxFrame, 0)}},
		{name: "a setting that nobody knows", s: script{hello: setting(0xabcd, 1)}, ok: true, reuse: true},
		{name: "one stream at a time", s: script{hello: setting(maxStreams, 1)}, ok: true, reuse: true},
		{name: "no streams", s: script{hello: setting(maxStreams, 0)}, none: true, either: true, stalls: true}, // a request that came before may wait for a stream
		{name: "no streams from the answer on", s: script{answer: answers(func(stream uint32, id string) string {
			return setting(maxStreams, 0) + good2(1, stream, id)
		})}, ok: true},
		{name: "a frame that nobody knows", s: says(func(stream uint32, id string) string {
			return frame(0xab, 0xff, stream, "whatever") + good2(1, stream, id)
		}), ok: true, reuse: true},
		{name: "silence", s: script{answer: answers(func(uint32, string) string { return "" }), ending: silent}, stalls: true, hangs: true},
		{name: "half an answer, silence", s: script{answer: answers(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + frame(fData, 0, stream, "ans")
		}), ending: silent}, stalls: true, hangs: true},
		{name: "half an answer, FIN", s: script{answer: answers(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + frame(fData, 0, stream, "ans")
		}), ending: fin}},
		{name: "a header block that is none", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders|endStream, stream, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
		})},
		{name: "a header block that is cut off by DATA", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, 0, stream, fields(":status", "200")) + frame(fData, endStream, stream, "ok")
		})},
		{name: "a continuation of nothing", s: says(func(stream uint32, id string) string {
			return frame(fContinuation, endHeaders, stream, fields(":status", "200"))
		})},
		{name: "continuations without an end", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, 0, stream, fields(":status", "200")) +
				strings.Repeat(frame(fContinuation, 0, stream, fields("a", strings.Repeat("a", 1000))), 1000)
		})},
		{name: "a header that is too long", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, 0, stream, fields(":status", "200")) +
				strings.Repeat(frame(fContinuation, 0, stream, fields("a", strings.Repeat("b", 1000))), 40) +
				frame(fContinuation, endHeaders|endStream, stream, "")
		}), same: true},
		{name: "no status", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders|endStream, stream, fields("a", "b"))
		}), same: true},
		{name: "a status that is no number", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders|endStream, stream, fields(":status", "2xx"))
		}), same: true},
		{name: "a name in capitals", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders|endStream, stream, "\x88\x40\x01A\x01a")
		}), same: true},
		{name: "headers without an end and no data", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200", "content-length", "0"))
		}), stalls: true, either: true},
		{name: "a flood of 1xx", s: says(func(stream uint32, id string) string {
			return strings.Repeat(frame(fHeaders, endHeaders, stream, fields(":status", "103", "link", strings.Repeat("a", 500))), 100) + good2(1, stream, id)
		}), same: true},
		{name: "101", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "101")) + good2(1, stream, id)
		}), either: true},
		{name: "data before headers", s: says(func(stream uint32, id string) string {
			return frame(fData, endStream, stream, "ok")
		}), same: true},
		{name: "data on no stream", s: says(func(stream uint32, id string) string {
			return frame(fData, endStream, 0, "ok")
		})},
		{name: "data on a stream that nobody has opened", s: says(func(stream uint32, id string) string {
			return frame(fData, endStream, stream+2, "ok")
		})},
		{name: "an answer on a stream that nobody has opened", s: says(func(stream uint32, id string) string {
			return good2(1, stream+2, id)
		})},
		{name: "an answer on an even stream", s: says(func(stream uint32, id string) string {
			return good2(1, stream+1, id)
		}), stalls: true, either: true},
		{name: "two answers", s: says(func(stream uint32, id string) string {
			return good2(1, stream, id) + good2(1, stream, id)
		}), ok: true, either: true},
		{name: "data after the end", s: says(func(stream uint32, id string) string {
			return good2(1, stream, id) + frame(fData, endStream, stream, "more")
		}), ok: true, either: true},
		{name: "padding longer than the frame", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + frame(fData, endStream|padded, stream, "\xffok")
		})},
		{name: "more data than the window", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + strings.Repeat(frame(fData, 0, stream, strings.Repeat("a", 16<<10)), 1<<9)
		}), either: true},
		{name: "content-length too long", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200", "content-length", "9")) + frame(fData, endStream, stream, "ok")
		}), same: true},
		{name: "content-length too short", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200", "content-length", "1")) + frame(fData, endStream, stream, "okay")
		}), same: true},
		{name: "trailers without an end", s: says(func(stream uint32, id string) string {
			return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + frame(fHeaders, endHeaders, stream, fields("a", "b"))
		})},
		{name: "a push", s: says(func(stream uint32, id string) string {
			return frame(fPush, endHeaders, stream, u32(2)+fields(":method", "GET", ":path", "/", ":scheme", "http", ":authority", "x")) + good2(1, stream, id)
		}), either: true},
		{name: "a ping of seven bytes", s: says(func(uint32, string) string { return frame(fPing, 0, 0, "1234567") })},
		{name: "a ping on a stream", s: says(func(stream uint32, _ string) string { return frame(fPing, 0, stream, "12345678") })},
		{name: "the answer to a ping that nobody sent", s: says(func(stream uint32, id string) string {
			return frame(fPing, ack, 0, "12345678") + good2(1, stream, id)
		}), ok: true, reuse: true},
		{name: "a window update of nothing", s: says(func(stream uint32, _ string) string { return frame(fWindow, 0, stream, u32(0)) }), either: true},
		{name: "a window update of nothing, for all", s: says(func(uint32, string) string { return frame(fWindow, 0, 0, u32(0)) })},
		{name: "a window that overflows, for all", s: says(func(uint32, string) string {
			return strings.Repeat(frame(fWindow, 0, 0, u32(1<<31-1)), 2)
		})},
		{name: "a window update of three bytes", s: says(func(uint32, string) string { return frame(fWindow, 0, 0, "123") })},
		{name: "a reset of no stream", s: says(func(uint32, string) string { return frame(fReset, 0, 0, u32(0)) })},
		{name: "a reset of a stream that nobody has opened", s: says(func(stream uint32, _ string) string { return frame(fReset, 0, stream+2, u32(0)) }), either: true, stalls: true},
		{name: "a reset of three bytes", s: says(func(stream uint32, _ string) string { return frame(fReset, 0, stream, "123") })},
		{name: "a GOAWAY of three bytes", s: says(func(uint32, string) string { return frame(fGoAway, 0, 0, "123") })},
		{name: "a GOAWAY on a stream", s: says(func(stream uint32, _ string) string { return frame(fGoAway, 0, stream, u32(0, 0)) })},
		{name: "two GOAWAYs, the last id rises", s: says(func(stream uint32, id string) string {
			return frame(fGoAway, 0, 0, u32(stream, 0)) + frame(fGoAway, 0, 0, u32(stream+100, 0)) + good2(1, stream, id)
		}), ok: true},
		{name: "a priority that depends on itself", s: says(func(stream uint32, id string) string {
			return frame(fPriority, 0, stream, u32(stream)+"\x00") + good2(1, stream, id)
		}), either: true},
	}
	for code := range uint32(16) { // 14 and 15 nobody knows
		all = append(all,
			broken2{name: fmt.Sprintf("a reset by code %d", code), either: true, s: script{refuses: code == refusedStream, answer: answers(func(stream uint32, id string) string {
				return frame(fReset, 0, stream, u32(code))
			})}},
			broken2{name: fmt.Sprintf("a reset by code %d after the headers", code), either: true, s: says(func(stream uint32, id string) string {
				return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + frame(fReset, 0, stream, u32(code))
			})},
			broken2{name: fmt.Sprintf("a reset by code %d after some data", code), either: true, s: says(func(stream uint32, id string) string {
				return frame(fHeaders, endHeaders, stream, fields(":status", "200")) + frame(fData, 0, stream, "ans") + frame(fReset, 0, stream, u32(code))
			})},
			broken2{name: fmt.Sprintf("a reset by code %d after the end", code), ok: true, reuse: code != protocolError, either: code == protocolError, s: says(func(stream uint32, id string) string {
				return good2(1, stream, id) + frame(fReset, 0, stream, u32(code))
			})},
		)
	}
	for _, code := range []uint32{0, 1, 2, 11} {
		for _, e := range []ending{goOn, fin, rst} {
			about := fmt.Sprintf("code %d and %v", code, e)
			goAway := func(last uint32) string { return frame(fGoAway, 0, 0, u32(last, code)) }
			all = append(all,
				broken2{name: "GOAWAY before SETTINGS, " + about, either: true, away: true, s: script{hello: goAway(0), ending: e}},
				broken2{name: "GOAWAY after SETTINGS, " + about, either: true, away: true, s: script{hello: frame(fSettings, 0, 0, "") + goAway(0), ending: e}},
				broken2{name: "GOAWAY that refuses the request, " + about, either: true, away: true, s: script{refuses: true, ending: e, answer: answers(func(uint32, string) string {
					return goAway(0)
				})}},
				broken2{name: "GOAWAY instead of the answer, " + about, either: true, away: true, stalls: e == goOn, s: script{ending: e, answer: answers(func(stream uint32, _ string) string {
					return goAway(stream)
				})}},
				broken2{name: "GOAWAY before the answer, " + about, either: true, away: true, s: script{ending: e, answer: answers(func(stream uint32, id string) string {
					return goAway(stream) + good2(1, stream, id)
				})}},
				broken2{name: "GOAWAY after the answer, " + about, either: true, away: true, s: script{ending: e, answer: answers(func(stream uint32, id string) string {
					return good2(1, stream, id) + goAway(stream)
				})}},
				broken2{name: "GOAWAY of all there may be, after the answer, " + about, either: true, away: true, s: script{ending: e, answer: answers(func(stream uint32, id string) string {
					return good2(1, stream, id) + goAway(1<<31-1)
				})}},
			)
			if e != goOn {
				all = append(all,
					broken2{name: "GOAWAY in the answer, " + about, either: true, away: true, s: script{ending: e, answer: answers(func(stream uint32, id string) string {
						a := good2(1, stream, id)
						return a[:len(a)-20] + goAway(stream) // which is data
					})}},
				)
			}
		}
	}
	for i := range all {
		// A connection that breaks before it is asked is replaced, if that is seen in time.
		if f := &all[i]; f.s.hello != "" && !f.ok && !f.none {
			f.either, f.away = true, true
		}
	}
	return all
}()

const protocolError, refusedStream = 1, 7

// A broken2 is how one HTTP/2 server is broken, and what may come of it.
type broken2 struct {
	name   string
	method string // of the request; empty: GET
	s      script
	ok     bool // the client may take it for an answer
	reuse  bool // and the connection is as good as before
	either bool // whether it is an answer, and the connection good, is for net/http to say
	same   bool // it is no answer, and the connection may be good or not
	away   bool // the connection must not be used again
	none   bool // nobody may ask anything of the connection; another one answers
	stalls bool // only the deadline ends it
	hangs  bool // and the connection is good for nothing until a ping finds out
}

// answers is an answer that has no need of the connection.
func answers(f func(stream uint32, id string) string) func(*speaker2, uint32, string) string {
	return func(_ *speaker2, stream uint32, id string) string { return f(stream, id) }
}

// says is a script whose first answer is f's, and the others good.
func says(f func(stream uint32, id string) string) script { return script{answer: answers(f)} }

func TestABrokenHTTP2ServerIsSurvived(t *testing.T) {
	for _, w := range []wire{plain2, secure2} {
		for _, f := range bad2 {
			t.Run(w.name+"/"+f.name, func(t *testing.T) {
				inBroken(t, w, f.serve, func(b *broken) { b.survives2(f) })
			})
		}
	}
}

func (f broken2) serve(p *speaker) {
	p, err := p.secured()
	if err != nil {
		p.hold()
		return
	}
	s := f.s
	if p.n > 1 {
		s = script{}
	}
	p.http2(s)
}

// survives2 has a request meet the fault, and others come after it.
func (b *broken) survives2(f broken2) {
	b.Helper()
	method := f.method
	if method == "" {
		method = http.MethodGet
	}
	r := b.ask(method)
	if ok := r.err == nil; ok != (f.ok || f.none) && !f.either {
		b.Errorf("status %d, body %q, error %v", r.status, r.body, r.err)
	}
	if !f.stalls && r.took > atOnce {
		b.Errorf("it took %v: %v", r.took, r.err)
	}
	b.settle()
	if f.hangs {
		time.Sleep(2 * time.Minute)
	}
	next := b.good(http.MethodPost)
	switch first := next.conn == 1; {
	case f.away && first, f.none && first, f.reuse && !first,
		!f.reuse && !f.either && !f.same && !f.hangs && first:
		b.Errorf("the next request went on connection %d", next.conn)
	}
	b.settle()
	b.good(http.MethodGet)
	if n := b.accepted(); n > 3 {
		b.Errorf("%d connections for one that broke", n)
	}
}

// Floods: the client answers pings and settings, though nobody reads that, and the
// request must end all the same.
func TestAFloodEndsNoLaterThanItsRequest(t *testing.T) {
	const soon = 20 * time.Millisecond // of which every one is 64 KiB
	floods := map[string]string{
		"pings":             frame(fPing, 0, 0, "12345678"),
		"answered pings":    frame(fPing, ack, 0, "12345678"),
		"settings":          setting(initialWindow, 1<<16),
		"no data":           frame(fData, 0, 1, ""),
		"resets":            frame(fReset, 0, 1, u32(8)),
		"priorities":        frame(fPriority, 0, 1, u32(3)+"\x00"),
		"windows":           frame(fWindow, 0, 0, u32(1)),
		"what nobody knows": frame(0xab, 0, 0, strings.Repeat("a", 1000)),
	}
	for _, w := range []wire{plain2, secure2} {
		for name, flood := range floods {
			for _, deaf := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/deaf %t", w.name, name, deaf), func(t *testing.T) {
					f := broken2{s: script{flood: flood, deaf: deaf}}
					inBroken(t, w, f.serve, func(b *broken) {
						if r := b.askWithin(http.MethodPost, soon); r.err == nil {
							b.Errorf("status %d, body %q", r.status, r.body)
						}
					})
				})
			}
		}
	}
}

// As TestAServerThatIsAlwaysBrokenIsNotDialedAgainAndAgain, in HTTP/2: how often it is
// dialed must not go by the length of the queue either.
func TestAServerThatAlwaysRefusesIsNotDialedAgainAndAgain(t *testing.T) {
	const few = 8
	goAway := frame(fGoAway, 0, 0, u32(0, 0))
	nothing := func(uint32, string) string { return "" }
	refusal := func(stream uint32, _ string) string { return frame(fReset, 0, stream, u32(refusedStream)) }
	always := func(hello string, e ending, answer func(uint32, string) string) script {
		return script{hello: hello, ending: e, refuses: true, every: true, answer: answers(answer)}
	}
	for name, s := range map[string]script{
		"no streams":             always(setting(maxStreams, 0), goOn, refusal),
		"GOAWAY before all":      always(goAway, goOn, nothing),
		"GOAWAY at once":         always(setting(maxStreams, 100)+goAway, goOn, nothing),
		"GOAWAY at once and FIN": always(setting(maxStreams, 100)+goAway, fin, nothing),
		"GOAWAY to each":         always("", goOn, func(uint32, string) string { return goAway }),
		"GOAWAY to each and FIN": always("", fin, func(uint32, string) string { return goAway }),
		"each is refused":        always("", goOn, refusal),
	} {
		for _, w := range []wire{plain2, secure2} {
			for _, herd := range []int{1, 100} {
				t.Run(fmt.Sprintf("%s/%s/%d requests", w.name, name, herd), func(t *testing.T) {
					serve := func(p *speaker) {
						if p, err := p.secured(); err == nil {
							p.http2(s)
						}
					}
					inBroken(t, w, serve, func(b *broken) {
						b.herd(herd, func() {
							if r := b.ask(http.MethodPost); r.err == nil {
								b.Errorf("status %d, body %q", r.status, r.body)
							}
						})
						if n := b.accepted(); n > min(few*herd, 8*few) {
							b.Errorf("%d connections for %d requests", n, herd)
						} else {
							b.Logf("%d connections for %d requests", n, herd)
						}
					})
				})
			}
		}
	}
}

func TestAServerThatTakesOneStreamAtATimeServesAHerd(t *testing.T) {
	for _, w := range []wire{plain2, secure2} {
		t.Run(w.name, func(t *testing.T) {
			serve := func(p *speaker) {
				if p, err := p.secured(); err == nil {
					p.http2(script{hello: setting(maxStreams, 1)})
				}
			}
			inBroken(t, w, serve, func(b *broken) {
				b.herd(200, func() { b.good(http.MethodPost) })
				b.Logf("%d connections", b.accepted())
			})
		})
	}
}

// herd does f n times at once.
func (b *broken) herd(n int, f func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
}

// A speaker2 is a speaker of HTTP/2.
type speaker2 struct {
	*speaker
	br      *bufio.Reader
	headers *hpack.Decoder
	block   []byte            // of the header that is not complete
	ids     map[uint32]string // of the requests that came, by stream

	answered bool // the first request, as the script says
	turns    int  // requests that came whole
}

// The frames of RFC 9113 and their flags.
const (
	fData, fHeaders, fPriority, fReset, fSettings, fPush, fPing, fGoAway, fWindow, fContinuation = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9

	endStream, ack, endHeaders, padded = 1, 1, 4, 8

	maxStreams, initialWindow, maxFrame = 3, 4, 5 // settings
)

func frame(kind, flags byte, stream uint32, payload string) string {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(binary.BigEndian.AppendUint32(b, stream)) + payload
}

func u32(ns ...uint32) string {
	var b []byte
	for _, n := range ns {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return string(b)
}

// setting is a SETTINGS frame of one.
func setting(name uint16, value uint32) string {
	return frame(fSettings, 0, 0, string(binary.BigEndian.AppendUint16(nil, name))+u32(value))
}

// fields is a header block of names and values in turn.
func fields(pairs ...string) string {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0) // so that blocks do not depend on each other
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.String()
}

// good2 is what a good server says to a request.
func good2(n int, stream uint32, id string) string {
	return frame(fHeaders, endHeaders, stream, fields(":status", "200", "conn", strconv.Itoa(n), "answers", id)) +
		frame(fData, endStream, stream, "answer to "+id)
}

// http2 serves HTTP/2 until the client has ended the connection, or s has.
func (p *speaker) http2(s script) {
	q := &speaker2{speaker: p, br: bufio.NewReader(p), headers: hpack.NewDecoder(4096, nil), ids: make(map[uint32]string)}
	defer p.hold()
	hello := s.hello
	if hello == "" {
		hello = frame(fSettings, 0, 0, "")
	}
	if _, err := io.WriteString(p, hello); err != nil || s.answer == nil && s.flood == "" && !p.end(s.ending) {
		return
	}
	if _, err := io.CopyN(io.Discard, q.br, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	for q.frame(s) {
	}
}

// frame reads a frame and does what it asks for.
func (q *speaker2) frame(s script) (more bool) {
	var head [9]byte
	if _, err := io.ReadFull(q.br, head[:]); err != nil {
		return false
	}
	payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(q.br, payload); err != nil {
		return false
	}
	kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
	switch {
	case kind == fSettings && flags&ack == 0:
		io.WriteString(q, frame(fSettings, ack, 0, ""))
	case kind == fPing && flags&ack == 0:
		io.WriteString(q, frame(fPing, ack, 0, string(payload)))
	case kind == fHeaders || kind == fContinuation:
		q.block = append(q.block, payload...)
		if flags&endHeaders != 0 {
			q.header(stream)
		}
	}
	if (kind == fHeaders || kind == fData) && flags&endStream != 0 {
		return q.request(s, stream)
	}
	return true
}

func (q *speaker2) header(stream uint32) {
	hs, _ := q.headers.DecodeFull(q.block)
	q.block = nil
	for _, h := range hs {
		if h.Name == "id" {
			q.ids[stream] = h.Value
		}
	}
}

// request answers a request that came whole.
func (q *speaker2) request(s script, stream uint32) (more bool) {
	id := q.ids[stream]
	q.turns++
	if s.turn != nil {
		return s.turn(q, q.turns, stream, id)
	}
	if q.answered && !s.every || s.answer == nil && s.flood == "" {
		q.counts(id)
		_, err := io.WriteString(q, good2(q.n, stream, id))
		return err == nil
	}
	q.answered = true
	if !s.refuses {
		q.counts(id)
	}
	if s.answer != nil {
		if _, err := io.WriteString(q, s.answer(q, stream, id)); err != nil {
			return false
		}
	}
	if s.flood != "" {
		q.floods(s)
	}
	return q.end(s.ending)
}

// floods writes the same again and again.
func (q *speaker2) floods(s script) {
	if !s.deaf {
		go io.Copy(io.Discard, q.br)
	}
	chunk := strings.Repeat(s.flood, 1+16<<10/len(s.flood))
	for {
		if _, err := io.WriteString(q, chunk); err != nil {
			return
		}
	}
}
