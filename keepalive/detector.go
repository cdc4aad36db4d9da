package keepalive

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A Detector finds out that packets of a connection vanish while its bytes are
// unacknowledged: then the kernel sends no keepalive probes, and gives up only
// after its user timeout. It has one timer for all connections, and looks only at
// those that have written something, until that is acknowledged.
//
// A connection is suspect when nothing has come for three retransmission timeouts
// though bytes are out. That is no verdict: a lossy path looks the same. When
// others to the same address live, or a new one can be opened, and what the kernel
// has sent again since then is in vain too, the connection is dead: it is ended by
// RST, and Read and Write return a *BlackholeError. When nothing to that address
// works, the path is down: the connection is kept, since it will go on when the
// path heals. A peer that answers but takes nothing is slow, and never ended.
//
// While bytes are out, the kernel has the plan's user timeout as its last word. When
// none are, it has none, so that it counts keepalive probes: with one, it would not
// (Linux, tcp_keepalive_timer), and would take as long to find a silent connection
// dead. It has none either while the peer answers and takes nothing.
//
// The zero Detector is ready to use, may be used by many goroutines, must not be
// copied, and needs no Close. It judges sockets on Linux; elsewhere kernels do not
// tell enough, and their user timeout has the only word. A connection in memory is
// judged if it has a method Heard() time.Duration, for how long ago anything came,
// besides those that Watch knows.
type Detector struct {
	mu    sync.Mutex // guards the fields below, and those of destination and vigil
	known map[netpath.Key]*destination

	// A wheel of those to be looked at. Spokes are counted from epoch.
	wheel  [spokes]*vigil // linked by vigil.due
	queued int
	epoch  time.Time
	passed int // the last spoke whose vigils were looked at
	wakeAt int // the spoke for which timer is set; 0: it is not
	timer  *time.Timer
}

const (
	spoke  = 32 * time.Millisecond
	spokes = 32

	// suspectAfter and deadAfter were measured (Linux 6.18, RTT 20 ms, loss each
	// way). Silent for three retransmission timeouts were 0 of 34,000 requests at 1 %
	// loss, 0.7 of 1,000 at 5 %; three retransmissions were in vain for 0.04 of
	// 1,000 at 5 %.
	suspectAfter = 3 // retransmission timeouts
	deadAfter    = 3 // retransmissions

	// tryAfter is later: most suspicions are over by then, and a control
	// connection costs a port.
	tryAfter = 5 // retransmission timeouts

	// kernelTick is how coarse the kernel's times are, at 100 Hz.
	kernelTick = 10 * time.Millisecond

	// tryTimeout is enough for two SYNs: the second is sent after 1 s.
	tryTimeout = 2500 * time.Millisecond
	firstPause = 2 * time.Second // after a control connection that failed; then doubled
	lastPause  = 30 * time.Second

	askAtOnce = 8 // others to the same address, for whether they live
)

// An Owner of a connection helps a Detector to judge it, and is told. It must not
// keep the Conn alive.
type Owner interface {
	// Try opens a control connection to where the connection leads, and ends it.
	// The Detector calls it, in a goroutine of its own, when a connection is
	// suspect and no other proves that the path is up: one at a time for each
	// address, and seldom while that fails.
	Try(ctx context.Context) error

	// Suspected says that the connection is suspect now, or no more. It is called
	// under no lock and must not block.
	Suspected(suspect bool, silence time.Duration)

	// Forgotten says, after the end, that the path may have forgotten the connection
	// in that silence: none of its keepalive probes was answered, from the first one
	// on, though others lived meanwhile or a control connection worked right after.
	// The peer may also have died.
	Forgotten(silence time.Duration)

	// Remembered says that a keepalive probe was answered after that silence.
	Remembered(silence time.Duration)
}

// A destination is an address to which connections lead, from one source.
type destination struct {
	at       netpath.Key
	next     *vigil    // of a ring of all: whom to ask next whether it lives
	alive    time.Time // when anything came from there last, as far as was seen
	evidence Evidence  // of that

	trying  bool
	tryNext time.Time
	pause   time.Duration // before the next try, if this one fails
}

// A vigil is one connection that a Detector watches.
type vigil struct {
	by    *Detector
	life  *life
	conn  weak.Pointer[Conn]
	owner Owner
	there *destination // nil: it has ended

	out     atomic.Bool  // bytes may be unacknowledged: it is in the wheel, or being looked at
	copying atomic.Int32 // ReadFroms under way, which write unseen

	slow    atomic.Bool      // the peer answers, but takes nothing
	setting sync.Mutex       // guards timeout
	timeout bool             // the kernel has a user timeout
	set     func(fd uintptr) // what timeout says; made once, so that it allocates nothing

	prev, next *vigil // in there's ring
	due        *vigil // the next one on the same spoke

	rested    time.Time // when it was seen last that nothing is out
	since     time.Time // bytes are out, and nothing has come; zero: no bytes
	suspected time.Time // when it became so; zero: it is not
	proof     time.Time // when others were seen to live after that; zero: not yet
	tries     int       // retransmissions until then
}

// Guard has the Detector watch c, which leads to there and has just been
// connected, from now to its end. Call it before c is used, and once. The kernel's
// TCP_INFO tells of one subflow only, so that a multipath connection is not watched.
func (d *Detector) Guard(c *Conn, there netpath.Key, o Owner) {
	info, err := c.Info()
	if err != nil || !info.judged || multipath(c.l.raw) {
		return
	}
	v := &vigil{by: d, life: c.l, conn: weak.Make(c), owner: o, timeout: true}
	v.set = v.setTimeout
	v.switchTimeout()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = make(map[netpath.Key]*destination)
	}
	if v.there = d.known[there]; v.there == nil {
		v.there = &destination{at: there}
		d.known[there] = v.there
	}
	v.there.join(v)
	v.there.prove(time.Now(), Control)
	c.l.vigil = v
}

// Owners returns those of all connections that lead to there.
func (d *Detector) Owners(there netpath.Key) (owners []Owner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	to := d.known[there]
	if to == nil || to.next == nil {
		return nil
	}
	for v := to.next; ; v = v.next {
		owners = append(owners, v.owner)
		if v.next == to.next {
			return owners
		}
	}
}

// Elsewhere returns owners of connections that lead to other addresses than there, one of
// each and so many at most.
func (d *Detector) Elsewhere(there netpath.Key, most int) (owners []Owner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, to := range d.known {
		if len(owners) == most {
			break
		}
		if key.Dest != there.Dest && to.next != nil {
			owners = append(owners, to.next.owner)
		}
	}
	return owners
}

// Suspect reports whether nothing has come for three retransmission timeouts
// though bytes are unacknowledged, as far as a Detector watches. It should be
// given nothing more to do while that is so.
func (c *Conn) Suspect() bool { return c.l.marks.Load()&suspect != 0 }

// WhenSuspect has f called when the connection becomes suspect, and when it is no
// more, instead of what was given before; nil: nothing is. It is called under no
// lock and must not block. What has happened before, Suspect tells.
func (c *Conn) WhenSuspect(f func(suspect bool)) {
	if f == nil {
		c.doubted.Store(nil)
		return
	}
	c.doubted.Store(&f)
}

// writing says that bytes are about to go out, or have.
func (l *life) writing() {
	if v := l.vigil; v != nil && !v.out.Load() && v.out.CompareAndSwap(false, true) {
		v.by.begin(v)
	}
}

// copying says that bytes will go out for a while, unseen, until the returned
// function is called.
func (l *life) copying() (done func()) {
	v := l.vigil
	if v == nil {
		return func() {}
	}
	v.copying.Add(1)
	l.writing()
	return func() { v.copying.Add(-1) }
}

func (d *Detector) begin(v *vigil) {
	v.switchTimeout()
	now := time.Now()
	d.mu.Lock()
	rested := v.rested
	v.since = now
	d.queueLocked(now, v, minRTO)
	d.mu.Unlock()
	if idle := v.life.plan.Load().Idle; idle > 0 && now.Sub(rested) > idle {
		if i, err := v.life.info(); err == nil && i.survived(idle) {
			v.owner.Remembered(idle)
		}
	}
}

// survived reports whether something has come after a silence of that length.
func (i Info) survived(silence time.Duration) bool {
	return i.LastProof > silence && i.LastAck < i.LastProof-silence+kernelTick
}

// leave takes v, which has ended, out of the ring. In the wheel it may still be.
func (d *Detector) leave(v *vigil, e Ending) {
	v.out.Store(true) // of a FIN the kernel is to wait for the acknowledgement
	v.slow.Store(false)
	v.switchTimeout()
	d.mu.Lock()
	defer d.mu.Unlock()
	there := v.there
	if there == nil {
		return
	}
	there.drop(v)
	v.there = nil
	if e.Gap > 0 && !there.trying {
		there.trying = true
		go d.inquire(v, there, e.Gap)
	}
	d.emptyLocked(there)
}

// emptyLocked forgets a destination to which nothing leads.
func (d *Detector) emptyLocked(there *destination) {
	if there.next == nil && !there.trying {
		delete(d.known, there.at)
	}
}

// inquire finds out whether the path was up when the probes of v were in vain, and
// whether it forgets that soon: where another one was answered after as long a
// silence, it is the peer that has died.
func (d *Detector) inquire(v *vigil, there *destination, gap time.Duration) {
	plan := v.life.plan.Load()
	probing := time.Duration(plan.Count) * plan.Interval
	d.mu.Lock()
	others := there.some(v)
	up := time.Since(there.alive) < probing
	d.mu.Unlock()
	remembers := false
	for _, other := range others {
		if i, err := other.life.info(); err == nil {
			up = up || i.LastAck < probing
			remembers = remembers || i.survived(gap)
		}
	}
	if !up && !remembers {
		up = d.open(v.owner, there)
	}
	d.mu.Lock()
	there.trying = false
	d.emptyLocked(there)
	d.mu.Unlock()
	if up && !remembers {
		v.owner.Forgotten(gap)
	}
}

// queueLocked has v looked at after d; if that is more than one turn of the wheel,
// after one.
func (d *Detector) queueLocked(now time.Time, v *vigil, after time.Duration) {
	if d.queued == 0 {
		d.epoch, d.passed = now, 0
	}
	at := int((now.Sub(d.epoch)+after)/spoke) + 1
	at = max(d.passed+1, min(at, d.passed+spokes-1))
	v.due, d.wheel[at%spokes] = d.wheel[at%spokes], v
	d.queued++
	d.wakeLocked(now, at)
}

// wakeLocked sets the timer for a spoke, unless it is set for an earlier one.
func (d *Detector) wakeLocked(now time.Time, at int) {
	if d.wakeAt != 0 && d.wakeAt <= at {
		return
	}
	d.wakeAt = at
	after := d.epoch.Add(time.Duration(at) * spoke).Sub(now)
	if d.timer == nil {
		d.timer = time.AfterFunc(after, d.turn)
		return
	}
	d.timer.Reset(after)
}

// turn looks at all that is due.
func (d *Detector) turn() {
	d.mu.Lock()
	now := time.Now()
	d.wakeAt = 0
	var due *vigil
	for upTo, n := int(now.Sub(d.epoch)/spoke), 0; d.passed < upTo && n < spokes; n++ {
		d.passed++
		for at := &d.wheel[d.passed%spokes]; *at != nil; d.queued-- {
			v := *at
			*at, v.due, due = v.due, due, v
		}
	}
	d.passed = max(d.passed, int(now.Sub(d.epoch)/spoke)) // after a pause of more than a turn
	for i := 1; d.queued > 0 && i < spokes; i++ {
		if d.wheel[(d.passed+i)%spokes] != nil {
			d.wakeLocked(now, d.passed+i)
			break
		}
	}
	d.mu.Unlock()
	for due != nil {
		v := due
		due, v.due = v.due, nil
		d.examine(v)
	}
}

// examine looks at one connection that has written, and looks at it again later
// if bytes are still out.
func (d *Detector) examine(v *vigil) {
	info, err := v.life.info()
	if err == nil && v.rests(info) {
		v.out.Store(false) // what is written from now on brings it back
		v.switchTimeout()
		if info, err = v.life.info(); err == nil && (v.rests(info) || !v.out.CompareAndSwap(false, true)) {
			d.acquit(v, info)
			return
		}
		v.switchTimeout()
	}
	if err != nil {
		return // it has ended, and out stays true: nothing brings it back
	}
	now := time.Now()
	d.mu.Lock()
	if v.there == nil {
		d.mu.Unlock()
		return
	}
	tell := d.judgeLocked(now, v, info)
	if tell != dead {
		d.queueLocked(now, v, v.pause(now, info))
	}
	v.mark(tell)
	silence, evidence := now.Sub(v.since), v.there.evidence // of those that are suspect or dead
	unproved := !v.suspected.IsZero() && v.proof.IsZero()
	var others []*vigil
	if unproved {
		others = v.there.some(v)
	}
	d.mu.Unlock()
	v.switchTimeout()
	d.tell(v, tell, silence, evidence)
	if unproved && !d.ask(v, others) && silence >= tryAfter*info.RTO {
		d.try(v)
	}
}

// switchTimeout gives the kernel a user timeout while bytes may be out, and something
// is to be expected of the peer.
func (v *vigil) switchTimeout() {
	if v.life.raw == nil || v.life.plan.Load().UserTimeout <= 0 {
		return
	}
	v.setting.Lock()
	defer v.setting.Unlock()
	if want := v.out.Load() && !v.slow.Load(); v.timeout != want {
		v.timeout = want
		v.life.raw.Control(v.set)
	}
}

// rests reports whether nothing is out.
func (v *vigil) rests(i Info) bool { return i.Unacked == 0 && v.copying.Load() == 0 }

// acquit takes in that all was acknowledged.
func (d *Detector) acquit(v *vigil, i Info) {
	now := time.Now()
	d.mu.Lock()
	tell := nothing
	if v.there != nil {
		v.there.prove(now.Add(-i.LastAck), Others)
		v.rested = now
		tell = v.clear()
		v.mark(tell)
	}
	d.mu.Unlock()
	d.tell(v, tell, 0, GaveUp)
}

// A change is what an examination has found.
type change int

const (
	nothing change = iota
	suspected
	trusted
	dead
)

// judgeLocked compares what the kernel says with what it said before.
func (d *Detector) judgeLocked(now time.Time, v *vigil, i Info) change {
	heard := now.Add(-i.LastAck)
	slow := i.stalled && i.Probes < suspectAfter
	v.slow.Store(slow)
	switch {
	case i.Unacked == 0: // while something is copied
		v.since = time.Time{}
		return v.clear()
	case v.since.IsZero() || heard.Add(kernelTick).After(v.since) || slow:
		// What is out may have been written just now: count from here.
		v.there.prove(heard, Others)
		v.since = now
		return v.clear()
	}
	silence := now.Sub(v.since)
	if silence < suspectAfter*i.RTO {
		return nothing
	}
	found := nothing
	if v.suspected.IsZero() {
		v.suspected, found = now, suspected
	}
	if i.reckoned {
		i.Retransmits, i.lastSent = reckon(silence, i.RTO)
	}
	sent := now.Add(-i.lastSent)
	if v.proof.IsZero() && v.there.alive.After(v.suspected) {
		v.proof, v.tries = v.there.alive, i.Retransmits
		if sent.After(v.proof) {
			v.tries-- // the last one was sent after it
		}
	}
	if v.proof.IsZero() || i.stalled {
		return found
	}
	// The path was up when the kernel last sent, and yet no answer came. What it
	// sent while the path was down does not count: then it must have sent twice.
	enough := deadAfter
	if v.tries >= deadAfter {
		enough = v.tries + 2
	}
	if i.Retransmits >= enough && i.lastSent >= i.RTO && sent.After(v.proof) {
		return dead
	}
	return found
}

// clear ends a suspicion.
func (v *vigil) clear() change {
	if v.suspected.IsZero() {
		return nothing
	}
	v.suspected, v.proof = time.Time{}, time.Time{}
	return trusted
}

// pause is when to look at v again: when it may be suspect, or sooner for news.
func (v *vigil) pause(now time.Time, i Info) time.Duration {
	silence := now.Sub(v.since)
	switch {
	case v.since.IsZero() || silence == 0:
		return i.RTO
	case v.suspected.IsZero():
		return suspectAfter*i.RTO - silence
	}
	return max(i.RTO, silence/4)
}

// reckon is how often a kernel would have sent the same again in silence, and how
// long ago.
func reckon(silence, rto time.Duration) (times int, last time.Duration) {
	for last = silence; last >= rto; rto *= 2 {
		last -= rto
		times++
	}
	return times, last
}

// mark says what was found to whoever asks.
func (v *vigil) mark(found change) {
	switch found {
	case suspected:
		v.life.marks.Or(suspect)
	case trusted:
		v.life.marks.And(^uint32(suspect))
	}
}

// tell says what was found to those who have asked to be told. One that was delayed
// may come after the next: what is so now, Suspect says.
func (d *Detector) tell(v *vigil, found change, silence time.Duration, e Evidence) {
	switch found {
	case nothing:
		return
	case dead:
		go v.kill(&BlackholeError{Evidence: e, Silence: silence}) // it waits for whoever writes
		return
	}
	v.owner.Suspected(found == suspected, silence)
	if c := v.conn.Value(); c != nil {
		if f := c.doubted.Load(); f != nil {
			(*f)(c.Suspect())
		}
	}
}

// ask looks for one of others that has heard something since v is suspect.
func (d *Detector) ask(v *vigil, others []*vigil) (alive bool) {
	for _, other := range others {
		i, err := other.life.info()
		if err != nil {
			continue
		}
		d.mu.Lock()
		if v.there != nil {
			v.there.prove(time.Now().Add(-i.LastAck), Others)
			alive = v.there.alive.After(v.suspected)
		}
		d.mu.Unlock()
		if alive {
			return true
		}
	}
	return false
}

// try has the owner of v open a control connection, if that is due.
func (d *Detector) try(v *vigil) {
	d.mu.Lock()
	defer d.mu.Unlock()
	there := v.there
	if there == nil || there.trying {
		return
	}
	there.trying = true
	go func() {
		d.open(v.owner, there)
		d.mu.Lock()
		defer d.mu.Unlock()
		there.trying = false
		d.emptyLocked(there)
	}()
}

// open opens a control connection, unless one has failed a short while ago.
func (d *Detector) open(o Owner, there *destination) (works bool) {
	d.mu.Lock()
	soon := time.Now().Before(there.tryNext)
	d.mu.Unlock()
	if soon {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	err := o.Try(ctx)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		there.prove(now, Control)
		there.pause = 0
	} else {
		there.pause = min(max(firstPause, 2*there.pause), lastPause)
	}
	there.tryNext = now.Add(there.pause)
	return err == nil
}

// prove notes that something has come from there.
func (t *destination) prove(at time.Time, e Evidence) {
	if at.After(t.alive) {
		t.alive, t.evidence = at, e
	}
}

func (t *destination) join(v *vigil) {
	if t.next == nil {
		v.prev, v.next, t.next = v, v, v
		return
	}
	v.prev, v.next = t.next.prev, t.next
	v.prev.next, v.next.prev = v, v
}

func (t *destination) drop(v *vigil) {
	v.prev.next, v.next.prev = v.next, v.prev
	if t.next == v {
		if t.next = v.next; v.next == v {
			t.next = nil
		}
	}
}

// some returns a few of those that are not suspect, others than the last time.
func (t *destination) some(but *vigil) (others []*vigil) {
	first := t.next
	for n := 0; first != nil && n < askAtOnce && (n == 0 || t.next != first); n++ {
		if v := t.next; v != but && v.suspected.IsZero() {
			others = append(others, v)
		}
		t.next = t.next.next
	}
	return others
}

// kill ends a connection that is dead by evidence.
func (v *vigil) kill(why *BlackholeError) {
	if v.life.giveUp(why) {
		if c := v.conn.Value(); c != nil {
			c.tell()
		}
	}
}

// GiveUp ends a connection that is known to be in a black hole, by RST: after a FIN
// the kernel would go on to send for a minute or two. Reads and Writes return why.
// It is still for its user to Close.
func (c *Conn) GiveUp(why *BlackholeError) {
	if c.l.giveUp(why) {
		c.tell()
	}
}

func (l *life) giveUp(why *BlackholeError) bool {
	l.dead.CompareAndSwap(nil, why)
	l.marks.Or(sawDeath)
	if !l.shut() {
		return false
	}
	l.cleanup.Stop()
	orderReset(l.Conn)
	l.end(false)
	return true
}

// fault is the error of a Read or Write as its caller gets it: a black hole is
// told as one.
func (l *life) fault(err error) error {
	l.note(err)
	dead := l.dead.Load()
	if dead == nil {
		return err
	}
	switch fault := FaultOf(err); {
	case fault == Shut && l.marks.Load()&left == 0: // not by its user
	case fault != Blackhole:
		return err
	}
	if op, ok := err.(*net.OpError); ok {
		return &net.OpError{Op: op.Op, Net: op.Net, Source: op.Source, Addr: op.Addr, Err: dead}
	}
	return dead
}
