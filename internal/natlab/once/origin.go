package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The origin's ports.
const (
	webPort    = 80  // HTTP/1.1
	webTLSPort = 443 // HTTP/2 and HTTP/1.1
)

// idField says which request this is.
const idField = "Id"

// An origin counts requests. It can be killed and started again, and goes on counting.
// Whoever makes it kills it in the end.
type origin struct {
	listen func(address string) (net.Listener, error)
	tls    *tls.Config
	mux    http.ServeMux

	mu     sync.Mutex // guards the fields below
	counts map[string]int
	mixed  int // requests whose body was another one's
	life   *life
}

// A life is an origin between its start and its end.
type life struct {
	servers   []*http.Server
	listeners []net.Listener
	over      bool
	conns     map[*net.TCPConn]struct{}
}

func newOrigin(cert tls.Certificate, listen func(address string) (net.Listener, error)) *origin {
	o := &origin{
		listen: listen,
		tls:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}},
		counts: make(map[string]int),
	}
	o.mux.HandleFunc("POST /count", o.serveCount)
	o.mux.HandleFunc("GET /", serveID)
	o.mux.HandleFunc("GET /wait", serveWait)
	return o
}

// start listens on both ports.
func (o *origin) start() error {
	now := &life{conns: make(map[*net.TCPConn]struct{})}
	for port, serve := range map[int]func(*http.Server, net.Listener) error{
		webPort:    func(s *http.Server, ln net.Listener) error { return s.Serve(ln) },
		webTLSPort: func(s *http.Server, ln net.Listener) error { return s.ServeTLS(ln, "", "") },
	} {
		ln, err := o.listen(":" + strconv.Itoa(port))
		if err != nil {
			o.end(now, true)
			return err
		}
		s := &http.Server{
			Handler: &o.mux, TLSConfig: o.tls.Clone(),
			ErrorLog: log.New(io.Discard, "", 0), // handshakes that a fault has ended
		}
		now.listeners = append(now.listeners, ln)
		now.servers = append(now.servers, s)
		go serve(s, &door{ln, o, now}) // until the end of its life
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.life = now
	return nil
}

// kill ends all connections at once, by RST or, as the kernel does where a process
// dies, by FIN (and by RST where something was not read). Dials are refused.
func (o *origin) kill(reset bool) {
	o.mu.Lock()
	now := o.life
	o.life = nil
	o.mu.Unlock()
	if now != nil {
		o.end(now, reset)
	}
}

func (o *origin) end(l *life, reset bool) {
	for _, ln := range l.listeners {
		ln.Close()
	}
	for _, c := range o.empty(l) {
		cut(c, reset)
	}
	for _, s := range l.servers {
		s.Close() // its connections cannot say goodbye any more
	}
}

// empty lets nobody in any more and returns who was there.
func (o *origin) empty(l *life) []*net.TCPConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.over = true
	return slices.Collect(maps.Keys(l.conns))
}

// cut closes the socket, below TLS and HTTP.
func cut(c *net.TCPConn, reset bool) {
	if reset {
		c.SetLinger(0)
	}
	c.Close()
}

// reset ends one connection of a destination by RST, whichever. It reports false if
// there is none.
func (o *origin) reset(dst netip.Addr) bool {
	c := o.anyone(dst)
	if c != nil {
		cut(c, true)
	}
	return c != nil
}

func (o *origin) anyone(dst netip.Addr) *net.TCPConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.life == nil {
		return nil
	}
	for c := range o.life.conns { // in no order
		if c.LocalAddr().(*net.TCPAddr).AddrPort().Addr() == dst {
			delete(o.life.conns, c)
			return c
		}
	}
	return nil
}

// A door is a listener that knows who came in.
type door struct {
	net.Listener
	origin *origin
	life   *life
}

func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	raw := c.(*net.TCPConn)
	if !d.admit(raw) {
		cut(raw, true)
	}
	return &guest{raw, d}, nil
}

// admit remembers who came in, unless this life is over.
func (d *door) admit(c *net.TCPConn) bool {
	d.origin.mu.Lock()
	defer d.origin.mu.Unlock()
	d.life.conns[c] = struct{}{}
	return !d.life.over
}

// A guest is forgotten when it leaves.
type guest struct {
	*net.TCPConn
	door *door
}

func (g *guest) Close() error {
	g.door.origin.mu.Lock()
	delete(g.door.life.conns, g.TCPConn)
	g.door.origin.mu.Unlock()
	return g.TCPConn.Close()
}

// runs reports whether the origin is alive.
func (o *origin) runs() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.life != nil
}

// count is how often the origin has begun to serve a request of that id.
func (o *origin) count(id string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[id]
}

// wrong is how many requests had the body of another one.
func (o *origin) wrong() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mixed
}

// maxService is how long the origin takes to answer at most.
const maxService = 10 * time.Millisecond

// serveCount counts a request as soon as it is there, and answers when its body is.
func (o *origin) serveCount(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(idField)
	o.mu.Lock()
	o.counts[id]++
	o.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if first, _, _ := strings.Cut(string(body), "\n"); first != id {
		o.mu.Lock()
		o.mixed++
		o.mu.Unlock()
	}
	serveID(w, r)
}

// serveID answers.
func serveID(w http.ResponseWriter, r *http.Request) { answer(w, r, mathrand.N(maxService)) }

// serveWait answers after the time that was asked for.
func serveWait(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, r, d)
}

// answer answers with the request's id, if somebody still wants that then.
func answer(w http.ResponseWriter, r *http.Request, after time.Duration) {
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-t.C:
		id := r.Header.Get(idField)
		w.Header().Set(idField, id)
		io.WriteString(w, id)
	case <-r.Context().Done():
	}
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
