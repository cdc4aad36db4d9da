package keepalive

import "net"

// A sight is what the kernel says of a socket at its end.
type sight struct {
	known          bool
	ended          bool // by the kernel: both FINs, a RST, or a verdict
	gotFIN         bool // the peer's
	unread, unsent int  // bytes; unsent includes sent but unacknowledged
}

// end closes the socket in the way that was ordered, and tells.
func (l *life) end(lost bool) error {
	s := look(l.Conn)
	e, reset := l.judge(s)
	e.Lost = lost
	if reset {
		if sl, ok := l.Conn.(interface{ SetLinger(sec int) error }); ok {
			sl.SetLinger(0)
		}
	} else if l.plan.Linger > 0 && !s.ended && (e.How == FINByUs || e.How == FINByPeer) {
		if ok, err := l.linger(e); ok {
			return err
		}
	}
	err := l.Conn.Close()
	l.ended(e)
	return err
}

// judge decides how the connection ends, and whether it takes a RST from us.
func (l *life) judge(s sight) (e Ending, reset bool) {
	marks := l.marks.Load()
	gotFIN := s.gotFIN || marks&sawFIN != 0
	half := gotFIN || marks&sentFIN != 0 // a RST after a FIN does not shorten the hold

	switch {
	case s.ended && marks&(sawReset|sawDeath) == 0:
		l.note(verdict(l.Conn))
		marks = l.marks.Load()
	case !s.ended && marks&(sawReset|sawDeath) == 0 && l.forgotten(s):
		return Ending{How: Forgotten}, true // no FIN would arrive
	}
	switch {
	case marks&sawDeath != 0:
		return Ending{How: TimedOut, Unsure: true}, false
	case marks&sawReset != 0:
		return Ending{How: RSTByPeer, Unsure: half}, false
	case s.ended: // both FINs have passed
	case s.unread > 0: // the kernel answers with a RST
		return Ending{How: RSTByUs, Unsure: half || s.unsent > 0}, false
	case marks&answerDue != 0:
		return Ending{How: RSTByUs, Unsure: half || s.unsent > 0 || !s.known}, true
	case marks&soonest != 0 && s.known && s.unsent == 0:
		return Ending{How: RSTByUs, Unsure: half}, true
	}
	if gotFIN {
		return Ending{How: FINByPeer, Unsure: !s.known}, false
	}
	return Ending{How: FINByUs, Unsure: !s.known}, false
}

// forgotten reports whether the path must have lost the flow. Unacknowledged
// bytes make it doubtful: their retransmissions may have refreshed it.
func (l *life) forgotten(s sight) bool {
	if l.plan.Forgets <= 0 || !s.known || s.unsent > 0 {
		return false
	}
	return l.silence() > l.plan.Forgets
}

// queued asks a connection that is no kernel socket.
func queued(c net.Conn) sight {
	if q, ok := c.(interface{ Queued() (unread, unsent int) }); ok {
		unread, unsent := q.Queued()
		return sight{known: true, unread: unread, unsent: unsent}
	}
	return sight{}
}
