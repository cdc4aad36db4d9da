package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// What a client speaks.
const (
	http1  = "http1"
	https1 = "http1 over tls"
	http2  = "http2"
)

var three = []string{http1, https1, http2}

// Whose client it is.
const (
	ours      = "ours"
	byDefault = "http.Transport"
	tuned     = "http.Transport, tuned"
)

// A stage is a lab with an origin, and clients. Whoever opens it closes it.
type stage struct {
	*natlab.Lab
	origin  *origin
	tls     *tls.Config // of clients
	dialer  *dialer.Dialer
	clients []*client
	strikes int // of faults, so far

	mu    sync.Mutex // guards flows
	flows map[netip.Addr][]*net.TCPConn
}

// open builds a stage with a client of each of who for each that is spoken. The path
// forgets after idle, and natwise is told what work.Path says.
func open(idle time.Duration, overs []string, who ...string) (*stage, error) {
	cert, root, err := certify()
	if err != nil {
		return nil, err
	}
	path := work.Path()
	path.Idle = idle
	lab, err := natlab.New(natlab.Config{Path: path, Room: roomForPeers, Servers: len(who) * len(overs)})
	if err != nil {
		return nil, err
	}
	st := &stage{Lab: lab, origin: newOrigin(cert, lab.Listen), tls: clientTLS(root), flows: make(map[netip.Addr][]*net.TCPConn)}
	st.dialer = &dialer.Dialer{Ledger: &dialer.Ledger{Path: work.Path(), Ramp: -1}, Dial: st.dial}
	if err := errors.Join(st.origin.start(), st.nft(cutRules)); err != nil {
		return nil, errors.Join(err, st.close())
	}
	for i, over := range overs {
		for j, w := range who {
			st.clients = append(st.clients, st.client(w, over, lab.Server(i*len(who)+j)))
		}
	}
	return st, nil
}

// roomForPeers is more than the path's limit, which peers know nothing of.
const roomForPeers = 8192

func (st *stage) close() error {
	var errs []error
	for _, c := range st.clients {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("%s, %s: %w", c.who, c.over, err))
		}
	}
	st.origin.kill(true)
	return errors.Join(append(errs, st.Lab.Close())...)
}

// dial remembers the connections to each address.
func (st *stage) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := st.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	raw := c.(*net.TCPConn)
	to := raw.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.flows[to] = append(slices.DeleteFunc(st.flows[to], closed), raw)
	return c, nil
}

// dialAsGo is what a net.Dialer without any settings does: the lab switches its
// keepalive off, which is switched on again here as net does.
func (st *stage) dialAsGo(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := st.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c, c.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) // zero fields: 15 s, 15 s, 9
}

// closed reports whether the client has closed c.
func closed(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	return err != nil || errors.Is(raw.Control(func(uintptr) {}), net.ErrClosed)
}

// open returns the client's connections to an address.
func (st *stage) open(to netip.Addr) []*net.TCPConn {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.flows[to] = slices.DeleteFunc(st.flows[to], closed)
	return slices.Clone(st.flows[to])
}

// cutRules make the gateway end those flows by RST that are in a set, when the client
// sends something; the origin is not told.
const cutRules = "add table ip once; " +
	"add set ip once victims { type ipv4_addr . inet_service . ipv4_addr . inet_service ; flags timeout ; timeout 5s ; }; " +
	"add chain ip once cutting { type filter hook forward priority filter - 5 ; }; " +
	`add rule ip once cutting iifname "inside" ip saddr . tcp sport . ip daddr . tcp dport @victims reject with tcp reset`

// cut ends a flow as a gateway does that resets.
func (st *stage) cut(c *net.TCPConn) error {
	from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	return st.nft(fmt.Sprintf("add element ip once victims { %s . %d . %s . %d }", from.IP, from.Port, to.IP, to.Port))
}

// nft changes the gateway's rules.
func (st *stage) nft(rules string) error {
	_, err := st.Exec(context.Background(), "gateway", "nft", rules)
	return err
}

// patience is for how long ours outlasts connects that fail; an outage is shorter.
const patience = 5 * time.Second

// A client has a destination of its own.
type client struct {
	http.Client
	who, over string
	at        netip.Addr
	base      string // of URLs
	close     func() error
}

func (st *stage) client(who, over string, at netip.Addr) *client {
	c := &client{who: who, over: over, at: at, base: "https://" + netip.AddrPortFrom(at, webTLSPort).String()}
	if over == http1 {
		c.base = "http://" + netip.AddrPortFrom(at, webPort).String()
	}
	if who == ours {
		tr := &httpx.Transport{Dialer: st.dialer, TLS: st.tls, Protocols: protocols(over), Proxy: httpx.NoProxy, Patience: patience}
		c.Transport = tr
		c.close = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			return tr.Close(ctx)
		}
		return c
	}
	tr := &http.Transport{DialContext: st.dialAsGo, TLSClientConfig: st.tls.Clone(), Protocols: protocols(over)}
	if who == tuned {
		tr.MaxIdleConnsPerHost = 128
		tr.IdleConnTimeout = 90 * time.Second
		tr.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second}
	}
	c.Transport = tr
	c.close = func() error {
		tr.CloseIdleConnections()
		return nil
	}
	return c
}

func protocols(over string) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(over != http2)
	p.SetHTTP2(over == http2)
	return p
}

// clientTLS is for clients that trust one certificate, that of the origin.
func clientTLS(root *x509.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return &tls.Config{RootCAs: roots, ServerName: originName, MinVersion: tls.VersionTLS13}
}
