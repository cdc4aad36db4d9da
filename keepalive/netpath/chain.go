package netpath

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Chain returns the path through several boxes in a row. It forgets as soon as
// the first of them does (with that one's AtIdle, the quieter one's if several
// do), holds a port as long as the slowest, has all their Limits and the
// strictest of their Counts. Exempt is what all of them exempt. It freezes if
// one does, resumes if all that forget do, and drains as the fastest known one.
// Cites tells which box each number comes from.
//
// An unknown timer stands for Unknown's value, as it does everywhere: a box that
// does not matter to a timer says None. Limits with different Sharers are
// shared out at once. The order of boxes changes the texts, never the numbers.
// Of no box it returns Unknown, of one that box.
func Chain(hops ...Profile) Profile {
	if len(hops) == 0 {
		return Unknown()
	}
	p := hops[0]
	for _, next := range hops[1:] {
		p = join(p, next)
	}
	return p
}

func join(a, b Profile) Profile {
	p := Profile{
		Name:    cmp.Or(a.Name, "unnamed") + " + " + cmp.Or(b.Name, "unnamed"),
		Source:  joinSources(a.Source, b.Source),
		Grade:   min(a.Grade, b.Grade),
		Exempt:  commonExempt(a.Exempt, b.Exempt),
		Freezes: a.Freezes || b.Freezes,
		Resumes: joinResumes(a, b),
	}
	p.joinTimers(a, b)
	p.joinLimits(a, b)
	p.joinDrain(a, b)

	p.Counts = max(a.Counts, b.Counts)
	from := a
	if b.Counts > a.Counts {
		from = b
	}
	p.citeAs("Counts", from, "Counts")
	return p
}

func (p *Profile) joinTimers(a, b Profile) {
	as, bs := a.timers(), b.timers()
	for i, t := range p.timers() {
		x, y := cmp.Or(*as[i].value, t.unknown), cmp.Or(*bs[i].value, t.unknown)
		first := y <= x // the longer hold; None is the shortest
		if t.field == "Idle" {
			first = endless(x) <= endless(y)
			p.joinAtIdle(a, b, x, y)
		}
		from := b
		*t.value = y
		if first {
			from = a
			*t.value = x
		}
		p.citeAs(t.field, from, t.field)
	}
}

// joinAtIdle takes the action of the box that forgets first, the quieter one of
// two that forget together.
func (p *Profile) joinAtIdle(a, b Profile, idleA, idleB time.Duration) {
	from := a
	switch {
	case endless(idleB) < endless(idleA):
		from = b
	case idleA == idleB && b.AtIdle < a.AtIdle:
		from = b
	}
	p.AtIdle = from.AtIdle
	p.citeAs("AtIdle", from, "AtIdle")
}

// endless returns None as the longest time there is.
func endless(d time.Duration) time.Duration {
	if d == None {
		return 1<<63 - 1
	}
	return d
}

// joinLimits keeps what each box allows us. One Sharers cannot say that two
// boxes are shared by different numbers, so then each limit becomes our part.
func (p *Profile) joinLimits(a, b Profile) {
	switch {
	case len(a.Limits) == 0:
		p.Sharers = b.Sharers
	case len(b.Limits) == 0, max(1, a.Sharers) == max(1, b.Sharers):
		p.Sharers = a.Sharers
	default:
		a.Limits, b.Limits = a.ourLimits(), b.ourLimits()
	}
	for _, hop := range []Profile{a, b} {
		for i, l := range hop.Limits {
			field := fmt.Sprintf("Limits[%d]", len(p.Limits))
			p.Limits = append(p.Limits, l)
			p.citeAs(field, hop, fmt.Sprintf("Limits[%d]", i))
		}
	}
}

// ourLimits returns our part of each limit.
func (p Profile) ourLimits() []Limit {
	ours := slices.Clone(p.Limits)
	for i, l := range ours {
		alone := Profile{Limits: []Limit{l}, Sharers: p.Sharers}
		ours[i].N = alone.Limit(l.Scope)
	}
	return ours
}

func (p *Profile) joinDrain(a, b Profile) {
	from := a
	switch {
	case a.Drain > 0 && b.Drain > 0:
		if b.Drain < a.Drain {
			from = b
		}
	case b.Drain > 0, a.Drain <= 0 && b.Drain == 0: // one that is unknown may be short
		from = b
	}
	if p.Drain = from.Drain; p.Drain != 0 {
		p.citeAs("Drain", from, "Drain")
	}
}

func joinResumes(a, b Profile) bool {
	switch {
	case a.Idle == None && b.Idle != None:
		return b.Resumes
	case b.Idle == None && a.Idle != None:
		return a.Resumes
	}
	return a.Resumes && b.Resumes
}

// citeAs records as the source of p's field what hop says of its own.
func (p *Profile) citeAs(field string, hop Profile, hopField string) {
	source, grade := hop.Cite(hopField)
	if source != p.Source || grade != p.Grade {
		p.Cites = append(p.Cites, Cite{field, source, grade})
	}
}

func joinSources(a, b string) string {
	switch {
	case b == "" || strings.Contains(a, b):
		return a
	case a == "" || strings.Contains(b, a):
		return b
	}
	return a + "; " + b
}

// commonExempt returns what lies in both lists. Nil stays nil: the default.
func commonExempt(a, b []netip.Prefix) []netip.Prefix {
	if a == nil && b == nil {
		return nil
	}
	if a == nil {
		a = untranslated
	}
	if b == nil {
		b = untranslated
	}
	common := NoExempt()
	for _, x := range a {
		for _, y := range b {
			narrower := x
			if x.Bits() < y.Bits() {
				narrower = y
			}
			if x.Overlaps(y) && !slices.Contains(common, narrower) {
				common = append(common, narrower)
			}
		}
	}
	return common
}
