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
	// examineAfter is when the first repeated SYN is unanswered, too.
	examineAfter = 1200 * time.Millisecond
	examineEvery = time.Second

	// fewFailed is how many dials may end too early to be thought about.
	fewFailed = 4

	// forgetAfter is how long it counts what was and was not answered, and for how long nobody
	// may have tried before none of it does.
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

	host  *host        // nil: no other source port would help
	last  sample       // of the last source port
	syn   *syn         // of the first; nil: there was no trouble
	first [1]time.Time // what tries begins with, so that a dial that is answered soon costs no more memory

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

// watchDial prepares to follow a dial from its SYN on. Whoever calls it calls connect, once.
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

// connect dials from the first source port.
func (h *hang) connect() (conn net.Conn, took time.Duration, err error) {
	err = errPanicked
	defer func() { h.settle(err) }()
	conn, err = h.dialer.connect(h.ctx, h.target.network, h.way)
	return conn, time.Since(h.began), err
}

var errPanicked = errors.New("dialer: Dial panicked")

// settle ends the watch over a dial that is over. What was tried besides is over, too, when it
// returns.
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
			if h.take(r) {
				return
			}
		case <-roll:
			roll = nil
			if d := h.roll(); d > 0 {
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
	case t.since.IsZero() || len(t.hangs) == 0 && now.Sub(t.ended) > forgetAfter:
		t.beginLocked(h.began)
	case now.Sub(t.since) > forgetAfter:
		t.halveLocked(now.Add(-forgetAfter / 2))
	}
	t.clean, t.hung = 0, true
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
	t.guesses -= len(h.tries) - 1
	if !h.worked.Load() && h.conn == nil {
		h.failedLocked(time.Now())
	}
}

func (h *hang) failedLocked(now time.Time) {
	t := h.trouble
	t.failed++
	t.ended = now
	t.after += t.afterLocked(now, h.began)
	for _, began := range h.tries {
		t.syns += synsIn(now.Sub(began))
	}
	t.rolled.long += h.longLocked()
}

// end ends the dial: it is known why it hangs.
func (h *hang) end(v Verdict, why string) {
	h.reason = &judged{v, why, errNoAnswer}
	h.cancel(h.reason)
}

// exhausted ends the dial, because a look has shown that ports are wanting.
func (h *hang) exhausted() {
	l := h.dialer.ledger()
	l.mu.Lock()
	why := h.trouble.why
	l.mu.Unlock()
	h.end(Exhausted, why)
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
