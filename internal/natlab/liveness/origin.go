package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// The origin's ports.
const (
	echoPort    = 81  // messages
	echoTLSPort = 82  // messages over TLS 1.3
	webPort     = 80  // HTTP/1
	webTLSPort  = 443 // HTTP/2, and HTTP/1 for who does not ask for it
)

// A message is what is asked and answered on a connection without HTTP. Its
// first byte says what is wanted, and text may follow.
type message [200]byte

const (
	answer = 'a' // the same message back
	take   = 't' // nothing
	later  = 'l' // take so many bytes, but only after origin.delay; the answer is how many came
	name   = 'n' // an answer, and the server's end goes by that name
	slow   = 's' // an answer after so long
)

func newMessage(what byte, text string) (m message) {
	m[0] = what
	copy(m[1:], text)
	return m
}

func (m *message) text() string { return string(bytes.TrimRight(m[1:], "\x00")) }

// An origin is all servers of a lab. Whoever makes it closes it.
type origin struct {
	delay  time.Duration // before it takes what comes later
	window int           // bytes that it lets a peer send ahead; 0: what the kernel likes
	tls    *tls.Config
	web    http.Server
	closed chan struct{}

	mu    sync.Mutex // guards the fields below
	ends  []io.Closer
	named map[string]*net.TCPConn
}

func newOrigin(cert tls.Certificate) *origin {
	o := &origin{
		tls:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		closed: make(chan struct{}), named: make(map[string]*net.TCPConn),
	}
	o.web.TLSConfig = o.tls.Clone()
	o.web.TLSConfig.NextProtos = []string{"h2", "http/1.1"} // or Serve, if it comes before ServeTLS, leaves out HTTP/2
	o.web.ConnContext = withConn
	o.web.ErrorLog = log.New(io.Discard, "", 0) // control connections end before they said hello
	mux := http.NewServeMux()
	mux.HandleFunc("/answer", o.serveAnswer)
	mux.HandleFunc("/later", o.serveLater)
	mux.HandleFunc("/wait", o.serveWait)
	mux.HandleFunc("/name", o.serveName)
	o.web.Handler = mux
	return o
}

// listen opens all ports by a lab's Listen.
func (o *origin) listen(listen func(address string) (net.Listener, error)) error {
	for port, serve := range map[int]func(net.Listener){
		echoPort:    func(ln net.Listener) { o.serve(ln, nil) },
		echoTLSPort: func(ln net.Listener) { o.serve(ln, o.tls) },
		webPort:     func(ln net.Listener) { o.web.Serve(ln) },
		webTLSPort:  func(ln net.Listener) { o.web.ServeTLS(ln, "", "") },
	} {
		ln, err := listen(":" + strconv.Itoa(port))
		if err != nil {
			return err
		}
		o.keep(ln)
		go serve(ln) // until close
	}
	return nil
}

// close ends everything.
func (o *origin) close() error {
	close(o.closed)
	o.mu.Lock()
	ends := o.ends
	o.ends = nil
	o.mu.Unlock()
	for _, c := range ends {
		c.Close() // it may be closed
	}
	return o.web.Close()
}

func (o *origin) keep(c io.Closer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends = append(o.ends, c)
}

// serve obeys messages on all connections until ln is closed.
func (o *origin) serve(ln net.Listener, cfg *tls.Config) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		o.keep(c)
		raw := c.(*net.TCPConn)
		if o.window > 0 {
			raw.SetReadBuffer(o.window)
		}
		if cfg != nil {
			c = tls.Server(c, cfg)
		}
		go o.obey(c, raw)
	}
}

func (o *origin) obey(c net.Conn, raw *net.TCPConn) {
	defer raw.Close()
	var m message
	for {
		if _, err := io.ReadFull(c, m[:]); err != nil {
			return
		}
		switch m[0] {
		case take:
			continue
		case name:
			o.name(m.text(), raw)
		case slow:
			d, _ := time.ParseDuration(m.text())
			o.wait(d)
		case later:
			want, _ := strconv.ParseInt(m.text(), 10, 64)
			n, _ := io.CopyN(io.Discard, &patient{c, o}, want)
			m = newMessage(answer, strconv.FormatInt(n, 10))
		}
		if _, err := c.Write(m[:]); err != nil {
			return
		}
	}
}

// A patient reader begins late.
type patient struct {
	io.Reader
	origin *origin
}

func (p *patient) Read(b []byte) (int, error) {
	if p.origin != nil {
		p.origin.wait(p.origin.delay)
		p.origin = nil
	}
	return p.Reader.Read(b)
}

// wait lasts for d, or until the origin is closed.
func (o *origin) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-o.closed:
	}
}

// name remembers the server's end of a connection.
func (o *origin) name(as string, c *net.TCPConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.named[as] = c
}

// reset ends a named connection by RST and returns when it began to.
func (o *origin) reset(as string) (time.Time, error) {
	o.mu.Lock()
	c := o.named[as]
	delete(o.named, as)
	o.mu.Unlock()
	if c == nil {
		return time.Time{}, fmt.Errorf("the origin knows no connection %q", as)
	}
	if err := c.SetLinger(0); err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	return now, c.Close()
}

// serveAnswer answers when it has taken the whole request.
func (o *origin) serveAnswer(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	m := newMessage(answer, "")
	w.Write(m[:])
}

// serveLater is what a message later asks for.
func (o *origin) serveLater(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, &patient{r.Body, o})
	fmt.Fprint(w, n)
}

// serveWait answers after the time that was asked for, never for none.
func (o *origin) serveWait(w http.ResponseWriter, r *http.Request) {
	var due <-chan time.Time
	if d, err := time.ParseDuration(r.FormValue("for")); err == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
		o.serveAnswer(w, r)
	case <-r.Context().Done():
	case <-o.closed:
	}
}

// serveName is what a message name asks for.
func (o *origin) serveName(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(net.Conn)
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	o.name(r.FormValue("as"), c.(*net.TCPConn))
	o.serveAnswer(w, r)
}

type connKey struct{}

// withConn lets a handler know the connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

const originName = "origin.test"

// certify makes a certificate for originName.
func certify() (tls.Certificate, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{originName}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert, err
}

// clientTLS is for clients that trust one certificate, that of the origin.
func clientTLS(root *x509.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return &tls.Config{RootCAs: roots, ServerName: originName, MinVersion: tls.VersionTLS13}
}
