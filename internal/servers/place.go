package servers

import (
	"net/netip"
)

// A Lab is a network of its own, whose servers have a namespace. A *natlab.Lab
// is one.
type Lab interface {
	// Inside calls f in the namespace "server".
	Inside(ns string, f func() error) error
	// Count opens the account of an address, without which the lab's clients
	// cannot reach it.
	Count(netip.AddrPort) error
}

// A Place is where a server stands. The zero Place is 127.0.0.1, at a port that
// is free.
type Place struct {
	lab  Lab
	addr netip.AddrPort
}

// In is a place in a lab: an address of its server, and a port where nobody
// else listens.
//
//	s := servers.In(lab, netip.AddrPortFrom(lab.Server(0), 5432)).Postgres(t)
//	c, err := lab.Dial(ctx, "tcp", s.Addr())
//
// The lab must outlive the server.
//
//doctest:compiled with: lab interface { servers.Lab; Server(int) netip.Addr; Dial(ctx context.Context, network, address string) (net.Conn, error) }
func In(lab Lab, addr netip.AddrPort) Place { return Place{lab, addr} }

// inside calls f where the server's network is. What f starts stays there.
func (p Place) inside(f func() error) error {
	if p.lab == nil {
		return f()
	}
	return p.lab.Inside("server", f)
}
