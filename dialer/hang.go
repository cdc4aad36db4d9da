package dialer

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// suspicion is how long a SYN to a private address may be unanswered before another
	// source port is tried: a balancer in the same network answers in milliseconds.
	suspicion = 200 * time.Millisecond

	// examineAfter is when the first repeated SYN is unanswered, too.
	examineAfter = 1200 * time.Millisecond
	examineEvery = time.Second

	// maxTries and maxRolling bound how often another source port is tried.
	maxTries   = 12
	maxRolling = 3 * time.Second

	// livelyFor is how long an address is lively after it has answered at once.
	livelyFor = 2 * time.Second

	// fewFailed is how many dials may end too early to be thought about.
	fewFailed = 4

	// echo is how soon a SYN that comes back has done so. What else comes back until the
	// next try is others'.
	echo = 50 * time.Millisecond

	// forgetAfter is how long it counts what was and was not answered.
	forgetAfter = 10 * time.Second
)

// errElsewhere ends a SYN because that from another source port was answered.
var errElsewhere = errors.New("dialer: another source port was answered")

// A hang is one dial to one address, of which nothing more is thought while it is answered
// soon. When it is not, it is found out why, and another source port is tried where that may
// help.
type hang struct {
	dialer *Dialer
	target target
	way    candidate
	began  time.Time

	patience time.Duration // how long a SYN may be unanswered before more is thought of it

	ctx    context.Context // of all that is tried
	cancel context.CancelCauseFunc
	timer  *time.Timer
	runs   sync.WaitGroup // run, if the timer has fired

	host  *host  // nil: no other source port would help
	last  sample // of the last source port
	syn   *syn   // of the first; nil: there was no trouble
	first [1]time.Time

	worked atomic.Bool // the first try did

	// Written by run, and read when it is over.
	conn   net.Conn // from another source port
	flow   *flow    // its
	took   time.Duration
	reason *judged // for which the dial was ended

	trouble *trouble    // what is in it is guarded by Ledger.mu
	serves  []uint16    // ports that this host listens on; nil if no other source port would help
	tries   []time.Time // when each source port sent its first SYN; written by run, under Ledger.mu
	rolling chan tried
	pending int // of tries, besides the first
}

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

// watchDial follows a dial from its SYN on. Whoever calls it calls settle.
func (d *Dialer) watchDial(ctx context.Context, t target, c candidate) *hang {
	h := &hang{dialer: d, target: t, way: c, began: time.Now()}
	h.tries = append(h.first[:0], h.began)
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	h.patience = examineAfter
	if mayHairpin(c.dst.Addr()) {
		if h.host = d.ledger().host; h.host == nil && d.Dial == nil {
			h.host = thisHost
		}
	}
	after := h.patience
	if h.host != nil {
		after = h.suspect()
	}
	h.runs.Add(1)
	h.timer = time.AfterFunc(after, h.run)
	return h
}

// suspect prepares for a SYN that comes back, and returns when to look after it first. Where one
// was not answered before, it is counted from the start what comes back.
func (h *hang) suspect() time.Duration {
	h.patience = suspicion
	l := h.dialer.ledger()
	l.mu.Lock()
	t := l.troubles[h.way.place()]
	scouts := false
	if t != nil {
		h.patience = min(max(suspicion, 2*t.slowest), examineAfter)
		h.syn = l.sent.add(h.began)
		scouts = t.scout == nil
	}
	l.mu.Unlock()
	if scouts {
		if h.last.before, h.last.counted = h.host.strays(); h.last.counted {
			return echo
		}
	}
	return h.patience
}

// connect dials from the first source port.
func (h *hang) connect() (conn net.Conn, took time.Duration, err error) {
	err = errPanicked
	defer func() { h.settle(err) }()
	conn, err = h.dialer.connect(h.ctx, h.target.network, h.way)
	return conn, time.Since(h.began), err
}

var errPanicked = errors.New("dialer: Dial panicked")

// settle ends the watch over a dial that is over, with its connection if there is one. What
// was tried besides is over, too, when it returns.
func (h *hang) settle(err error) {
	h.worked.Store(err == nil)
	if err == nil && h.syn != nil {
		h.dialer.ledger().answeredSYN(h.syn)
	}
	idle := h.timer.Stop()
	h.cancel(errElsewhere)
	if !idle {
		h.runs.Wait()
	}
}

// run finds out why the dial hangs.
func (h *hang) run() {
	defer h.runs.Done()
	if h.host != nil {
		h.serves = h.host.listening()
	}
	l := h.dialer.ledger()
	l.mu.Lock()
	now := time.Now()
	h.beginLocked(now)
	h.trouble.hangs[h] = struct{}{}
	exhausted := h.trouble.exhausted
	l.mu.Unlock()
	defer h.leave()

	h.rolling = make(chan tried)
	defer h.drain()
	var roll <-chan time.Time
	if len(h.serves) > 0 {
		roll = time.After(0)
	}
	examine := time.NewTicker(max(time.Millisecond, examineAfter-now.Sub(h.began)))
	defer examine.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case r := <-h.rolling:
			h.pending--
			if h.tell(r) {
				return
			}
		case <-roll:
			roll = nil
			if d := h.again(); d > 0 {
				roll = time.After(d)
			}
		case <-examine.C:
			examine.Reset(examineEvery)
			h.examine()
		case <-exhausted:
			h.exhausted()
			return
		}
		if h.reason != nil {
			return
		}
	}
}

// beginLocked finds out what is known of the address.
func (h *hang) beginLocked(now time.Time) {
	t := h.dialer.ledger().troubleLocked(now, h.way.place())
	switch {
	case t.since.IsZero() || len(t.hangs) == 0 && now.Sub(t.since) > forgetAfter:
		t.beginLocked(h.began)
	case now.Sub(t.since) > forgetAfter:
		t.halveLocked(now.Add(-forgetAfter / 2))
	}
	t.clean = 0
	h.trouble = t
}

// noteFailed notes a dial that has ended before it was thought about: its caller is impatient.
// When a few have, somebody must look all the same.
func (h *hang) noteFailed() {
	if h.trouble != nil {
		return // run has noted it
	}
	l := h.dialer.ledger()
	l.mu.Lock()
	now := time.Now()
	h.beginLocked(now)
	h.failedLocked(now)
	few := h.trouble.failed >= fewFailed
	l.mu.Unlock()
	if few {
		h.examine()
	}
}

// leave notes what was sent in vain.
func (h *hang) leave() {
	l := h.dialer.ledger()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := h.trouble
	delete(t.hangs, h)
	if t.scout == h {
		t.scout = nil
	}
	if !h.worked.Load() && h.conn == nil {
		h.failedLocked(time.Now())
	}
}

func (h *hang) failedLocked(now time.Time) {
	t := h.trouble
	t.failed++
	t.after += t.afterLocked(now, h.began)
	for _, began := range h.tries {
		t.syns += synsIn(now.Sub(began))
	}
	t.rolled.long += h.longLocked()
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

// tell takes what came of one try, and reports whether the dial is over with it.
func (h *hang) tell(r tried) bool {
	if r.err == nil {
		h.conn, h.flow, h.took = r.conn, r.flow, r.took
		h.helped(r.took < suspicion)
		h.cancel(errElsewhere)
		return true
	}
	h.dialer.ledger().abandoned(r.flow, r.err)
	return false
}

// again looks whether the last SYN came back, tries one more source port if it is time, and
// returns when to think of that again: 0 means never. Where SYNs come back it is time at once;
// else more and more seldom, and in the end as often as the kernel repeats a SYN.
func (h *hang) again() time.Duration {
	l := h.dialer.ledger()
	strays, counted := h.host.strays()
	if h.last.counted && h.last.at.IsZero() {
		h.last.soon, h.last.at = strays, time.Now()
		return h.patience - echo
	}
	l.mu.Lock()
	if counted && h.last.counted && (h.trouble.scout == nil || h.trouble.scout == h) {
		h.sampleLocked(strays)
	}
	h.last.counted = false
	if h.trouble.scout == nil {
		h.trouble.scout = h
	}
	scouts := h.trouble.scout == h
	e := h.shownLocked()
	l.mu.Unlock()
	sure := e.hairpin()
	if sure && (e.rolled.lost() || len(h.tries) >= maxTries || time.Since(h.began) >= maxRolling) {
		h.give(Hairpin, e.tellHairpin())
		return 0
	}
	if len(h.tries) >= maxTries {
		h.rests()
		return 0
	}
	last := h.tries[len(h.tries)-1]
	wait := min(suspicion<<(len(h.tries)-1), time.Second) - time.Since(last)
	if hurries := sure || scouts && e.rolled.came > 0 || e.rolled.comeBack(1); wait > 0 && !hurries && len(h.tries) > 1 {
		return min(wait, suspicion) // it may be sure by then
	}
	r := h.dialer.request(h.ctx, h.target)
	r.candidates = []candidate{h.way}
	f := l.tryReserve(r)
	if f == nil {
		h.rests()
		return suspicion // there are too few ports for guesses
	}
	now := time.Now()
	h.last = sample{before: strays, counted: counted && scouts}
	h.pending++
	l.mu.Lock()
	h.tries = append(h.tries, now)
	sent := l.sent.add(now)
	l.mu.Unlock()
	go h.try(f, sent)
	if h.last.counted {
		return echo
	}
	return suspicion
}

// sampleLocked notes what the last SYN has shown. A SYN brings back one at most, and so does
// each that the kernel may have repeated meanwhile.
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

// answeredSYN notes that one was.
func (l *Ledger) answeredSYN(s *syn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.answered = true
}

// rests lets another dial find out whether SYNs come back.
func (h *hang) rests() {
	l := h.dialer.ledger()
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.trouble.scout == h {
		h.trouble.scout = nil
	}
}

// give ends the dial: it is known why it hangs.
func (h *hang) give(v Verdict, why string) {
	h.reason = &judged{v, why, errNoAnswer}
	h.cancel(h.reason)
}

// exhausted ends the dial, because a look has shown that ports are wanting.
func (h *hang) exhausted() {
	l := h.dialer.ledger()
	l.mu.Lock()
	why := h.trouble.why
	l.mu.Unlock()
	h.give(Exhausted, why)
}

// judge says what it means that the dial is not answered.
func (h *hang) judge() *judged {
	l := h.dialer.ledger()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.evidenceLocked(time.Now(), h.trouble, h.way)
	e.serves = h.serves
	v, why := e.judge()
	return &judged{verdict: v, evidence: why, err: errNoAnswer}
}

// explain says what the error of the dial means.
func (h *hang) explain(err error, conclusive bool) *judged {
	if h.reason != nil {
		return h.reason
	}
	if v, why := explain(err); v != Unknown {
		return &judged{v, why, err}
	}
	if !conclusive || !timeout(err) {
		return &judged{Unknown, "", err}
	}
	j := &judged{Unknown, plural(1, "SYN") + " not answered", err}
	if h.trouble != nil {
		j = h.judge()
		j.err = err
	}
	return j
}

// errNoAnswer is why a dial was ended before its time.
var errNoAnswer error = noAnswer{}

type noAnswer struct{}

func (noAnswer) Error() string { return "no answer" }
func (noAnswer) Timeout() bool { return true }

// examine looks who lives, for all dials that hang at the address. If it turns out that ports
// are wanting there, those dials wait in the queue from then on.
func (h *hang) examine() {
	l := h.dialer.ledger()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := h.trouble
	if t.looking {
		return
	}
	t.looking = true
	go func() {
		see := l.see
		if l.host != nil && l.host.see != nil {
			see = l.host.see
		}
		seen := see(h.way)
		l.mu.Lock()
		defer l.mu.Unlock()
		now := time.Now()
		t.sawLocked(now, seen)
		e := l.evidenceLocked(now, t, h.way)
		if v, why := e.judge(); v == Exhausted && len(t.hangs)+t.failed > 0 && !l.Shadow {
			t.why = why
			l.cutLocked(now, l.accounts[h.way.owes[0]]) // it holds some
			close(t.exhausted)
			t.exhausted = make(chan struct{})
		}
	}()
}
