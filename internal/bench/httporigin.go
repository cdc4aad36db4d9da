package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// asOrigin is the argument that makes this program the origin of the bench http: a
// process of its own, so that a client's allocations are the client's alone.
const asOrigin = "http-origin"

// A protocol is what an origin speaks, and nothing else, at one of its addresses.
type protocol string

const (
	plain  protocol = "HTTP/1.1"
	secure protocol = "HTTP/1.1 over TLS"
	second protocol = "HTTP/2 over TLS"
)

var protocols = []protocol{plain, secure, second}

// speaks returns what a server of this protocol may speak.
func (p protocol) speaks() *http.Protocols {
	s := new(http.Protocols)
	s.SetHTTP1(p != second)
	s.SetHTTP2(p == second)
	return s
}

func (p protocol) scheme() string {
	if p == plain {
		return "http"
	}
	return "https"
}

// answer is the body of every answer.
const answer = "sixteen letters."

// A notice is what an origin tells whoever started it.
type notice struct {
	URLs map[protocol]string
	Root []byte // its certificate
}

// An origin is the other process. Whoever starts it closes it.
type origin struct {
	notice
	process *exec.Cmd
	lives   io.Closer // the origin's standard input
}

// startOrigin runs this program once more. The origin ends with its standard input,
// and so ends too if this process is killed.
func startOrigin() (*origin, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &origin{process: exec.Command(self, asOrigin)}
	o.process.Stderr = os.Stderr
	if o.lives, err = o.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := o.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := o.process.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(out).Decode(&o.notice); err != nil {
		return nil, errors.Join(fmt.Errorf("the origin said nothing: %w", err), o.close())
	}
	return o, nil
}

// close waits for the end of the process.
func (o *origin) close() error {
	o.lives.Close()
	late := time.AfterFunc(stuck, func() { o.process.Process.Kill() })
	defer late.Stop()
	return o.process.Wait()
}

// trust returns a new configuration for clients of the origin.
func (o *origin) trust() (*tls.Config, error) {
	root, err := x509.ParseCertificate(o.Root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return &tls.Config{RootCAs: roots}, nil
}

// beOrigin serves until nobody holds the other end of in any more, and returns the
// status of the process.
func beOrigin(in io.Reader, out, stderr io.Writer) int {
	servers, said, err := openOrigin()
	if err == nil {
		err = json.NewEncoder(out).Encode(said)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	for _, s := range servers {
		s.Close()
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench: origin:", err)
		return 1
	}
	return 0
}

// openOrigin starts a server for each protocol. They end with Close.
func openOrigin() (servers []*http.Server, said notice, err error) {
	cert, err := certify(net.IPv4(127, 0, 0, 1))
	if err != nil {
		return nil, said, err
	}
	said = notice{URLs: make(map[protocol]string), Root: cert.Certificate[0]}
	serve := originHandler()
	for _, p := range protocols {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return servers, said, err
		}
		s := &http.Server{
			Handler: serve, Protocols: p.speaks(),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
			ErrorLog:  log.New(io.Discard, "", 0), // a client that leaves in the middle is no news
		}
		servers = append(servers, s)
		said.URLs[p] = p.scheme() + "://" + ln.Addr().String()
		if p == plain {
			go s.Serve(ln)
		} else {
			go s.ServeTLS(ln, "", "")
		}
	}
	return servers, said, nil
}

// certify makes a certificate that its bearer has signed.
func certify(ip net.IP) (cert tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, err
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{ip}, NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// originHandler answers at once; below /meet, as soon as n requests are there.
func originHandler() http.Handler {
	met := new(meeting)
	reply := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		io.WriteString(w, answer)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { reply(w) })
	mux.HandleFunc("/meet/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if met.wait(r.Context(), n) == nil {
			reply(w)
		}
	})
	return mux
}

// A meeting is where requests wait for each other. The zero meeting is ready to
// use, for one number of requests at a time.
type meeting struct {
	mu    sync.Mutex // guards the fields below
	here  int
	begun chan struct{} // closed when all are here
}

// wait waits until n are here, or for the end of ctx.
func (m *meeting) wait(ctx context.Context, n int) error {
	m.mu.Lock()
	if m.here == 0 {
		m.begun = make(chan struct{})
	}
	begun := m.begun
	if m.here++; m.here >= n {
		m.here = 0
		close(begun)
	}
	m.mu.Unlock()
	select {
	case <-begun:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.begun == begun && m.here > 0 {
		m.here--
	}
	return ctx.Err()
}
