package httpx

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	// maxIdle is how many idle connections a host may have where the path sets
	// no limit.
	maxIdle = 256

	// defaultMaxIdle is what http.DefaultTransport and its clones keep for all
	// hosts together: fewer than the ports to one. It was nobody's choice.
	defaultMaxIdle = 100

	pingTimeout = 15 * time.Second // net/http's own default, spelled out

	// leastPing is the silence before a ping where keepalive probes keep the path:
	// a ping without an answer ends the connection, which is to survive a path
	// that is down for 30 s.
	leastPing = 30 * time.Second
)

// Install makes tr take its connections from d; nil: a zero Dialer. It replaces
// DialContext, sets MaxConnsPerHost to d.MaxConns and keeps idle
// connections up to it, as far as tr does not say otherwise (the 100 of
// http.DefaultTransport for all hosts count as not said), pings silent
// HTTP/2 connections, and shortens IdleConnTimeout where the path would forget
// an idle connection in spite of keepalive probes. Call it before the first
// request, and after the ledger's Path is set. It fails if tr dials TLS itself,
// which would go past d.
func Install(tr *http.Transport, d *dialer.Dialer) error {
	if tr == nil {
		return errors.New("httpx: Install on a nil *http.Transport")
	}
	//lint:ignore SA1019 the old field would go past us as well
	if tr.DialTLSContext != nil || tr.DialTLS != nil {
		return errors.New("httpx: Transport.DialTLSContext or DialTLS is set: its connections would not be counted")
	}
	if d == nil {
		d = new(dialer.Dialer)
	}
	path := d.Path()
	if err := path.Validate(); err != nil {
		return err
	}
	//lint:ignore SA1019 the old field decides on HTTP/2 too
	if tr.DialContext == nil && tr.Dial == nil && tr.TLSClientConfig == nil {
		tr.ForceAttemptHTTP2 = true // net/http would have, but for our DialContext
	}
	tr.DialContext = dialFor(tr, d)
	limitIdle(tr, d.MaxConns())

	if limit := d.MaxIdle(); limit > 0 && (tr.IdleConnTimeout == 0 || tr.IdleConnTimeout > limit) {
		tr.IdleConnTimeout = limit
	}
	if ping := pingEvery(d); tr.HTTP2 == nil && ping > 0 {
		tr.HTTP2 = &http.HTTP2Config{SendPingTimeout: ping, PingTimeout: pingTimeout}
	}
	return nil
}

// limitIdle bounds connections by the path's limit and closes none for being
// idle below it.
func limitIdle(tr *http.Transport, limit int) {
	if limit == netpath.None {
		limit = maxIdle
	} else if tr.MaxConnsPerHost == 0 || tr.MaxConnsPerHost > limit {
		tr.MaxConnsPerHost = limit
	}
	if tr.MaxConnsPerHost > 0 {
		limit = min(limit, tr.MaxConnsPerHost)
	}
	if tr.MaxIdleConnsPerHost == 0 {
		tr.MaxIdleConnsPerHost = limit
	}
	if tr.MaxIdleConns == defaultMaxIdle {
		tr.MaxIdleConns = 0
	}
}

// An owner is whom ports belong to, for fairness: a transport's connections to
// one host.
type owner struct {
	transport *http.Transport
	host      string
}

// dialFor returns a DialContext that asks for a port only as long as the
// request that wants the connection has none.
func dialFor(tr *http.Transport, d *dialer.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx = dialer.WithOwner(ctx, owner{tr, address})
		t, _ := ctx.Value(ticketKey{}).(*ticket)
		wanted, done := t.wanted(ctx)
		defer done()
		r, err := d.Reserve(wanted, network, address)
		if err != nil {
			return nil, err
		}
		c, err := r.Dial(ctx) // a SYN that was sent is paid for: finish it
		if err == nil {
			t.dialed(c.(*dialer.Conn))
		}
		return c, err
	}
}
