package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A client is a way to send requests.
type client struct {
	name, what string
	open       func(w way) user
}

// A way is what a client is given.
type way struct {
	dial  dialFunc // through its NAT
	path  netpath.Profile
	hosts hosts
	roots *x509.CertPool

	// haste is by how much what a client does about silence is divided, where the path's
	// is: its keepalive probes, and when it closes what is idle.
	haste time.Duration
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// A user is a client that has been opened. Whoever opens one closes what is idle.
type user struct {
	send      func(*http.Request) (*http.Response, error)
	closeIdle func()
	ledger    *dialer.Ledger // natwise's own; nil: nobody keeps one
}

const natwise = "natwise"

var (
	leak     = client{"client-per-request", "a new http.Client for each request, the classic leak", clientPerRequest}
	standard = client{"http.DefaultTransport", "one client with the standard library's settings", defaultTransport}
	ours     = client{natwise, "one client that knows its path", natwiseClient}
)

// clientPerRequest is the classic leak: each client keeps its connection open
// for a second request that never comes.
func clientPerRequest(w way) user {
	var mu sync.Mutex // guards leaked
	var leaked []*http.Transport
	send := func(r *http.Request) (*http.Response, error) {
		tr := &http.Transport{DialContext: w.dial, TLSClientConfig: w.tls(), ForceAttemptHTTP2: true}
		mu.Lock()
		leaked = append(leaked, tr)
		mu.Unlock()
		client := http.Client{Transport: tr}
		return client.Do(r)
	}
	closeIdle := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, tr := range leaked {
			tr.CloseIdleConnections()
		}
	}
	return user{send: send, closeIdle: closeIdle}
}

// defaultTransport is one client for all, as the standard library sets it up: probes
// after 30 s of silence, and idle connections are closed after 90 s.
func defaultTransport(w way) user {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.Proxy = nil
	tr.DialContext = w.dial
	tr.TLSClientConfig = w.tls()
	if w.haste > 0 {
		tr.DialContext = probing(w.dial, 30*time.Second/w.haste)
		tr.IdleConnTimeout /= w.haste
	}
	client := http.Client{Transport: tr}
	return user{send: client.Do, closeIdle: client.CloseIdleConnections}
}

// probing is dial with keepalive probes, which a NAT that counts bytes takes no notice of.
func probing(dial dialFunc, every time.Duration) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if k, ok := c.(interface {
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); ok && err == nil {
			k.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: every, Interval: every})
		}
		return c, err
	}
}

// natwiseClient is one client for all that knows its path. There was no process
// before this one whose ports the NAT might still hold, so there is no Ramp.
func natwiseClient(w way) user {
	ledger := &dialer.Ledger{Path: w.path, Ramp: -1}
	client := http.Client{Transport: &httpx.Transport{
		Dialer: &dialer.Dialer{Ledger: ledger, Dial: w.dial, Resolver: w.hosts},
		TLS:    w.tls(),
		Proxy:  httpx.NoProxy,
	}}
	return user{client.Do, client.CloseIdleConnections, ledger}
}

func (w way) tls() *tls.Config {
	if w.roots == nil {
		return nil
	}
	return &tls.Config{RootCAs: w.roots}
}

// hosts are the names of the servers, as /etc/hosts would have them.
type hosts map[string]netip.Addr

// LookupNetIP makes a dialer.Resolver of them.
func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if addr, ok := h[host]; ok {
		return []netip.Addr{addr}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}
