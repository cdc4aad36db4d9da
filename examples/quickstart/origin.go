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
	"net/netip"
	"time"
)

const answer = "hello\n"

// A network is where the servers listen, and what is behind the NATs.
type network struct {
	listen func() (net.Listener, error)
	dial   dialFunc // nil: the kernel's
}

func loopback() network {
	return network{listen: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }}
}

// origins are the servers of a scene.
type origins struct {
	at      []netip.AddrPort // of each site
	urls    []string
	names   hosts
	roots   *x509.CertPool // nil: they do without TLS
	servers []*http.Server
	ended   chan error // has what each Serve returned
}

// serve starts a server for each site. Whoever calls it calls close.
func serve(on network, s *scene) (*origins, error) {
	o := &origins{names: make(hosts), ended: make(chan error, len(s.sites))}
	cert, err := o.certify(s)
	if err != nil {
		return nil, err
	}
	for _, site := range s.sites {
		ln, err := on.listen()
		if err != nil {
			o.close()
			return nil, err
		}
		o.add(site, ln, cert, s.service)
	}
	return o, nil
}

func (o *origins) add(site site, ln net.Listener, cert *tls.Certificate, service time.Duration) {
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	scheme := "http"
	server := &http.Server{Handler: answerAfter(service), ErrorLog: log.New(io.Discard, "", 0)}
	serve := server.Serve
	if cert != nil {
		scheme = "https"
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
		serve = func(ln net.Listener) error { return server.ServeTLS(ln, "", "") }
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	o.at = append(o.at, at)
	o.urls = append(o.urls, scheme+"://"+net.JoinHostPort(site.host(), port)+"/")
	o.names[site.host()] = at.Addr()
	o.servers = append(o.servers, server)
	go func() { o.ended <- serve(ln) }()
}

// close ends the servers, and returns when they have ended.
func (o *origins) close() {
	for _, s := range o.servers {
		s.Close()
	}
	for range o.servers {
		<-o.ended
	}
}

func answerAfter(service time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait := time.NewTimer(service)
		defer wait.Stop()
		select {
		case <-wait.C:
			io.WriteString(w, answer)
		case <-r.Context().Done():
		}
	})
}

// host is what the clients call the site.
func (s site) host() string { return s.name + ".example" }

// certify makes a certificate for the sites of s, if it wants one.
func (o *origins) certify(s *scene) (*tls.Certificate, error) {
	if !s.secure {
		return nil, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	for _, site := range s.sites {
		template.DNSNames = append(template.DNSNames, site.host())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	o.roots = x509.NewCertPool()
	o.roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, errors.Join(err)
}
