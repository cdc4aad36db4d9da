package keepalive

import (
	"errors"
	"net"
	"runtime"
	"time"
)

// An Info is a connection as its kernel sees it, at one moment. What a system
// does not tell is zero: darwin has no LastAck, Retransmits and Probes.
type Info struct {
	RTT, RTTVar time.Duration
	RTO         time.Duration // the first retransmission's, before any backoff

	// LastProof is how long ago payload came, which is an answer of the far end;
	// LastAck how long ago anything came, which a machine on the way may have
	// said in its place.
	LastProof, LastAck time.Duration

	Unread        int // bytes that have come
	Unacked       int // bytes that were written, sent or not, and are not acknowledged
	PeerWindow    int // bytes that the peer would take; 0: it does not read
	Retransmits   int // of the same bytes, in a row, all in vain
	Probes        int // keepalive probes without an answer
	Retransmitted int // segments, since the beginning

	SegmentsIn, SegmentsOut int // of any kind, since the beginning

	lastSent time.Duration // how long ago payload was sent, or sent again
	stalled  bool          // the peer has closed its window: nothing is on its way
	judged   bool          // a Detector can judge by it
	reckoned bool          // it is in memory, where nothing is sent again: reckon
}

// minRTO is the least retransmission timeout that Linux computes, TCP_RTO_MIN in
// include/net/tcp.h.
const minRTO = 200 * time.Millisecond

// Info looks at the connection and changes nothing. It costs about a
// microsecond. The error is errors.ErrUnsupported where nobody can look, and
// net.ErrClosed after the end.
func (c *Conn) Info() (Info, error) {
	defer runtime.KeepAlive(c)
	return c.l.info()
}

// sinceProof is how long ago a Read had something, where the kernel does not say.
func (l *life) sinceProof() time.Duration {
	return time.Since(l.born) - time.Duration(l.proved.Load())
}

// infoInMemory asks a connection that is no kernel socket.
func (l *life) infoInMemory() (Info, error) {
	s := inMemory(l.Conn)
	h, ok := l.Conn.(interface{ Heard() time.Duration })
	if !s.known || !ok {
		return Info{}, errors.ErrUnsupported
	}
	if s.closed {
		return Info{}, net.ErrClosed
	}
	return Info{RTO: minRTO, LastProof: l.sinceProof(), LastAck: h.Heard(), Unread: s.unread, Unacked: s.unsent,
		judged: true, reckoned: true}, nil
}
