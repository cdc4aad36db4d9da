package telemetry

import "net/netip"

// PeerAt is where a connection to a would count.
func (s *Scope) PeerAt(a netip.AddrPort) *Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peerLocked(a)
}
