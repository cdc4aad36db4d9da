package dialer

import (
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A lesson is a limit that the NAT has taught: a dial found no port though the path's own
// limit, if one is known, would have let it have one. Others may hold what is missing and
// give it back, so now and then it is tried whether there is more: one flow, and when that is
// answered two at a time, and when those are, four. A server that takes no more connections
// for a moment looks the same, so that the first try is soon; then they become rarer, down to
// one in a hold, before which nobody gives anything back. Its fields are guarded by Ledger.mu.
type lesson struct {
	limit  int
	known  int           // what Path says, or netpath.None
	next   time.Time     // when to try whether there is more
	pause  time.Duration // before that; 0: the last try found some
	beyond int           // how many flows more may be tried now
	proved int           // how many of as many were answered
	used   time.Time
}

const (
	// maxLessons is how many accounts are remembered that were taught, after they are empty.
	maxLessons = 256

	// leastPause is before the first try.
	leastPause = time.Second
)

// gradeOf is that of the limit.
func (a *account) gradeOf(path netpath.Profile) netpath.Grade {
	if a.lesson != nil {
		return netpath.Learned
	}
	return path.Grade
}

// held is how many flows the NAT certainly has: those that were answered.
func (a *account) held() int { return a.total - a.asked - a.dialing - a.cooling[keepalive.Unanswered] }

// vainLocked notes that a dial was not answered, be it that nobody waited for it any more: if it
// was to find out whether there is more than was learned, there is not.
func (l *Ledger) vainLocked(now time.Time, a *account) {
	if s := a.lesson; s != nil && s.beyond > 0 && a.counted() > s.limit {
		s.inVain(now, l.longestHold())
	}
}

// inVain has the next try come later: less and less often, but once in a hold.
func (s *lesson) inVain(now time.Time, hold time.Duration) {
	s.beyond = 0
	s.pause = max(leastPause, min(2*s.pause, hold))
	s.next = now.Add(s.pause)
}

// cutLocked teaches that a has no more ports than it holds. Many dials may find out at a time
// that there are none: only a try in vain is a reason to wait for longer.
func (l *Ledger) cutLocked(now time.Time, a *account) {
	s := a.lesson
	tried := s == nil || s.beyond > 0
	if s == nil {
		s = l.lessonLocked(now, a)
	}
	s.limit, s.used = max(1, min(s.limit, a.held())), now
	a.limit = s.limit
	if tried {
		s.inVain(now, l.longestHold())
	}
}

func (l *Ledger) lessonLocked(now time.Time, a *account) *lesson {
	if l.lessons == nil {
		l.lessons = make(map[netpath.Key]*lesson)
	}
	if len(l.lessons) >= maxLessons {
		var oldest netpath.Key
		var at time.Time
		for k, s := range l.lessons {
			if l.accounts[k] == nil && (at.IsZero() || s.used.Before(at)) {
				oldest, at = k, s.used
			}
		}
		delete(l.lessons, oldest)
	}
	s := &lesson{limit: unlimited, known: a.limit}
	l.lessons[a.key], a.lesson = s, s
	return s
}

// moreLocked is how many flows beyond its limit a may try now.
func (a *account) moreLocked(now time.Time) int {
	s := a.lesson
	if s == nil {
		return 0
	}
	if s.beyond == 0 && !now.Before(s.next) {
		s.beyond, s.proved = 1, 0
	}
	return s.beyond
}

// provedLocked notes that a dial was answered, with which a holds more than ever. What the
// path says is never exceeded, and where it is reached nothing is left of the lesson.
func (l *Ledger) provedLocked(now time.Time, a *account) {
	held := a.held()
	a.most = max(a.most, held)
	s := a.lesson
	if s == nil {
		return
	}
	if s.used = now; held <= s.limit {
		return
	}
	if s.limit, a.limit = held, held; s.known != netpath.None && held >= s.known {
		a.limit, a.lesson = s.known, nil
		delete(l.lessons, a.key)
		return
	}
	s.pause = 0
	if s.proved++; s.proved >= s.beyond {
		s.beyond, s.proved = min(2*s.beyond, maxDialing), 0
	}
	if s.known != netpath.None {
		s.beyond = min(s.beyond, s.known-s.limit)
	}
}
