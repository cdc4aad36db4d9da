package netpath

import "net/netip"

// A Key names one account: the flows that a NAT counts together. Parts that do
// not matter to its scope are zero, and addresses are unmapped, so that equal
// keys compare equal.
type Key struct {
	Source  netip.Addr
	Dest    netip.AddrPort
	Network string // "tcp"; zero in the scope Sockets
}

// Scope returns which flows share the account.
func (k Key) Scope() Scope {
	switch {
	case k.Source.IsValid():
		return SourceDestination
	case k.Dest.IsValid():
		return Destination
	case k.Network != "":
		return AllPorts
	}
	return Sockets
}

// String returns the key as people write it: "tcp 20.1.2.3:443".
func (k Key) String() string {
	switch k.Scope() {
	case SourceDestination:
		return k.Network + " " + k.Source.String() + " to " + k.Dest.String()
	case Destination:
		return k.Network + " " + k.Dest.String()
	case AllPorts:
		return k.Network + " to anywhere"
	}
	return "open connections"
}

// Keys appends to keys the accounts that a flow from src to dst owes, and
// returns the extended slice. It appends none for an exempt destination. A flow
// owes an account of its destination even where that has no limit, so that it
// is seen. The network is "tcp", "tcp4" or "tcp6"; src may be zero where no
// limit counts sources.
func (p Profile) Keys(keys []Key, src netip.Addr, dst netip.AddrPort, network string) []Key {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	if p.exempts(dst.Addr()) {
		return keys
	}
	if len(network) > 3 {
		network = network[:3] // one inventory for tcp4 and tcp6: Dest tells them apart
	}
	var owed [scopes]bool
	for _, l := range p.Limits {
		owed[l.Scope] = true
	}
	if owed[SourceDestination] && src.IsValid() {
		keys = append(keys, Key{src.Unmap(), dst, network})
	}
	if owed[Destination] || !owed[SourceDestination] || !src.IsValid() {
		keys = append(keys, Key{Dest: dst, Network: network})
	}
	if owed[AllPorts] {
		keys = append(keys, Key{Network: network})
	}
	if owed[Sockets] {
		keys = append(keys, Key{})
	}
	return keys
}

func (p Profile) exempts(a netip.Addr) bool {
	exempt := p.Exempt
	if exempt == nil {
		exempt = untranslated
	}
	a = a.WithZone("")
	for _, prefix := range exempt {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}
