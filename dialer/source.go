package dialer

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// A Source is where flows may begin: a local address, a network interface, or both. Where a
// NAT counts sources, each address has ports of its own, and a flow begins where there is
// most room. A load balancer's own backend reaches the balancer from an address or interface
// whose flows are translated on the way: what comes back to Linux with another address of the
// same host is dropped as well.
type Source struct {
	// Addr is a local address. Zero: the interface's first of the destination's family, or
	// the system's choice.
	Addr netip.Addr

	// Interface is the name of the network interface that packets leave by, whatever the
	// routes say, such as "eth1". Linux only, and without privileges since 5.7. Empty: the
	// routes decide.
	Interface string

	// For are the destinations that the source is for. Those that are particular in this
	// come before those that are not. Empty: all.
	For []netip.Prefix
}

// checkSources reports what of Sources cannot be obeyed.
func (d *Dialer) checkSources() error {
	if len(d.Sources) == 0 {
		return nil
	}
	if d.Dial != nil {
		return errors.New("dialer: Sources is set together with Dial, which cannot obey it")
	}
	for i, s := range d.Sources {
		if s.Interface != "" && !bindsToDevice {
			return fmt.Errorf("dialer: Sources[%d].Interface is %q, and only Linux can bind to one", i, s.Interface)
		}
		for _, p := range s.For {
			if !p.IsValid() {
				return fmt.Errorf("dialer: Sources[%d].For has an invalid prefix", i)
			}
		}
	}
	return nil
}

// sourcesFor returns the sources for a destination, with their addresses: none that fits its
// family, or the zero Source where the system may choose. The error says why there are none.
func (d *Dialer) sourcesFor(dst netip.Addr) ([]Source, error) {
	var particular, general []Source
	free := len(d.Sources) == 0
	for _, s := range d.Sources {
		switch {
		case len(s.For) == 0:
			general = append(general, s)
		case slices.ContainsFunc(s.For, func(p netip.Prefix) bool { return p.Contains(dst) }):
			particular = append(particular, s)
		default:
			free = true // of those that are for elsewhere only, this one is not bound by
		}
	}
	chosen := particular
	if len(chosen) == 0 {
		chosen = general
	}
	if len(chosen) == 0 && free {
		return []Source{{}}, nil
	}
	var fits []Source
	var gone error // an interface
	for _, s := range chosen {
		if s.Interface != "" && !s.Addr.IsValid() {
			a, err := addressOf(s.Interface, dst)
			gone = cmp.Or(gone, err)
			if !a.IsValid() {
				continue // it has none of that family, or is gone
			}
			s.Addr = a
		}
		if s.Addr = s.Addr.Unmap(); !s.Addr.IsValid() || s.Addr.Is4() == dst.Is4() {
			fits = append(fits, s)
		}
	}
	if len(fits) > 0 {
		return fits, nil // the others will do
	}
	return nil, gone
}

// addressOf returns the first address of an interface that a flow to dst can come from; the
// zero Addr: it has none of that family.
func addressOf(name string, dst netip.Addr) (netip.Addr, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("dialer: Sources: interface %q: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("dialer: Sources: interface %q: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() == dst.Is4() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, nil
}
