package main

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/natwise/natwise/dialer"
)

// verdict is what natwise says of a failed dial; of another's it says nothing.
func verdict(err error) (v, evidence string) {
	if e := new(dialer.DialError); errors.As(err, &e) {
		return e.Verdict.String(), e.Evidence
	}
	return "", ""
}

// lingerer finds the socket of a connection.
func lingerer(c net.Conn) (l interface{ SetLinger(int) error }, ok bool) {
	for {
		if l, ok = c.(interface{ SetLinger(int) error }); ok {
			return l, true
		}
		w, wraps := c.(interface{ NetConn() net.Conn })
		if !wraps {
			return nil, false
		}
		c = w.NetConn()
	}
}

// everywhere is a resolver that finds every name at one address.
type everywhere netip.Addr

func (e everywhere) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.Addr(e)}, nil
}

// The ways in which names cannot be looked up.
const (
	noSuchName = "no such name"
	noAnswer   = "no answer"
	noServer   = "no server"
)

// noNames is a resolver that fails.
type noNames string

func (n noNames) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	switch string(n) {
	case noSuchName:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case noAnswer:
		return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true, IsTemporary: true}
	}
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:1") // where nobody listens
	}}
	return r.LookupNetIP(ctx, network, host)
}
