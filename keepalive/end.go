package keepalive

import (
	"errors"
	"io"
	"net"
	"time"
)

// A sight is what the kernel says of a socket.
type sight struct {
	known          bool
	closed         bool // by whoever has it underneath
	ended          bool // by the kernel: both FINs, a RST, or a verdict
	gotFIN         bool // the peer's
	unread, unsent int  // bytes; unsent includes sent but unacknowledged
}

// end closes the socket in the way that was ordered, and tells.
func (l *life) end(lost bool) error {
	if at := l.watch.Load(); at != nil {
		at.forget()
	}
	s := l.look()
	e, reset := l.judge(s)
	if reset && !orderReset(l.Conn) {
		e, reset = Ending{How: FINByUs, Unsure: true}, false
	}
	e.Lost = lost
	if dead := l.dead.Load(); dead != nil && e.How == TimedOut {
		e.Err = dead
		if dead.Evidence == GaveUp && s.known && s.unsent == 0 && l.neverAnswered() {
			e.Gap = l.plan.Load().Idle
		}
	}
	if l.vigil != nil {
		l.vigil.by.leave(l.vigil, e)
	}
	if !reset && !s.ended && l.plan.Load().Linger > 0 && (e.How == FINByUs || e.How == FINByPeer) {
		if began, err := l.linger(&e); began {
			return err
		}
	}
	err := l.Conn.Close()
	l.ended(e)
	return err
}

// neverAnswered reports whether not one keepalive probe was answered since something
// was read or written last, and the process was awake meanwhile: then the path may
// have forgotten the connection in the silence before the first of them.
func (l *life) neverAnswered() bool {
	plan := l.plan.Load()
	mono, wall := l.marked()
	quiet, ok := lastPayload(l.raw)
	one := plan.Idle + time.Duration(plan.Count)*plan.Interval // until the first ones are in vain
	return ok && plan.Idle > 0 && wall-mono < plan.Interval && quiet < one+plan.Idle/2
}

// orderReset makes c end by RST when it is closed, where it can.
func orderReset(c net.Conn) bool {
	sl, ok := c.(interface{ SetLinger(sec int) error })
	return ok && sl.SetLinger(0) == nil
}

// judge decides how the connection ends, and whether it takes a RST from us.
func (l *life) judge(s sight) (e Ending, reset bool) {
	if s.ended && l.marks.Load()&(sawReset|sawDeath) == 0 {
		l.note(l.verdict())
	}
	marks := l.marks.Load()
	gotFIN := s.gotFIN || marks&sawFIN != 0
	half := gotFIN || marks&sentFIN != 0 // a RST after a FIN does not shorten the hold

	switch {
	case marks&sawDeath != 0:
		return Ending{How: TimedOut, Unsure: true}, false
	case marks&sawReset != 0:
		return Ending{How: RSTByPeer, Unsure: half}, false
	case s.ended: // both FINs have passed
	case l.forgotten(s):
		return Ending{How: Forgotten}, true // no FIN would arrive
	case s.unread > 0: // the kernel answers with a RST
		return Ending{How: RSTByUs, Unsure: half || s.unsent > 0}, false
	case marks&answerDue != 0 && !gotFIN:
		return Ending{How: RSTByUs, Unsure: half || s.unsent > 0 || !s.known}, true
	case marks&soonest != 0 && !half && s.known && s.unsent == 0:
		return Ending{How: RSTByUs}, true
	}
	if gotFIN {
		return Ending{How: FINByPeer, Unsure: !s.known}, false
	}
	return Ending{How: FINByUs, Unsure: !s.known}, false
}

// forgotten reports whether the path must have lost the flow. Unacknowledged
// bytes make that doubtful, since their retransmissions may have refreshed it,
// and so does the wall clock, which may have been set.
func (l *life) forgotten(s sight) bool {
	return l.plan.Load().Forgets > 0 && s.known && s.unsent == 0 && l.quiet() > l.plan.Load().Forgets
}

// quiet returns for how long, at least, nothing was on the path: not even a
// probe without an answer.
func (l *life) quiet() time.Duration {
	if quiet, ok := lastMoved(l.raw); ok {
		return quiet
	}
	if l.moved() != l.sinceBytes.Load() || l.plan.Load().Idle > 0 {
		return 0 // probes, which nobody sees here, have kept it
	}
	mono, _ := l.marked()
	return mono
}

// look tells how the connection stands, without changing anything.
func (l *life) look() sight {
	l.looking.Lock()
	defer l.looking.Unlock()
	l.seen = inMemory(l.Conn)
	if l.raw != nil {
		l.seen.closed = errors.Is(l.raw.Control(l.see), net.ErrClosed)
	}
	return l.seen
}

// inMemory asks a connection that is no kernel socket.
func inMemory(c net.Conn) (s sight) {
	if e, ok := c.(interface{ Ended() error }); ok { // first: a FIN comes after the data
		err := e.Ended()
		s.gotFIN = err == io.EOF
		s.closed = errors.Is(err, net.ErrClosed)
		s.ended = err != nil && !s.gotFIN && !s.closed
	}
	if q, ok := c.(interface{ Queued() (unread, unsent int) }); ok {
		s.known = true
		s.unread, s.unsent = q.Queued()
	}
	return s
}

// verdict returns the error with which the connection ended, nil if in order.
// It is for the last look: it consumes the evidence.
func (l *life) verdict() error {
	if e, ok := l.Conn.(interface{ Ended() error }); ok {
		return e.Ended()
	}
	return socketError(l.raw)
}
