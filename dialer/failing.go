package dialer

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/retry"
)

// A failing address is tried by one dial at a time, less and less often, until
// one succeeds.
type failing struct {
	backoff retry.Backoff
	next    time.Time // no trial before
	trying  bool
	err     error // of the last trial
}

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

func (f *failing) mayTry(now time.Time) bool { return !f.trying && !f.next.After(now) }

// over reports whether nobody has tried for so long that the failure is history.
func (f *failing) over(now time.Time) bool { return !f.trying && now.Sub(f.next) > maxBackoff }

func (l *Ledger) succeededLocked(f *flow) {
	if f.owes > 0 && f.at[0].account.failing != nil {
		l.forgiveLocked(f.at[0].account)
	}
	f.trial = false
}

func (l *Ledger) forgiveLocked(a *account) {
	a.failing = nil
	delete(l.failing, a)
	for f := a.live.head; f != nil; f = f.next {
		f.trial = false
	}
}

// failedLocked backs off, and tells those who waited for just this trial.
func (l *Ledger) failedLocked(now time.Time, f *flow, err error) {
	if f.owes == 0 {
		return
	}
	a := f.at[0].account
	switch {
	case a.failing == nil:
		a.failing = &failing{backoff: retry.Backoff{First: firstBackoff, Max: maxBackoff}}
		l.failing[a] = struct{}{}
	case !f.trial:
		return // began before the failure was known
	}
	f.trial = false
	a.failing.trying = false
	a.failing.err = fmt.Errorf("another dial to %v: %w", f.remote, err)
	a.failing.next = now.Add(a.failing.backoff.Next())
	asked := now
	if f.control && timeout(err) { // which is impatient: who came after its last SYN is told nothing by it
		_, last := syns(now.Sub(f.sent))
		asked = f.sent.Add(last)
	}
	for _, w := range l.waitersLocked(a) {
		if w.since.After(asked) {
			a.failing.next = now
			continue
		}
		if err := l.failureLocked(w.request); err != nil {
			l.dequeueLocked(w)
			w.ready <- granted{err: err}
		}
	}
}

// failureLocked returns why r cannot succeed for now: each of its addresses
// failed when it was last tried. Nil: one of them may.
func (l *Ledger) failureLocked(r request) error {
	var last error
	for _, c := range r.candidates {
		if len(c.owes) == 0 {
			return nil
		}
		a := l.accounts[c.owes[0]]
		if a == nil || a.failing == nil {
			return nil
		}
		last = a.failing.err
	}
	return last
}
