package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/pool/conns"
)

// answerDue is how long an answer may take, where nothing else is said.
const answerDue = 2 * time.Second

// ports is where the origin speaks what.
var ports = map[string]uint16{plain: echoPort, overTLS: echoTLSPort, http1: webPort, https1: webTLSPort, http2: webTLSPort}

// at is where a server speaks over.
func at(server netip.Addr, over string) netip.AddrPort {
	return netip.AddrPortFrom(server, ports[over])
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// A crowd is connections to one server that are kept by somebody.
type crowd struct {
	over string

	// use has a connection for one exchange, calls meet before it gives it back,
	// and returns the connection's own address. Its context has a deadline.
	use   func(ctx context.Context, meet func()) (netip.AddrPort, error)
	close func()
}

// config is that of a pool of connections over plain TCP or TLS.
func config(over string, client *tls.Config) (cfg conns.Config) {
	if over == overTLS {
		cfg.TLS = client
	}
	return cfg
}

// pooled is a crowd in a conns.Pool.
func pooled(d *dialer.Dialer, cfg conns.Config, server netip.Addr, over string) crowd {
	p := conns.New(d, cfg)
	address := at(server, over).String()
	use := func(ctx context.Context, meet func()) (local netip.AddrPort, err error) {
		c, err := p.Get(ctx, "tcp", address)
		if err != nil {
			return local, err
		}
		defer c.Close()
		local = addrPort(c.LocalAddr())
		due, _ := ctx.Deadline()
		if err := exchange(c, answer, "", due); err != nil {
			return local, err
		}
		meet()
		c.Put()
		return local, nil
	}
	return crowd{over, use, func() { p.Close(context.Background()) }}
}

// exchange asks one thing on a connection that speaks messages.
func exchange(c net.Conn, what byte, text string, due time.Time) error {
	if err := c.SetDeadline(due); err != nil {
		return err
	}
	m := newMessage(what, text)
	if _, err := c.Write(m[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, m[:])
	return err
}

// transported is a crowd of an HTTP client's.
func transported(rt http.RoundTripper, server netip.Addr, over string) crowd {
	scheme := "http"
	if over != http1 {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://%v/answer", scheme, at(server, over))
	use := func(ctx context.Context, meet func()) (local netip.AddrPort, err error) {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { local = addrPort(info.Conn.LocalAddr()) },
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return local, err
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			return local, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return local, errors.New(resp.Status)
		}
		meet()
		_, err = io.Copy(io.Discard, resp.Body)
		return local, err
	}
	return crowd{over, use, (&http.Client{Transport: rt}).CloseIdleConnections}
}

// transport is an http.Transport that keeps as many connections as it gets.
func transport(dial dialFunc, client *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: client.Clone(), DialContext: dial, MaxIdleConnsPerHost: 1 << 20}
}

// once uses any connection once.
func (c crowd) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerDue)
	defer cancel()
	_, err := c.use(ctx, func() {})
	return err
}

// A turnout is what became of a crowd when all of it was used.
type turnout struct {
	failed int
	err    error // of the first that did
	locals map[netip.AddrPort]bool
	took   []time.Duration // of all exchanges
}

// slowest is the longest time that an exchange took.
func (t turnout) slowest() work.Reading { return work.Seconds(slices.Max(t.took)) }

// beyond is how many took longer than that.
func (t turnout) beyond(limit time.Duration) (n int) {
	for _, d := range t.took {
		if d > limit {
			n++
		}
	}
	return n
}

// useAll uses n connections at once, so that nobody gets what another has just
// given back. Each answer is due after a while.
func useAll(ctx context.Context, c crowd, n int, due time.Duration) turnout {
	ctx, cancel := context.WithTimeout(ctx, due)
	defer cancel()
	t := turnout{locals: make(map[netip.AddrPort]bool)}
	var mu sync.Mutex // guards t
	var all, there sync.WaitGroup
	there.Add(n)
	begin := time.Now()
	for range n {
		all.Go(func() {
			var took time.Duration
			arrive := sync.OnceFunc(func() {
				took = time.Since(begin)
				there.Done()
			})
			local, err := c.use(ctx, func() { arrive(); there.Wait() })
			arrive()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.failed++
				t.err = cmp.Or(t.err, err)
			}
			t.locals[local] = true
			t.took = append(t.took, took)
		})
	}
	all.Wait()
	return t
}

// again is how many connections were used both times.
func again(before, after turnout) (n int) {
	for local := range after.locals {
		if before.locals[local] {
			n++
		}
	}
	return n
}
