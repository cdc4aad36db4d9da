package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// serviceName is what every backend's certificate says.
const serviceName = "service.test"

// An origin is all that listens in a lab: servers, and what the client itself serves.
// Whoever makes it closes it.
type origin struct {
	tls  *tls.Config
	root *x509.Certificate
	web  http.Server

	mu     sync.Mutex // guards the fields below
	closed bool
	ends   map[io.Closer]struct{}
}

func newOrigin() (*origin, error) {
	cert, root, err := certify()
	if err != nil {
		return nil, err
	}
	o := &origin{
		tls:  &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		root: root, ends: make(map[io.Closer]struct{}),
	}
	o.web.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	o.web.TLSConfig = o.tls.Clone()
	o.web.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	o.web.ErrorLog = log.New(io.Discard, "", 0) // dials that are abandoned end before they said hello
	return o, nil
}

// close ends everything.
func (o *origin) close() error {
	o.mu.Lock()
	o.closed = true
	ends := o.ends
	o.ends = nil
	o.mu.Unlock()
	for c := range ends {
		c.Close() // it may be closed
	}
	return o.web.Close()
}

// keep closes c in the end, or at once if that has come.
func (o *origin) keep(c io.Closer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		c.Close()
		return
	}
	o.ends[c] = struct{}{}
}

func (o *origin) forget(c io.Closer) {
	c.Close()
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.ends, c)
}

// echo sends back what comes, on all connections of a listener, which it owns from now on.
// Each answer takes so long.
func (o *origin) echo(ln net.Listener, takes time.Duration) {
	o.keep(ln)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			o.keep(c)
			defer o.forget(c)
			answer(c, takes)
		}()
	}
}

// echoTLS is echo over TLS.
func (o *origin) echoTLS(ln net.Listener) { o.echo(tls.NewListener(ln, o.tls), 0) }

// serve answers requests over TLS with their host. The listener is closed with o.web.
func (o *origin) serve(ln net.Listener) { o.web.ServeTLS(ln, "", "") }

func answer(c net.Conn, takes time.Duration) {
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(takes)
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// certify makes a certificate of all backends, who vouch for themselves.
func certify() (tls.Certificate, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{serviceName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	root, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, root, err
}

// clientTLS verifies the service by its name.
func clientTLS(root []byte) (*tls.Config, error) {
	cert, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, errors.Join(errors.New("the root"), err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{RootCAs: pool, ServerName: serviceName, MinVersion: tls.VersionTLS13}, nil
}
