package dialer

import (
	"time"

	"github.com/natwise/natwise/keepalive"
)

// hold is how long the NAT keeps the port after such an ending, and a margin.
func (l *Ledger) hold(e keepalive.Ending) time.Duration {
	h := l.path.Hold
	d := l.longestHold()
	if !e.Unsure {
		switch e.How {
		case keepalive.FINByUs, keepalive.FINByPeer:
			d = h.FIN
		case keepalive.RSTByUs, keepalive.RSTByPeer, keepalive.Refused:
			d = h.RST
		case keepalive.Unanswered:
			d = h.SYN
		case keepalive.Forgotten:
			d = h.Idle
		}
	}
	if d <= 0 {
		return 0
	}
	return d + margin
}

// longestHold is for an ending of which we do not know what the NAT has seen.
func (l *Ledger) longestHold() time.Duration {
	return max(l.path.Hold.FIN, l.path.Hold.RST, l.path.Hold.Idle)
}

// expireLocked ends the holds that are over.
func (l *Ledger) expireLocked(now time.Time) {
	for i := range l.cool {
		queue := &l.cool[i]
		for f := queue.head; f != nil && !f.release.After(now); f = queue.head {
			queue.remove(f)
			for _, d := range f.debts() {
				d.account.cooling[f.how]--
			}
			l.closeLocked(now, f)
		}
	}
	if len(l.failing) == 0 {
		return // the usual case, without an iterator
	}
	for a := range l.failing {
		if a.failing.over(now) && a.waiting == 0 {
			l.forgiveLocked(a)
			l.forgetLocked(a)
		}
	}
}

// armLocked sets the timer for what comes next, while somebody waits for it.
func (l *Ledger) armLocked(now time.Time) {
	if len(l.crowded) == 0 && l.Budget == nil {
		return
	}
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for i := range l.cool {
		if f := l.cool[i].head; f != nil {
			sooner(f.release)
		}
	}
	for a := range l.crowded {
		if a.failing != nil && !a.failing.trying && a.failing.next.After(now) {
			sooner(a.failing.next)
		}
		if !a.reclaimAt.IsZero() {
			sooner(a.reclaimAt)
		}
		if a.lesson != nil && a.lesson.next.After(now) {
			sooner(a.lesson.next)
		}
		if l.rampedLocked(now, a) < a.limit {
			sooner(now.Add(l.rampStep()))
		}
	}
	if next.IsZero() || !l.wakeAt.IsZero() && !l.wakeAt.After(next) {
		return // nothing to come, or the timer fires before it
	}
	l.wakeAt = next
	if l.timer == nil {
		l.timer = time.AfterFunc(next.Sub(now), l.recheck)
	} else {
		l.timer.Reset(next.Sub(now))
	}
}

// recheck looks at the clock and at everybody who waits. It is the timer's
// function, and what a signal of the Budget asks for.
func (l *Ledger) recheck() {
	l.mu.Lock()
	now := time.Now()
	l.wakeAt = time.Time{}
	l.expireLocked(now)
	victims := l.revokedLocked(now)
	for a := range l.crowded {
		l.pumpAccountLocked(now, a)
		if a.waiting > 0 && !a.reclaimAt.IsZero() && !a.reclaimAt.After(now) {
			victims = l.reclaimLocked(now, a, victims)
		}
	}
	l.armLocked(now)
	l.mu.Unlock()
	l.retire(victims)
}

// rampedLocked is the limit that holds while the ramp lasts.
func (l *Ledger) rampedLocked(now time.Time, a *account) int {
	step := l.rampStep()
	if step <= 0 || a.limit < 2 || a.limit > rampLimit || a.lesson != nil {
		return a.limit
	}
	half := (a.limit + 1) / 2
	steps := int64(0)
	if !l.began.IsZero() {
		steps = min(int64(now.Sub(l.began)/step), rampSteps)
	}
	return half + int(int64(a.limit-half)*steps/rampSteps)
}

// rampStep is how long the limit stays the same while the ramp lasts.
func (l *Ledger) rampStep() time.Duration {
	ramp := l.Ramp
	if ramp == 0 && !l.remembers {
		ramp = l.longestHold()
	}
	return ramp / rampSteps
}
