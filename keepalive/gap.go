package keepalive

import (
	"runtime"
	"time"
)

const (
	// leastGap is of no interest to a Learner if it is shorter.
	leastGap = time.Second

	// delayedACK is by how much the acknowledgement of the last answer may be late
	// (Linux, TCP_DELACK_MAX): it is part of no gap.
	delayedACK = 200 * time.Millisecond
)

// WhenSurvived has f called when a Read brings something after a silence between
// Park and Unpark of at least a second in which the kernel has sent and received
// nothing at all, but for the acknowledgement that may be due when it begins. That
// is how long the path remembers, at least. It costs two looks at the socket
// a turn. Call it before the connection is used. Linux only; elsewhere nobody can
// certify a silence, and f is never called.
func (c *Conn) WhenSurvived(f func(gap time.Duration)) { c.l.survived = f }

// Gap returns the silence with which this turn began, if it was certified as
// WhenSurvived says and nothing was read since. Zero: it was not, or something was.
func (c *Conn) Gap() time.Duration { return time.Duration(c.l.gap.Load()) }

// beginGap notes, at the end of a turn, what has crossed the path so far.
func (l *life) beginGap() {
	if l.survived == nil {
		return
	}
	i, err := l.info()
	if err != nil {
		i.SegmentsIn = -1
	}
	l.segments.Store(uint64(uint32(i.SegmentsIn))<<32 | uint64(uint32(i.SegmentsOut)))
}

// endGap certifies, at the beginning of a turn, the silence before it.
func (l *life) endGap() {
	if l.survived == nil {
		return
	}
	l.gap.Store(int64(l.certified()))
}

// certified returns for how long nothing has crossed the path, but before the last
// Park for no longer than an acknowledgement may have been due. Zero: something has
// since, or nobody knows.
func (l *life) certified() time.Duration {
	i, err := l.info()
	was := l.segments.Load()
	late := uint32(i.SegmentsOut) - uint32(was)
	if err != nil || !i.judged || uint32(i.SegmentsIn) != uint32(was>>32) || late > 1 || i.Probes > 0 || i.Unread > 0 {
		return 0
	}
	parked := time.Since(l.born) - time.Duration(l.parkedAt.Load())
	gap := min(i.lastSent, i.LastAck, parked+delayedACK) - time.Duration(late)*delayedACK
	if gap < leastGap {
		return 0
	}
	return gap
}

// Quiet returns for how long the kernel has neither sent nor received anything on the
// connection. Zero: nobody knows, or something is under way.
func (c *Conn) Quiet() time.Duration {
	defer runtime.KeepAlive(c)
	quiet, _ := lastMoved(c.l.raw)
	return quiet
}

// prove notes that something of the far end was read.
func (l *life) prove() {
	if !kernelProves || l.raw == nil {
		l.proved.Store(int64(time.Since(l.born)))
	}
	if l.survived == nil || l.gap.Load() == 0 {
		return
	}
	if gap := l.gap.Swap(0); gap > 0 {
		l.survived(time.Duration(gap))
	}
}
