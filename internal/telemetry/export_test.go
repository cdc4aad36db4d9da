package telemetry

import "net/netip"

var VersionIn = versionIn

// PeerAt is where a connection to a would count.
func (s *Scope) PeerAt(a netip.AddrPort) *Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peerLocked(a)
}

// Held reports whether whoever counts something has to wait.
func (s *Scope) Held() bool {
	free := s.mu.TryLock()
	if free {
		s.mu.Unlock()
	}
	return !free
}
