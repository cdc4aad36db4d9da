package dialer

import (
	"math"
	"net"
	"time"
)

const (
	// suspicion is how long a SYN to a private address may be unanswered before another
	// source port is tried: a balancer in the same network answers in milliseconds.
	suspicion = 200 * time.Millisecond

	// maxTries and maxRolling bound how often one dial tries another source port.
	maxTries   = 12
	maxRolling = 3 * time.Second

	// maxGuesses is how many source ports one dial tries where nothing comes back, and
	// manyGuesses how many more all dials to an address do at a time, as long as it may be
	// others' that does: one that is down must not be stormed.
	maxGuesses  = 4
	manyGuesses = 12

	// livelyFor is how long an address is lively after it has answered at once.
	livelyFor = 2 * time.Second

	// echo is how soon a SYN that comes back has done so. What else comes back until the
	// next try is others'.
	echo = 50 * time.Millisecond

	// cameBack is how many SYNs must have come back before it is no accident.
	cameBack = 2

	// manyCame is how many where there was no quiet moment.
	manyCame = 4

	// hopeless is how many must have come back, and none got through, before a balancer
	// counts as one that has no other backend: of two, it would be 1 in 128.
	hopeless = 7
)

// A sample is how many strays there were before a SYN and shortly after it.
type sample struct {
	before, soon uint64
	counted      bool      // they were, and are not judged yet
	at           time.Time // of soon; zero: not yet
}

// A tried is what came of one more source port.
type tried struct {
	conn net.Conn
	flow *flow
	took time.Duration
	err  error
}

// suspect prepares for a SYN that comes back, and returns when to look after it first. Where one
// was not answered before, it is counted from the start what comes back.
func (h *hang) suspect() time.Duration {
	h.patience = suspicion
	l := h.dialer.ledger()
	l.mu.Lock()
	t := l.troubles[h.way.place()]
	if t != nil {
		h.patience = min(max(suspicion, 2*t.slowest), examineAfter)
		h.syn = l.sent.add(h.began)
	}
	l.mu.Unlock()
	if t != nil {
		if h.last.before, h.last.counted = h.strays(); h.last.counted {
			return echo
		}
	}
	return h.patience
}

// strays is what came back until now. Of IPv6 nobody counts it.
func (h *hang) strays() (uint64, bool) {
	if !h.way.dst.Addr().Is4() {
		return 0, false
	}
	return h.host.strays()
}

// roll looks whether the last SYN came back, tries one more source port if it is time, and
// returns when to think of that again: 0 means never. Where SYNs come back it is time at once;
// else more and more seldom, and in the end as often as the kernel repeats a SYN.
func (h *hang) roll() time.Duration {
	l := h.dialer.ledger()
	strays, counted := h.strays()
	if h.last.counted && h.last.at.IsZero() {
		h.last.soon, h.last.at = strays, time.Now()
		return h.patience - echo
	}
	l.mu.Lock()
	if counted && h.last.counted {
		h.sampleLocked(strays)
	}
	h.last.counted = false
	e := h.shownLocked()
	l.mu.Unlock()
	sure, over := e.hairpin(), len(h.tries) >= maxTries || time.Since(h.began) >= maxRolling
	if sure && (over || e.rolled.lost()) {
		h.end(Hairpin, e.tellHairpin())
		return 0
	}
	if over {
		return 0
	}
	hurries := sure || e.rolled.comeBack(1)
	if !hurries {
		wait := min(suspicion<<(len(h.tries)-1), time.Second) - time.Since(h.tries[len(h.tries)-1])
		if e.rolled.came == 0 && len(h.tries) >= maxGuesses {
			wait = suspicion
		}
		if wait > 0 {
			return min(wait, suspicion) // it may be sure by then
		}
	}
	r := h.dialer.request(h.ctx, h.target)
	r.candidates = []candidate{h.way}
	f := l.tryReserve(r)
	if f == nil {
		return suspicion // there are too few ports for guesses
	}
	now := time.Now()
	l.mu.Lock()
	if !hurries && h.trouble.guesses >= manyGuesses {
		l.mu.Unlock()
		l.drop(f)
		return suspicion
	}
	h.last = sample{before: strays, counted: counted}
	h.pending++
	h.tries = append(h.tries, now)
	h.trouble.guesses++
	sent := l.sent.add(now)
	l.mu.Unlock()
	go h.try(f, sent)
	if h.last.counted {
		return echo
	}
	return suspicion
}

// sampleLocked notes what came back of the last SYN, beside all that was sent meanwhile.
func (h *hang) sampleLocked(strays uint64) {
	l, t := h.dialer.ledger(), h.trouble
	began, soon, now := h.tries[len(h.tries)-1], h.last.at, time.Now()
	t.rolled.note(
		window{max(1, l.sent.between(began, soon)), t.repeatedLocked(began, soon), int(h.last.soon - h.last.before)},
		window{l.sent.between(soon, now), t.repeatedLocked(soon, now), int(strays - h.last.soon)},
	)
}

// shownLocked is what source ports have shown.
func (h *hang) shownLocked() evidence {
	e := evidence{serves: h.serves, rolled: h.trouble.rolled, loss: h.dialer.ledger().loss.with(lossRate{})}
	e.rolled.lively = time.Since(h.trouble.atOnce) < livelyFor
	return e
}

// try connects from one more source port.
func (h *hang) try(f *flow, sent *syn) {
	h.dialer.ledger().dial(f)
	start := time.Now()
	conn, err := h.dialer.connect(h.ctx, h.target.network, h.way)
	if err == nil {
		h.dialer.ledger().answeredSYN(sent)
	}
	h.rolling <- tried{conn, f, time.Since(start), err}
}

// take notes what came of one try, and reports whether the dial is over with it.
func (h *hang) take(r tried) bool {
	if r.err == nil {
		h.conn, h.flow, h.took = r.conn, r.flow, r.took
		h.helped(r.took < suspicion)
		h.cancel(errElsewhere)
		return true
	}
	h.dialer.ledger().abandoned(r.flow, r.err)
	return false
}

// helped notes that another source port was answered where the first was not.
func (h *hang) helped(atOnce bool) {
	l := h.dialer.ledger()
	l.mu.Lock()
	seen := &h.trouble.rolled
	if atOnce {
		seen.fresh++
		seen.long += h.longLocked()
	}
	e := h.shownLocked()
	l.mu.Unlock()
	if e.hairpin() {
		l.tellVerdict(h.way.place(), h.target.address, Hairpin, e.tellHairpin())
	}
}

// longLocked is how many source ports have repeated their SYN in vain after others were answered
// at once.
func (h *hang) longLocked() (n int) {
	others, sure := h.trouble.atOnce, time.Now().Add(-suspicion)
	for _, began := range h.tries {
		if others.After(began) && synsIn(sure.Sub(began)) > synsIn(others.Sub(began)) {
			n++
		}
	}
	return n
}

// drain ends what is being tried.
func (h *hang) drain() {
	if h.pending == 0 {
		return
	}
	h.cancel(errElsewhere)
	for ; h.pending > 0; h.pending-- {
		r := <-h.rolling
		h.dialer.abandon(h, r)
	}
}

// abandon ends a try that nobody needs.
func (d *Dialer) abandon(h *hang, r tried) {
	if r.err != nil {
		d.ledger().abandoned(r.flow, r.err)
		return
	}
	c := d.watch(h.ctx, r.conn, r.flow, h, 0)
	c.Conn.EndSoonest() // nothing was ever sent on it
	c.Close()
}

// abandoned books a dial that says nothing about its address.
func (l *Ledger) abandoned(f *flow, err error) {
	if how, sent := dialEnding(err); sent {
		l.failed(f, how, err, false)
		return
	}
	l.drop(f)
}

// answeredSYN notes that one was.
func (l *Ledger) answeredSYN(s *syn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.answered = true
}

// A syn is when one was sent, and whether it was answered, with which it cannot come back.
type syn struct {
	at       time.Time
	answered bool
}

// A sentSYNs is the last that were sent to where there is trouble.
type sentSYNs struct {
	ring [128]*syn
	next int
}

func (s *sentSYNs) add(at time.Time) *syn {
	one := &syn{at: at}
	s.ring[s.next] = one
	s.next = (s.next + 1) % len(s.ring)
	return one
}

// between is how many were sent between two moments, and are not answered.
func (s *sentSYNs) between(from, to time.Time) (n int) {
	for _, one := range s.ring {
		if one != nil && !one.answered && !one.at.Before(from) && one.at.Before(to) {
			n++
		}
	}
	return n
}

// A rolled is what dials from one source port after the other have shown.
type rolled struct {
	watched int    // ports whose SYN was not answered in time, while the kernel counted what came back
	came    int    // of those: something came back at once
	quiet   int    // of the same: none of ours was sent for a while afterwards
	others  int    // came back in those whiles
	exact   int    // of the same: nothing of ours was sent again from then on
	all     window // those together
	long    int    // ports from which SYNs were sent again in vain, after others were answered at once
	fresh   int    // ports that were answered at once after others had not been
	late    int    // ports from which only a repeated SYN was answered
	through bool   // some SYN was answered
	lively  bool   // one was just now, at once
}

// A window is a short time in which it was counted what came back.
type window struct {
	sent     int // SYNs of ours, that were not answered
	repeated int // those that the kernel may have sent again
	back     int
}

// note notes what one more SYN has shown: what came back at once, and in the time after that.
func (r *rolled) note(at, later window) {
	const most = 64 // then half is forgotten
	if r.watched == most {
		r.watched, r.came, r.quiet, r.others = r.watched/2, r.came/2, r.quiet/2, r.others/2
		r.exact, r.all.sent, r.all.back = r.exact/2, r.all.sent/2, r.all.back/2
		r.long, r.fresh, r.late = r.long/2, r.fresh/2, r.late/2
	}
	r.watched++
	if at.back > 0 {
		r.came++
	}
	if later.sent+later.repeated == 0 {
		r.quiet++
		r.others += later.back
	}
	if at.repeated+later.repeated == 0 {
		r.exact++
		r.all.sent += at.sent + later.sent
		r.all.back += at.back + later.back
	}
}

// comeBack reports whether SYNs come back, so many at least, and not only what is others': a
// machine that has many of those sees some at any moment. One alone is worth trying further.
func (r *rolled) comeBack(n int) bool {
	if r.came < n || 4*r.came < 3*r.watched {
		return false
	}
	if r.lively && (n == 1 || r.came >= manyCame) {
		return true // others of ours are answered meanwhile: the address is no black hole
	}
	if r.quiet == 0 { // so many dials hang that there is no such moment: then all of theirs come back, and no more
		return r.exact >= manyCame && 4*r.all.back >= 3*r.all.sent && 4*r.all.back <= 5*r.all.sent
	}
	doubt := 0.01
	if n == 1 {
		doubt = 0.06
	}
	others := (float64(r.others) + 0.3) / float64(r.quiet+1) * float64(echo) / float64(suspicion-echo)
	return math.Pow(1-math.Exp(-others), float64(r.came)) < doubt
}

// lost reports whether no source port will do.
func (r *rolled) lost() bool { return r.came >= hopeless && !r.through }
