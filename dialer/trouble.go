package dialer

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Diagnosis is what the last failed dials to one destination mean. It is a copy.
type Diagnosis struct {
	Host     string         // as it was asked for, with its port
	Source   netip.Addr     // the Source's that they were dialed from; zero: the system's choice
	Remote   netip.AddrPort // zero for DNS
	Verdict  Verdict
	Evidence string    // in words; empty: the verdict says it all
	Since    time.Time // the first of those dials failed
	At       time.Time // the last did
	Dials    int       // that did, one after the other; 0: one had help, from another source port
}

// Diagnoses returns what is known to be wrong, or was a few minutes ago, the last first: one
// of each destination where dials hang or fail. A dial that works ends it; a hairpin, 32 in a
// row that needed no other source port.
func (l *Ledger) Diagnoses() []Diagnosis {
	if !l.Used() || l.init() != nil {
		return nil
	}
	l.mu.Lock()
	now := time.Now()
	var all []Diagnosis
	for _, t := range l.troubles {
		if t.last.Host != "" && now.Sub(t.last.At) < troubleFor {
			all = append(all, t.last)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b Diagnosis) int {
		return cmp.Or(b.At.Compare(a.At), a.Remote.Compare(b.Remote), cmp.Compare(a.Host, b.Host))
	})
	return all
}

// staleAfter is a little less than the kernel waits before it sends a SYN again.
const staleAfter = 900 * time.Millisecond

// metStale reports whether something came before the SYN was answered: the far end still had
// a socket for an earlier flow of the same source port, and told it what it expects; it was
// reset, and the next SYN was answered. That is what a NAT leaves that gives the port of a
// flow that idled out to another.
func metStale(c *keepalive.Conn) bool {
	i, err := c.Info()
	return err == nil && i.SegmentsIn >= 2 && i.Unread == 0
}

const (
	// maxTroubles is how many addresses are remembered, and those where dials hang just now.
	maxTroubles = 256

	// troubleFor is how long what was seen counts.
	troubleFor = 10 * time.Minute

	// lookFor is how long it counts who lives.
	lookFor = 5 * time.Second

	// manyClean is how many dials in a row end a hairpin: a balancer with four backends
	// would have to miss this host as often, 1 in 10,000.
	manyClean = 32

	// justNow is how long ago something may have come from who lives.
	justNow = 500 * time.Millisecond
)

// A place is where dials lead, and from where, or only a name that has no address.
type place struct {
	src  netip.Addr
	dst  netip.AddrPort
	host string
}

func (c candidate) place() place { return place{src: c.src, dst: c.dst} }

// A trouble is what dials to one address have shown since the first that was not answered in
// time. Its fields are guarded by Ledger.mu.
type trouble struct {
	touched time.Time
	hung    bool      // a dial did; else there was only no port for one
	last    Diagnosis // zero: no dial has failed

	// Since the first of the dials that hang, or have hung in vain: zero while there is none.
	since    time.Time
	hangs    map[*hang]struct{}
	guesses  int       // source ports that those have tried besides their first
	failed   int       // dials that are over
	ended    time.Time // the last of those was
	syns     int       // which they have sent
	after    int       // of those: after somebody was seen to live
	answered int       // dials

	atOnce  time.Time     // when a SYN was answered last that had not to be repeated
	clean   int           // dials in a row that needed no other source port
	slowest time.Duration // the longest that an answer to a first SYN took, if it was slow
	rolled  rolled

	look      look      // the last one at who lives
	lively    time.Time // since when each look has seen life, or nobody who could be asked
	looking   bool
	exhausted chan struct{} // closed when dials under way are to wait in the queue; then another is made
	why       string        // they are to
}

// beginLocked forgets the dials that are over.
func (t *trouble) beginLocked(since time.Time) {
	t.since, t.failed, t.syns, t.after, t.answered = since, 0, 0, 0, 0
}

// halveLocked forgets half of what was and was not answered: of one dial at a time nothing
// would be left, were it not rounded up.
func (t *trouble) halveLocked(since time.Time) {
	t.since, t.failed, t.syns, t.after, t.answered = since, (t.failed+1)/2, (t.syns+1)/2, (t.after+1)/2, t.answered/2
}

// A look is who was seen to live, and who not.
type look struct {
	at           time.Time // when it began
	same, others census    // of connections to the address, and to others
}

// A census is how many connections live, and how many do not.
type census struct {
	alive, dead int
	loss        lossRate // of what those sent that live
}

// lives counts one that lives. What it had to send again counts twice: of a SYN the answer may
// be lost as well.
func (c *census) lives(i keepalive.Info) {
	c.alive++
	c.loss.sent += float64(i.SegmentsOut)
	c.loss.lost += 2 * float64(i.Retransmitted)
}

// troubleLocked returns what is known of a place; it is known from now on.
func (l *Ledger) troubleLocked(now time.Time, p place) *trouble {
	t := l.troubles[p]
	if t != nil && now.Sub(t.touched) > troubleFor && len(t.hangs) == 0 {
		t = nil
	}
	if t == nil {
		l.forgetTroubleLocked()
		t = &trouble{hangs: make(map[*hang]struct{}), exhausted: make(chan struct{})}
		if l.troubles == nil {
			l.troubles = make(map[place]*trouble)
		}
		l.troubles[p] = t
	}
	t.touched = now
	return t
}

// forgetTroubleLocked makes room for one more, whichever has to go of those where nothing
// hangs.
func (l *Ledger) forgetTroubleLocked() {
	for p, t := range l.troubles {
		if len(l.troubles) < maxTroubles {
			return
		}
		if len(t.hangs) == 0 {
			delete(l.troubles, p)
		}
	}
}

// worked notes that a dial did, and took so long from the first SYN of its source port on:
// what was wrong is over.
func (l *Ledger) worked(p place, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.answeredLocked(p, took)
	switch {
	case t == nil:
		return
	case !t.hung:
		delete(l.troubles, p)
		return
	}
	if t.last.Dials = 0; t.last.Verdict != Hairpin {
		t.last = Diagnosis{}
	} else if t.clean > manyClean {
		t.last, t.rolled = Diagnosis{}, rolled{through: true}
	}
}

// answered notes that a SYN was answered, be it by a refusal.
func (l *Ledger) answered(p place, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answeredLocked(p, took)
}

// answeredLocked returns the trouble that there is at the place, or nil.
func (l *Ledger) answeredLocked(p place, took time.Duration) *trouble {
	t := l.troubles[p]
	if t == nil || !t.hung {
		l.loss.note(synsIn(took) - 1)
		return t
	}
	t.touched = time.Now()
	if t.answered++; len(t.hangs) == 0 {
		t.beginLocked(time.Time{})
	}
	t.rolled.through = true
	switch {
	case took >= time.Second:
		t.rolled.late++
	case took >= suspicion:
		t.slowest = max(t.slowest, took)
	default:
		t.atOnce = t.touched
	}
	t.clean++
	return t
}

// resolved notes that a name has an address.
func (l *Ledger) resolved(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.troubles, place{host: host})
}

// A lossRate is the share of SYNs that get lost, of the last hundred or so, to where there is
// no trouble.
type lossRate struct{ sent, lost float64 }

func (r *lossRate) note(lost int) {
	const memory = 0.99
	r.sent = memory*r.sent + float64(1+lost)
	r.lost = memory*r.lost + float64(lost)
}

// with is what to expect by two rates, and before anything was sent, the worst that is still
// called healthy: a tenth of the packets each way.
func (r lossRate) with(other lossRate) float64 {
	const sent, lost = 10, 1.9
	return max(0.01, (r.lost+other.lost+lost)/(r.sent+other.sent+sent))
}

// diagnose notes what a failed dial to a place means.
func (l *Ledger) diagnose(p place, host string, v Verdict, evidence string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	t := l.troubleLocked(now, p)
	dials, since := t.last.Dials+1, t.last.Since
	if t.last.Verdict != v || dials == 1 {
		dials, since = 1, now
	}
	t.last = Diagnosis{Host: host, Source: p.src, Remote: p.dst, Verdict: v, Evidence: evidence, Since: since, At: now, Dials: dials}
}

// evidenceLocked is what is known of the address that dials to c hang at.
func (l *Ledger) evidenceLocked(now time.Time, t *trouble, c candidate) evidence {
	e := evidence{dials: t.failed, syns: t.syns, after: t.after, answered: t.answered, loss: l.loss.with(lossRate{}), rolled: t.rolled, limit: netpath.None}
	for h := range t.hangs {
		e.dials++
		e.syns += synsIn(now.Sub(h.began))
		e.after += t.afterLocked(now, h.began)
	}
	if !t.since.IsZero() {
		e.over = now.Sub(t.since)
	}
	if k := t.look; now.Sub(k.at) < lookFor {
		e.same, e.others = k.same, k.others
		e.loss = l.loss.with(k.same.loss)
	}
	if len(c.owes) == 0 {
		return e
	}
	e.counted = l.longestHold() > 0 // else there is no NAT
	if a := l.accounts[c.owes[0]]; a != nil {
		e.held, e.most, e.limit = a.held(), a.most, a.limit
		e.beyond = a.lesson != nil && a.counted() > a.lesson.limit
	}
	return e
}

// afterLocked is how many SYNs of a dial were not answered that were sent while others lived.
func (t *trouble) afterLocked(now, began time.Time) int {
	if t.lively.IsZero() || now.Sub(t.look.at) > lookFor {
		return 0
	}
	n := synsIn(now.Sub(began) - suspicion)
	if before := t.lively.Sub(began); before > 0 {
		n -= synsIn(before)
	}
	return n
}

// repeatedLocked is how many SYNs the kernel may have sent again between two moments, of those
// that hang. Its timers are late by up to echo.
func (t *trouble) repeatedLocked(from, to time.Time) (n int) {
	for h := range t.hangs {
		for _, began := range h.tries {
			n += synsIn(to.Sub(began)) - synsIn(from.Sub(began)-echo)
		}
	}
	return n
}

// sawLocked notes who was seen to live.
func (t *trouble) sawLocked(now time.Time, k look) {
	switch {
	case k.same.dead > 0 && k.same.dead >= k.same.alive:
		t.lively = time.Time{}
	case t.lively.IsZero() || k.at.Sub(t.look.at) > lookFor:
		t.lively = now
	}
	t.look, t.looking = k, false
}

// see looks who lives of the connections that lead where c does, and of some that lead
// elsewhere. Those of whom nothing has come just now are asked, which takes a second.
func (l *Ledger) see(c candidate) look {
	k := look{at: time.Now()}
	there := netpath.Key{Source: c.src, Dest: c.dst, Network: "tcp"}
	same := l.some(l.detector.Owners(there), func(*keeper) bool { return true })
	others := l.some(l.detector.Elsewhere(there, 4*askSome), func(o *keeper) bool { return o.exempt == (len(c.owes) == 0) })
	asked := append(l.ask(same, &k.same), l.ask(others, &k.others)...)
	if len(asked) > 0 && (k.same.alive == 0 || k.others.alive == 0 && len(others) > 0) {
		time.Sleep(proofAfter)
	}
	for _, d := range asked {
		seen := &k.same
		if d.keeper.way.dst != c.dst {
			seen = &k.others
		}
		switch i, told := d.answered(); {
		case !told: // too early, or it has ended
		case i.SegmentsIn > d.before.SegmentsIn:
			seen.lives(i)
		default:
			seen.dead++
		}
	}
	return k
}

// askSome is how many connections are asked whether they live.
const askSome = 4

func (l *Ledger) some(owners []keepalive.Owner, fits func(*keeper) bool) (some []*keeper) {
	for _, o := range owners {
		if k := o.(*keeper); len(some) < askSome && fits(k) {
			some = append(some, k)
		}
	}
	return some
}

// ask counts those from whom something has come, and asks the rest.
func (l *Ledger) ask(keepers []*keeper, seen *census) (asked []doubted) {
	for _, k := range keepers {
		c := l.conn(k.flow)
		if c == nil {
			continue
		}
		if i, err := c.Info(); err == nil && i.LastAck < justNow {
			seen.lives(i)
			continue
		}
		if d, ok := k.probe(); ok {
			asked = append(asked, d)
		}
	}
	return asked
}
