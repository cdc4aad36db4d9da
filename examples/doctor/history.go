package main

import (
	"cmp"
	"maps"
	"net/netip"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	timeWaitFor = 60 * time.Second // TCP_TIMEWAIT_LEN, which nobody can change

	// What ended is kept for this long at least: while the kernel still shows it in
	// TIME_WAIT, it would be taken for another.
	keptFor = timeWaitFor + 5*time.Second

	// So many flows are kept at most. A flow takes about half a kilobyte.
	mostFlows = 250_000

	// A dial without an answer, and a connection that its far end has closed, are
	// something to speak of after this long.
	overdue = time.Second
)

// A pathway is the path that connections take, and how it counts them.
type pathway struct {
	said    netpath.Profile // with what nobody knows left open
	counted netpath.Profile // with what is assumed instead
	limit   int             // how many flows to one destination: netpath.None where nobody knows
	known   bool            // somebody said it, or something told
}

func newPathway(p netpath.Profile, known bool) pathway {
	w := pathway{said: p, counted: p.Effective(), limit: p.Limit(netpath.Destination), known: known}
	if w.limit == netpath.None {
		w.limit = p.Limit(netpath.SourceDestination)
	}
	return w
}

// hold is how long the path holds the port of a flow that ended so.
func (w pathway) hold(how ending) time.Duration {
	h := w.counted.Hold
	switch how {
	case finished:
		return max(0, h.FIN)
	case reset, refused:
		return max(0, h.RST)
	case unanswered:
		return max(0, h.SYN)
	}
	return max(0, h.FIN, h.RST)
}

// silence is how long the path has heard nothing of a connection, as it counts that.
func (w pathway) silence(s *sock) time.Duration {
	if w.counted.Counts == netpath.Segments {
		return s.silent
	}
	return s.mute
}

// A sight is what one look has seen.
type sight struct {
	seen, gone []sock
	lost       bool // the kernel had no room for all that is gone
}

// A tuple names a flow.
type tuple struct{ local, remote netip.AddrPort }

// A flow is one connection from here, as the path counts it: it outlives its socket.
type flow struct {
	sock
	owner   *process // nil: it is not known
	opened  time.Time
	since   time.Time     // when its state was seen first
	ended   time.Time     // zero: it is open
	free    time.Time     // when the path gives its port up
	early   bool          // it was there before us: opened is too late
	first   int           // the look that saw it open first; zero: none has
	last    int           // the look that saw it open last
	byThem  bool          // their FIN came first
	rested  time.Time     // when it was seen idle first
	quiet   time.Duration // how long it was seen idle at a time
	reused  bool          // something was sent after that
	hung    bool          // its SYN was unanswered for long
	late    bool          // it ended after the path had forgotten it
	sought  bool          // its owner was looked for, and hides
	counted bool          // the path counts it
}

// taken reports whether the path holds a port for it. What it does not count takes one while
// it is open, of this machine's.
func (f *flow) taken(w pathway, now time.Time) bool {
	if f.ended.IsZero() {
		return !f.forgotten(w) || f.forgottenFor(w) < max(0, w.counted.Hold.Idle)
	}
	return f.counted && now.Before(f.free)
}

// forgotten reports whether it is open only here.
func (f *flow) forgotten(w pathway) bool {
	return f.counted && f.ended.IsZero() && f.lookedAt && w.counted.Idle > 0 && f.state != synSent && w.silence(&f.sock) >= w.counted.Idle
}

func (f *flow) forgottenFor(w pathway) time.Duration { return w.silence(&f.sock) - w.counted.Idle }

// life is how long it was open, at most.
func (f *flow) life() time.Duration { return f.ended.Sub(f.opened) }

// A history is what became of all connections from this network namespace, look by look.
// It is for one goroutine.
type history struct {
	path  pathway
	every time.Duration // between two looks, as intended

	flows map[tuple]*flow
	byID  map[uint64]*flow // those with a socket, by its cookie

	// What comes to a port costs the path nothing, also when nobody listens there any more.
	listens map[uint16]bool // ports that somebody listened on in the last look
	came    map[tuple]int   // what was left behind where nobody listens any more, and the look that saw it last

	began, last time.Time // of the looks
	looks       int
	opened      int // connections that were begun since the first look
	crowded     int // of these, those that there was no room for
	lost        int // looks between which the kernel lost events
	slowest     time.Duration
	unseen      int // in the last look: connections that nobody was seen to hold
}

func newHistory(w pathway, every time.Duration) *history {
	return &history{path: w, every: every, flows: make(map[tuple]*flow), byID: make(map[uint64]*flow), came: make(map[tuple]int)}
}

// look takes in what was seen. What is gone went before that.
func (h *history) look(now time.Time, s *sight) {
	h.unseen = 0
	if h.looks++; h.looks == 1 {
		h.began, h.last = now, now
	}
	h.slowest = max(h.slowest, now.Sub(h.last))
	if s.lost {
		h.lost++
	}
	listens := make(map[uint16]bool)
	for i := range s.seen {
		if k := &s.seen[i]; k.state == listening {
			listens[k.local.Port()] = true
		}
	}
	for i := range s.gone {
		if k := &s.gone[i]; !listens[k.local.Port()] && !h.incoming(k) {
			h.goes(now, k)
		}
	}
	for i := range s.seen {
		switch k := &s.seen[i]; {
		case listens[k.local.Port()]:
		case h.incoming(k):
			h.came[k.tuple()] = h.looks
		default:
			h.sees(now, k)
		}
	}
	h.listens = listens
	h.sweep(now)
	h.last = now
}

// incoming reports whether it came to a port while somebody listened there, or may have.
func (h *history) incoming(k *sock) bool {
	return h.listens[k.local.Port()] || h.came[k.tuple()] > 0
}

// goes takes in a socket that was destroyed.
func (h *history) goes(now time.Time, k *sock) {
	f := h.byID[k.cookie]
	if f == nil {
		if k.remote.Port() == 0 || k.local.Port() == 0 || h.flows[k.tuple()] != nil {
			return // it never led anywhere, or its TIME_WAIT was seen before
		}
		if f = h.open(k); f == nil {
			return
		}
	}
	how := k.how
	if k.remote.Port() == 0 {
		how = reset // the kernel clears what it resets
	}
	h.end(f, now, how)
}

// sees takes in a socket that is there.
func (h *history) sees(now time.Time, k *sock) {
	f := h.flows[k.tuple()]
	switch {
	case k.remote.Port() == 0:
		return
	case k.state == timeWait:
		if f == nil {
			if f = h.open(k); f == nil {
				return
			}
		}
		if f.state != timeWait {
			f.state = timeWait
			h.end(f, now.Add(k.expires-timeWaitFor), finished)
		}
		return
	case f != nil && !f.ended.IsZero() && f.cookie == k.cookie:
		return // the look was begun before it ended
	case f == nil || !f.ended.IsZero() || f.cookie != k.cookie:
		if f = h.open(k); f == nil {
			return
		}
	}
	if f.last == 0 || f.state != k.state {
		f.since = now
	}
	if f.first == 0 {
		f.first = h.looks
	}
	f.last = h.looks
	inode := cmp.Or(k.inode, f.inode)
	f.sock, f.inode = *k, inode
	f.byThem = f.byThem || k.state == closeWait || k.state == lastAck
	f.hung = f.hung || k.state == synSent && now.Sub(f.since) >= overdue
	if k.idle(2 * h.every) {
		f.quiet = max(f.quiet, k.mute)
		if f.rested.IsZero() {
			f.rested = now
		}
	}
	f.reused = f.reused || !f.rested.IsZero() && now.Add(-k.sent).After(f.rested)
}

func (k *sock) tuple() tuple { return tuple{k.local, k.remote} }

// open books a flow that was begun after the last look. A port that is used again is one
// port. Nil: there is no room.
func (h *history) open(k *sock) *flow {
	if h.looks > 1 {
		h.opened++
	}
	if old := h.flows[k.tuple()]; old != nil {
		delete(h.byID, old.cookie)
	} else if len(h.flows) >= mostFlows {
		h.crowded++
		return nil
	}
	f := &flow{sock: *k, opened: h.last, since: h.last, early: h.looks == 1}
	f.counted = len(h.path.counted.Keys(nil, k.local.Addr(), k.remote, "tcp")) > 0
	if f.state == timeWait {
		f.state = established // it was
	}
	h.flows[k.tuple()], h.byID[k.cookie] = f, f
	return f
}

// end books the end of a flow. A TIME_WAIT corrects what was booked before.
func (h *history) end(f *flow, at time.Time, how ending) {
	if f.opened.After(at) {
		f.opened = at
	}
	hold := h.path.hold(how)
	f.late = f.late || f.forgotten(h.path)
	if f.late { // nothing of its end gets through
		hold = max(0, h.path.counted.Hold.Idle-f.forgottenFor(h.path))
	}
	if f.ended.IsZero() && f.owner == nil && f.counted && !f.early {
		h.unseen++
	}
	f.how, f.ended, f.free = how, at, at.Add(hold)
	delete(h.byID, f.cookie)
}

// sweep ends what two looks have missed, as one may miss what is there, and forgets what
// the path has forgotten.
func (h *history) sweep(now time.Time) {
	for key, f := range h.flows {
		switch {
		case f.ended.IsZero() && f.last < h.looks-1:
			how := unclear
			switch f.state {
			case synSent:
				how = unanswered
			case finWait1, finWait2, closeWait, lastAck, closing:
				how = finished
			}
			h.end(f, now, how)
		case !f.ended.IsZero() && now.After(f.free) && now.Sub(f.ended) > keptFor:
			delete(h.flows, key)
		}
	}
	maps.DeleteFunc(h.came, func(_ tuple, look int) bool { return look < h.looks-1 })
}

// uncounted is how many connections there are that the path does not count.
func (h *history) uncounted() (n int) {
	for _, f := range h.flows {
		if !f.counted {
			n++
		}
	}
	return n
}

// ownerless are the flows whose owner can still be found, by inode.
func (h *history) ownerless(all bool) map[uint32]*flow {
	want := make(map[uint32]*flow)
	for _, f := range h.flows {
		if f.owner == nil && !f.sought && f.inode != 0 && f.last == h.looks && (f.counted || all) {
			want[f.inode] = f
		}
	}
	return want
}
