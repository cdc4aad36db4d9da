package netpath

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// None says that there is no such limit or timer. It differs from zero, which
// says that nobody knows.
const None = -1

// A Profile is what one path does to TCP flows: how many it carries, how long
// it remembers a silent one, how long it holds the port of an ended one.
//
// The zero Profile is ready to use and means Unknown: cautious timers, no
// limit. A Profile is a value: copy it, change a field, use the copy. Its
// slices are shared by copies and must not be written to.
type Profile struct {
	Name   string // as Lookup knows it
	Source string // the page that the numbers come from, and its date
	Grade  Grade  // how far Source may be trusted
	Cites  []Cite // the numbers for which another source or grade holds

	// Limits are the accounts that a flow owes, all of them at once. Nil: no
	// limit is known.
	Limits []Limit

	// Sharers is how many processes or instances live on Limits, this one
	// included. Zero and one: they are ours alone. With more, our part of each
	// is N x 0.9 / Sharers.
	Sharers int

	// Idle is the silence after which the path forgets a flow. Zero: unknown,
	// 230 s are assumed. None: it never does.
	Idle   time.Duration
	AtIdle IdleAction

	// Hold is how long a port stays taken after its flow has ended.
	Hold Hold

	// Counts is what breaks the silence that Idle measures.
	Counts Traffic

	// Exempt destinations are not counted, but kept alive all the same. Nil:
	// those that a NAT towards the internet does not translate, which are
	// loopback, link-local and private addresses. NoExempt counts everything.
	Exempt []netip.Prefix

	// Drain is how long live flows survive when a machine of the path is taken
	// out of service. Zero: unknown. No keepalive helps against it.
	Drain time.Duration

	// Freezes says that the process is stopped between its turns (a function's
	// sandbox), so that nothing sends keepalive probes and only the wall clock
	// tells how long the silence was.
	Freezes bool

	// Resumes says that a forgotten flow lives again as soon as this side sends
	// a packet; what the far end sent meanwhile is lost.
	Resumes bool
}

// A Limit is one account of a path: at most N flows at a time for each Key of
// this Scope.
type Limit struct {
	Scope Scope
	N     int
}

// A Scope says which flows share one account.
type Scope uint8

const (
	// Destination: one account for each (destination IP, port, protocol), as
	// most NATs count.
	Destination Scope = iota
	// SourceDestination: one account for each (source IP, destination IP, port,
	// protocol), as a machine's own ports are counted where nothing translates.
	SourceDestination
	// AllPorts: one account of ports for all destinations together.
	AllPorts
	// Sockets: one account of open connections for all destinations together.
	// They are not ports: a closed connection leaves at once.
	Sockets

	scopes // how many there are
)

// Hold is how long the path keeps a port after its flow has ended, by the way
// in which it ended. Zero: unknown, 240 s are assumed. None: not at all.
type Hold struct {
	FIN  time.Duration // after the later of two FINs
	RST  time.Duration // after a RST from either end
	SYN  time.Duration // after the last SYN that nobody answered
	Idle time.Duration // after the path forgot a silent flow
}

// An IdleAction is what the path does with a flow that was silent for Idle.
type IdleAction uint8

const (
	// Drop forgets the flow and drops what follows, without a word.
	Drop IdleAction = iota
	// ResetNext forgets it and answers the next packet with a RST.
	ResetNext
	// ResetBoth sends a RST to both ends at once.
	ResetBoth
	// Close ends the connection in order, as a proxy does.
	Close
)

// Traffic is what a path counts as a sign of life.
type Traffic uint8

const (
	// Segments: any TCP segment, so that keepalive probes suffice.
	Segments Traffic = iota
	// Bytes: only data, so that something above TCP must speak.
	Bytes
	// Requests: only whole requests; not even an HTTP/2 PING.
	Requests
)

// A Grade says how a number came to be known.
type Grade uint8

const (
	Assumed    Grade = iota // nobody published it; a cautious guess
	Reported                // by users or an old or second-hand page
	Learned                 // by this process, from its own flows
	Measured                // on the system itself
	Documented              // by its maker, seen in its own text
)

// A Cite is the source of one field where it is not the Profile's.
type Cite struct {
	Field  string // as in Go: "Hold.SYN"
	Source string
	Grade  Grade
}

// Cite returns the source and the grade of a field, such as "Idle". For a timer
// that nobody knows they are those of the caution that stands in for it.
func (p Profile) Cite(field string) (source string, grade Grade) {
	for _, c := range p.Cites {
		if c.Field == field {
			return c.Source, c.Grade
		}
	}
	for _, t := range p.timers() {
		if t.field == field && *t.value == 0 {
			return caution, Assumed
		}
	}
	return p.Source, p.Grade
}

// A timer is one field of a Profile, and what zero stands for in it.
type timer struct {
	field   string
	value   *time.Duration
	unknown time.Duration
}

// timers returns Idle first, then the holds.
func (p *Profile) timers() [5]timer {
	return [...]timer{
		{"Idle", &p.Idle, unknownIdle},
		{"Hold.FIN", &p.Hold.FIN, unknownHold},
		{"Hold.RST", &p.Hold.RST, unknownHold},
		{"Hold.SYN", &p.Hold.SYN, unknownHold},
		{"Hold.Idle", &p.Hold.Idle, unknownHold},
	}
}

// Effective returns p with Unknown's value in each field that nobody knows. Ask
// p itself for the sources: the copy no longer shows what was unknown.
func (p Profile) Effective() Profile {
	for _, t := range p.timers() {
		*t.value = cmp.Or(*t.value, t.unknown)
	}
	if p.Exempt == nil {
		p.Exempt = untranslated
	}
	return p
}

// Limit returns how many flows of this process an account may hold: the
// smallest N of its scope, shared out among Sharers, at least one. None: as
// many as you like.
func (p Profile) Limit(s Scope) int {
	n := None
	for _, l := range p.Limits {
		if l.Scope == s && l.N != None && (n == None || l.N < n) {
			n = l.N
		}
	}
	if n != None && p.Sharers > 1 {
		n = max(1, n*9/10/p.Sharers)
	}
	return n
}

// Validate names the first field that makes no sense, and its value.
func (p Profile) Validate() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("netpath: profile %q: %s is %v, want %s", p.Name, field, value, want)
	}
	for i, l := range p.Limits {
		if l.Scope >= scopes {
			return bad(fmt.Sprintf("Limits[%d].Scope", i), l.Scope, "one of the four")
		}
		if l.N != None && l.N < 1 {
			return bad(fmt.Sprintf("Limits[%d].N", i), l.N, "1 or more, or None")
		}
	}
	if p.Sharers < 0 {
		return bad("Sharers", p.Sharers, "0 or more")
	}
	timers := p.timers()
	for _, t := range append(timers[:], timer{field: "Drain", value: &p.Drain}) {
		if *t.value != None && *t.value < 0 {
			return bad(t.field, *t.value, "a duration, 0 for unknown, or None")
		}
	}
	switch {
	case p.AtIdle > Close:
		return bad("AtIdle", uint8(p.AtIdle), "Drop, ResetNext, ResetBoth or Close")
	case p.Counts > Requests:
		return bad("Counts", uint8(p.Counts), "Segments, Bytes or Requests")
	case p.Grade > Documented:
		return bad("Grade", uint8(p.Grade), "Assumed to Documented")
	}
	for i, prefix := range p.Exempt {
		if !prefix.IsValid() {
			return bad(fmt.Sprintf("Exempt[%d]", i), prefix, "a valid prefix")
		}
	}
	return nil
}
