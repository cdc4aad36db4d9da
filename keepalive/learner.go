package keepalive

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A Learner finds out how long paths really remember a silent flow, from what
// became of the silent gaps on their connections. It is told of gaps and
// answers with limits; it has no goroutine, opens nothing, sends nothing.
//
// The zero Learner is ready to use, by many goroutines, and must not be copied.
// Set its fields before the first use, not after.
//
// What it is told must be certain, since what is inconclusive must change
// nothing. A gap is certified when Info's SegmentsIn and SegmentsOut are the
// same at its beginning and at its end, so that no probe and no retransmission
// slipped in. Wait 60 ms after the last answer before the first look: the
// delayed acknowledgement of that answer counts too. A gap below a millisecond is
// none.
//
// Its laws:
//   - Production never experiments. What Path allows was survived, or is what
//     the profile allows anyway, or is half of what was deadly.
//   - A limit falls at once and rises by proof only.
//   - Lessons expire; Forget drops them when the network has changed. Those of
//     one destination are a hint where to begin for another behind the same
//     egress, never a proof.
type Learner struct {
	// Expires is how long a lesson counts. Zero: 24 hours. Negative: for ever.
	Expires time.Duration

	// Observe is told of a limit that has changed: Hi or Server, or Lo by more
	// than a tenth. What merely expired is not told. Several goroutines may call
	// it at once. Nil: nobody is told.
	Observe func(Lesson)

	mu    sync.Mutex // guards paths and the records in it; not held while Observe runs
	paths map[netpath.Key]*record
}

// A Lesson is what a Learner knows of one path. Durations that nobody knows are
// zero.
type Lesson struct {
	Key    netpath.Key
	Lo     time.Duration // the longest gap that was survived
	Hi     time.Duration // the shortest deadly one, by two votes; more than Lo
	Server time.Duration // the shortest gap in which the server, or a proxy, closed in order
	Votes  int           // deaths that nothing has contradicted: those behind Hi, and shorter ones that stand alone
	When   time.Time     // the latest evidence
}

const (
	lessonExpires = 24 * time.Hour
	minGap        = time.Millisecond // the kernel's clock; a shorter one is no silence
	maxLessons    = 4096             // keys
	maxVotes      = 4                // deaths of a key that wait for a second one
	evictSample   = 8                // keys of which the stalest goes when there are too many
)

var unknownIdle = netpath.Unknown().Idle

// A record is what is known of one key.
type record struct {
	lo, hi, server proof
	behind         int     // deaths behind hi
	votes          []death // below hi, and no two of them agree; the latest last
	when           time.Time
	observed       time.Duration // lo, when Observe was told last
}

// A proof is a gap and when it was last proved. The zero proof proves nothing.
type proof struct {
	gap time.Duration
	at  time.Time
}

// A death is a silence that ended without an answer.
type death struct {
	gap         time.Duration
	began, told time.Time
}

// agrees reports whether two deaths are two votes for one limit: their gaps are
// the same within a tenth, and no single event can have caused both. Silences
// that overlap may have ended together because a gateway or a server was
// started anew, which says nothing about timers.
func (d death) agrees(e death) bool {
	apart := !d.began.Before(e.told) || !e.began.Before(d.told)
	return apart && near(d.gap, e.gap)
}

// wallNow is now by the wall clock, which runs on while a process is frozen.
func wallNow() time.Time { return time.Now().Round(0) }

// near reports whether two gaps differ by at most a tenth of the longer one.
func near(a, b time.Duration) bool { return max(a, b)-min(a, b) <= max(a, b)/10 }

// Survived says that a certified gap was ended by an answer of the far end's
// application. An acknowledgement is none: a middlebox may have sent it.
func (l *Learner) Survived(key netpath.Key, gap time.Duration) {
	l.learn(key, gap, func(r *record, now time.Time) { r.survived(gap, now) })
}

func (r *record) survived(gap time.Duration, now time.Time) {
	if gap >= r.lo.gap {
		r.lo = proof{gap, now}
	}
	// What spoke for less is void: one proof is enough.
	if gap >= r.hi.gap {
		r.hi, r.behind = proof{}, 0
	}
	if gap >= r.server.gap {
		r.server = proof{}
	}
	r.votes = slices.DeleteFunc(r.votes, func(d death) bool { return d.gap <= gap })
}

// Died says that a certified gap was not survived: what was sent after it got
// no answer within 1 s, or four retransmission timeouts if that is longer, though
// a new connection to the same destination worked; or it was answered with a RST;
// or a RST came in the gap. If no new connection worked, nothing is known: say
// nothing.
//
// One death changes nothing; two that agree do. Their gaps are the same within a
// tenth, and the silence of one began after the other was told: began is when
// this one did. A path that got shorter makes all void that was survived from
// there on. Died reports whether what may be used fell: live connections then
// need a new plan at once.
func (l *Learner) Died(key netpath.Key, began time.Time, gap time.Duration) (fell bool) {
	l.learn(key, gap, func(r *record, now time.Time) { fell = r.died(death{gap, began, now}) })
	return fell
}

func (r *record) died(d death) (fell bool) {
	if r.hi.gap != 0 && d.gap >= r.hi.gap {
		if near(d.gap, r.hi.gap) {
			r.hi.at = d.told
			r.behind++
		}
		return false
	}
	hi := time.Duration(0)
	for _, v := range r.votes {
		if v.agrees(d) && (hi == 0 || v.gap < hi) {
			hi = min(v.gap, d.gap)
		}
	}
	if hi == 0 {
		if len(r.votes) == maxVotes {
			r.votes = slices.Delete(r.votes, 0, 1)
		}
		r.votes = append(r.votes, d)
		return false
	}
	r.hi, r.behind = proof{hi, d.told}, 2
	r.votes = slices.DeleteFunc(r.votes, func(v death) bool { return v.gap >= hi })
	if r.lo.gap >= hi {
		r.lo, r.observed = proof{}, 0
	}
	return true
}

// Probed says that a keepalive probe was answered after a gap. That is no proof, since
// a middlebox may have answered; but deaths in shorter silences that stand alone were
// then the peer's own, and are void.
func (l *Learner) Probed(key netpath.Key, gap time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.freshLocked(key, wallNow()); r != nil {
		r.votes = slices.DeleteFunc(r.votes, func(d death) bool { return d.gap <= gap })
	}
}

// Closed says that a FIN came in a certified gap. That is how long the server
// keeps an idle connection, or a proxy before it, and says nothing about the
// machines that only pass packets on.
func (l *Learner) Closed(key netpath.Key, gap time.Duration) {
	l.learn(key, gap, func(r *record, now time.Time) {
		if r.server.gap == 0 || gap <= r.server.gap {
			r.server = proof{gap, now}
		}
	})
}

// learn changes what is known of key and tells Observe.
func (l *Learner) learn(key netpath.Key, gap time.Duration, change func(r *record, now time.Time)) {
	if gap < minGap {
		return
	}
	now := wallNow()
	l.mu.Lock()
	r := l.freshLocked(key, now)
	if r == nil {
		r = l.addLocked(key)
	}
	hi, server := r.hi.gap, r.server.gap
	change(r, now)
	r.when = now
	changed := r.hi.gap != hi || r.server.gap != server || r.lo.gap > r.observed+r.observed/10
	if changed {
		r.observed = r.lo.gap
	}
	lesson := r.lesson(key)
	l.mu.Unlock()

	if changed && l.Observe != nil {
		l.Observe(lesson)
	}
}

// addLocked makes room for one more key, and the key.
func (l *Learner) addLocked(key netpath.Key) *record {
	if len(l.paths) >= maxLessons {
		var stalest netpath.Key
		var when time.Time
		seen := 0
		for k, r := range l.paths { // in no order, so that these are a sample
			if seen == 0 || r.when.Before(when) {
				stalest, when = k, r.when
			}
			if seen++; seen == evictSample {
				break
			}
		}
		delete(l.paths, stalest)
	}
	if l.paths == nil {
		l.paths = make(map[netpath.Key]*record)
	}
	r := new(record)
	l.paths[key] = r
	return r
}

// freshLocked returns what is known of key and has not expired. Nil: nothing.
func (l *Learner) freshLocked(key netpath.Key, now time.Time) *record {
	r := l.paths[key]
	if r == nil || l.Expires < 0 {
		return r
	}
	r.expire(now.Add(-cmp.Or(l.Expires, lessonExpires)))
	if r.lo.gap == 0 && r.hi.gap == 0 && r.server.gap == 0 && len(r.votes) == 0 {
		delete(l.paths, key)
		return nil
	}
	return r
}

// expire drops what was proved before oldest.
func (r *record) expire(oldest time.Time) {
	if r.lo.at.Before(oldest) {
		r.lo, r.observed = proof{}, 0
	}
	if r.hi.at.Before(oldest) {
		r.hi, r.behind = proof{}, 0
	}
	if r.server.at.Before(oldest) {
		r.server = proof{}
	}
	r.votes = slices.DeleteFunc(r.votes, func(d death) bool { return d.told.Before(oldest) })
}

func (r *record) lesson(key netpath.Key) Lesson {
	return Lesson{
		Key: key, Lo: r.lo.gap, Hi: r.hi.gap, Server: r.server.gap,
		Votes: r.behind + len(r.votes), When: r.when,
	}
}

// Path returns p with the Idle that may be used now on the path that key names;
// if it is not p's own, its source is cited with the grade Learned. For derives
// a plan from it that survives two lost probes on paths of 4 s and more.
//
// Idle is the longest gap that was survived, or p's own if that is longer and
// was not found deadly. Where it was, half of the shortest deadly gap will do
// until more is proved.
func (l *Learner) Path(key netpath.Key, p netpath.Profile) netpath.Profile {
	l.mu.Lock()
	r := l.freshLocked(key, wallNow())
	if r == nil {
		l.mu.Unlock()
		return p
	}
	lo, hi, when := r.lo.gap, r.hi.gap, r.when
	l.mu.Unlock()

	own := cmp.Or(p.Idle, unknownIdle)
	idle := usable(own, lo, hi)
	if idle == own {
		return p
	}
	p.Idle = idle
	p.Cites = slices.DeleteFunc(slices.Clone(p.Cites), func(c netpath.Cite) bool { return c.Field == "Idle" })
	p.Cites = append(p.Cites, netpath.Cite{
		Field:  "Idle",
		Source: "natwise: this process's own flows, " + when.Format(time.DateOnly),
		Grade:  netpath.Learned,
	})
	return p
}

// usable returns the Idle that may be used where a profile says own.
func usable(own, lo, hi time.Duration) time.Duration {
	switch {
	case hi > 0 && (own == netpath.None || own >= hi):
		return max(lo, hi/2)
	case own == netpath.None:
		return own
	}
	return max(lo, own)
}

// Next returns up to n gaps, in order, that probes on the path of key should
// try now, side by side. None: nothing is left to learn below most, since the
// longest gap that was survived is within a tenth of the shortest deadly one, or
// reaches most.
//
// Without a death it goes up by doubling, from the profile's Idle or from what
// is known of another destination behind the same egress. After a death it
// divides what is between that and the longest gap that was survived, and asks
// for the second vote when these two are near enough.
//
// A probe is a connection that is about to be closed anyway, which then costs
// nothing, or one of its own. That one costs a port for its gap and for the hold
// after it: have one at a time for a destination, and few an hour. A plan probes
// at least every 60 s, so on most paths nothing is gained by a most above 240 s.
func (l *Learner) Next(key netpath.Key, p netpath.Profile, most time.Duration, n int) []time.Duration {
	if n < 1 {
		return nil
	}
	now := wallNow()
	l.mu.Lock()
	defer l.mu.Unlock()
	var r record
	if known := l.freshLocked(key, now); known != nil {
		r = *known
	}
	lo, top := r.lo.gap, r.hi.gap
	for _, v := range r.votes {
		if top == 0 || v.gap < top {
			top = v.gap
		}
	}
	switch {
	case top > lo && r.hi.gap > 0 && near(lo, r.hi.gap):
		return nil
	case lo >= most && (top == 0 || top > most):
		return nil
	case top == 0:
		start := l.startLocked(key, p, now)
		if lo >= start {
			start = 2 * lo
		}
		return double(start, most, n)
	case top <= lo || near(lo, top): // a second vote, or a survival that makes it void
		return []time.Duration{min(top, most)}
	case top > most && !near(top, most):
		return []time.Duration{most}
	}
	return between(lo, min(top, most), n)
}

// between returns up to n gaps that divide what lies between lo and hi.
func between(lo, hi time.Duration, n int) (gaps []time.Duration) {
	part := max((hi-lo)/time.Duration(n+1), 1)
	for g := lo + part; g < hi && len(gaps) < n; g += part {
		gaps = append(gaps, g)
	}
	return gaps
}

// double returns up to n gaps from g to most, each twice the one before.
func double(g, most time.Duration, n int) (gaps []time.Duration) {
	for len(gaps) < n {
		if g >= most {
			return append(gaps, most)
		}
		gaps = append(gaps, g)
		g += min(g, most-g)
	}
	return gaps
}

// startLocked returns where a search begins for which nothing is known.
func (l *Learner) startLocked(key netpath.Key, p netpath.Profile, now time.Time) time.Duration {
	start := p.Idle
	if start == 0 || start == netpath.None {
		start = unknownIdle
	}
	var latest time.Time
	for k := range l.paths {
		if k == key || k.Source != key.Source || k.Network != key.Network {
			continue
		}
		if r := l.freshLocked(k, now); r != nil && r.hi.at.After(latest) {
			start, latest = max(r.lo.gap, r.hi.gap/2), r.hi.at
		}
	}
	return start
}

// Forget drops all lessons. Call it when the network has changed.
func (l *Learner) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.paths)
}

// Lessons returns what is known, sorted by destination, source and network.
func (l *Learner) Lessons() []Lesson {
	now := wallNow()
	l.mu.Lock()
	lessons := make([]Lesson, 0, len(l.paths))
	for key := range l.paths {
		if r := l.freshLocked(key, now); r != nil {
			lessons = append(lessons, r.lesson(key))
		}
	}
	l.mu.Unlock()
	slices.SortFunc(lessons, func(a, b Lesson) int {
		return cmp.Or(a.Key.Dest.Compare(b.Key.Dest), a.Key.Source.Compare(b.Key.Source),
			cmp.Compare(a.Key.Network, b.Key.Network))
	})
	return lessons
}
