package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// What a connection speaks.
const (
	plain   = "plain"
	overTLS = "tls"
	http1   = "http1"
	https1  = "http1 over tls"
	http2   = "http2"
)

// three are what most is measured over.
var three = []string{plain, overTLS, http2}

// A stage is a lab with an origin, and natwise's dialer. Whoever opens it closes
// it.
type stage struct {
	*natlab.Lab
	origin *origin
	tls    *tls.Config // of clients
	dialer *dialer.Dialer
	heard  journal // what the dialer told

	mu    sync.Mutex // guards lines
	lines []line
}

// open builds a stage. The zero Path is work.Path.
func open(cfg natlab.Config) (*stage, error) {
	if cfg.Path.Name == "" {
		cfg.Path = work.Path()
	}
	cert, root, err := certify()
	if err != nil {
		return nil, err
	}
	lab, err := natlab.New(cfg)
	if err != nil {
		return nil, err
	}
	st := &stage{Lab: lab, origin: newOrigin(cert), tls: clientTLS(root)}
	st.dialer = &dialer.Dialer{
		Ledger:  &dialer.Ledger{Path: cfg.Path, Ramp: -1},
		Dial:    lab.Dial,
		Observe: st.heard.hear,
	}
	if err := st.origin.listen(lab.Listen); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

func (st *stage) close() error {
	st.mu.Lock()
	lines := st.lines
	st.mu.Unlock()
	for _, l := range lines {
		l.close()
	}
	return errors.Join(st.origin.close(), st.Lab.Close())
}

// servers is the first n of the servers.
func (st *stage) servers(n int) (all []netip.Addr) {
	for i := range n {
		all = append(all, st.Server(i))
	}
	return all
}

// A side is who dials.
type side int

const (
	ours side = iota
	peer
)

// line opens a line to the i-th server and asks once, so that the connection is
// there.
func (st *stage) line(ctx context.Context, who side, over string, i int) (line, error) {
	return st.lineTo(ctx, who, over, st.Server(i))
}

func (st *stage) lineTo(ctx context.Context, who side, over string, server netip.Addr) (line, error) {
	l, err := st.dial(ctx, who, over, server)
	if err != nil {
		return nil, err
	}
	st.mu.Lock()
	st.lines = append(st.lines, l)
	st.mu.Unlock()
	if err := l.ask(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func (st *stage) dial(ctx context.Context, who side, over string, server netip.Addr) (line, error) {
	address := at(server, over).String()
	if who == peer {
		return dialLine(ctx, st.dialAsGo, func(tr *http.Transport) http.RoundTripper { return tr }, st.tls, over, address)
	}
	install := func(tr *http.Transport) http.RoundTripper { return httpx.Wrap(tr, st.dialer) }
	return dialLine(ctx, st.dialer.DialContext, install, st.tls, over, address)
}

// dialAsGo is what a net.Dialer without any settings does: the lab switches its
// keepalive off, which is switched on again here as net does.
func (st *stage) dialAsGo(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := st.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c, c.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) // zero fields: 15 s, 15 s, 9
}

// A pair is the same line of natwise's and of Go's.
type pair struct {
	over       string
	ours, peer line
}

// pairs opens a pair over each, on servers of their own, from the first-th on.
func (st *stage) pairs(ctx context.Context, overs []string, first int) (ps []pair, err error) {
	for i, over := range overs {
		p := pair{over: over}
		if p.ours, err = st.line(ctx, ours, over, first+2*i); err != nil {
			return nil, err
		}
		if p.peer, err = st.line(ctx, peer, over, first+2*i+1); err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// nft changes the gateway's rules.
func (st *stage) nft(rules string) error {
	_, err := st.Exec(context.Background(), "gateway", "nft", rules)
	return err
}

// settle waits until the origin's delayed acknowledgements are there, which take
// up to 200 ms.
func settle() { time.Sleep(300 * time.Millisecond) }

// A journal is what a dialer tells, with the time.
type journal struct {
	mu     sync.Mutex // guards events
	events []entry
}

type entry struct {
	at time.Time
	dialer.Event
}

func (j *journal) hear(e dialer.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, entry{time.Now(), e})
}

// first returns how long after an instant the first event of a kind came.
func (j *journal) first(kind dialer.EventKind, local netip.AddrPort, since time.Time) work.Reading {
	for _, e := range j.of(kind, local) {
		if e.at.After(since) {
			return work.Seconds(e.at.Sub(since))
		}
	}
	return work.MoreThan(time.Since(since))
}

// count is how many events of a kind there were.
func (j *journal) count(kind dialer.EventKind) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// of returns the events of a kind and a local address.
func (j *journal) of(kind dialer.EventKind, local netip.AddrPort) (es []entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Kind == kind && e.Local == local {
			es = append(es, e)
		}
	}
	return es
}
