package dialer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Verdict is what a failed dial means.
type Verdict uint8

const (
	Unknown     Verdict = iota // too little is known to tell
	Exhausted                  // the NAT has no port left for the destination, or the Ledger knows that it has none
	Hairpin                    // a load balancer maps the flow back to this very host
	PathDown                   // packets to the destination vanish, and not for want of a port
	PeerDown                   // the far end answers, and wants no connection: refused, or reset
	Unreachable                // a router says so, or this machine knows no way
	LocalPorts                 // this machine has no local port left for the destination
	DNS                        // the name could not be looked up
)

var verdicts = [...]string{"unknown", "exhausted", "hairpin", "path-down", "peer-down", "unreachable", "local-ports", "dns"}

// String returns the verdict as errors and telemetry name it: "path-down".
func (v Verdict) String() string {
	if int(v) < len(verdicts) {
		return verdicts[v]
	}
	return verdicts[Unknown]
}

// VerdictOf returns what a failed dial means whose error is in err's chain. Of any other
// error nothing is known.
func VerdictOf(err error) Verdict {
	v, _, _ := told(err)
	return v
}

// A judged error is that of a dial to one address, and what it means.
type judged struct {
	verdict  Verdict
	evidence string // empty: the error says it all
	err      error
}

func (j *judged) Error() string     { return j.prefix() + j.err.Error() }
func (j *judged) Unwrap() error     { return j.err }
func (j *judged) ErrorType() string { return errorType(j.verdict, j.err) }

// prefix is what is said before the error itself.
func (j *judged) prefix() string {
	switch {
	case j.evidence != "":
		return fmt.Sprintf("%v (%s): ", j.verdict, j.evidence)
	case j.verdict != Unknown:
		return j.verdict.String() + ": "
	}
	return ""
}

// errorType is what telemetry says of an error that means v. What the system itself has a
// name for keeps that.
func errorType(v Verdict, err error) string {
	switch v {
	case Exhausted:
		if errors.Is(err, ErrBudget) {
			break
		}
		fallthrough
	case Hairpin, PathDown, LocalPorts:
		return "natwise." + strings.ReplaceAll(v.String(), "-", "_")
	}
	if isRefused(err) { // which Windows has numbers of its own for
		return "connection_refused"
	}
	return telemetry.ErrorType(err)
}

// told returns what an error says that it means, if it was judged.
func told(err error) (v Verdict, evidence string, ok bool) {
	if d := new(DialError); errors.As(err, &d) && d.Verdict != Unknown {
		return d.Verdict, d.Evidence, true
	}
	js := judgements(err, nil)
	for _, j := range js {
		if j.verdict != Unknown {
			return j.verdict, j.evidence, true
		}
	}
	switch {
	case len(js) > 0:
		return Unknown, js[0].evidence, true
	case errors.Is(err, ErrBudget):
		return Exhausted, "", true
	}
	return Unknown, "", false
}

// explain says what an error of a dial means, if need be by itself.
func explain(err error) (v Verdict, evidence string) {
	if v, evidence, ok := told(err); ok {
		return v, evidence
	}
	switch {
	case errors.As(err, new(*net.DNSError)) && !errors.Is(err, context.Canceled):
		return DNS, ""
	case isRefused(err), isReset(err):
		return PeerDown, ""
	case isUnreachable(err):
		return Unreachable, ""
	case isOutOfPorts(err):
		return LocalPorts, localPorts()
	}
	return Unknown, ""
}

// judgements appends those in err's tree to js.
func judgements(err error, js []*judged) []*judged {
	switch e := err.(type) {
	case *judged:
		return append(js, e)
	case interface{ Unwrap() error }:
		return judgements(e.Unwrap(), js)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			js = judgements(err, js)
		}
	}
	return js
}

// An evidence is what is known of an address that does not answer.
type evidence struct {
	dials    int           // that are not answered
	syns     int           // which they have sent
	over     time.Duration // since the first of those
	after    int           // of those SYNs: sent after somebody was seen to live
	answered int           // dials to there that were answered meanwhile
	loss     float64       // the share of SYNs that get lost anyway

	// Of connections to the address, and to others: whether anything came from them just
	// now, or they were asked in vain.
	same, others census

	counted bool // by a NAT
	held    int  // ports, by flows that were answered
	most    int  // that were held when a dial was answered
	limit   int  // of them, or netpath.None
	beyond  bool // the dial was to find out whether there is more than was learned

	rolled rolled
	serves []uint16 // ports that this host listens on, for others; nil for an address that is not private
}

const (
	// unlikely is how seldom chance may do what is taken for a fault, and acted upon; improbable
	// what is only called one.
	unlikely   = 2e-4
	improbable = 5e-3

	// manyHeld is how many ports must be held, at least, before one more can be taken for
	// too many; of a small limit a quarter.
	manyHeld = 8

	// manySYNs is how many one dial must have sent in vain before it can be taken for more
	// than bad luck. More go out within 10 s only since Linux 6.5.
	manySYNs = 4
)

// chance is how likely it is, at most, that so many SYNs were lost by chance, of so many dials
// among those that were answered: whichever of them it had hit would have been seen.
func (e *evidence) chance(dials, syns int) float64 {
	if dials == 0 {
		return 1
	}
	k, n := float64(dials), float64(dials+e.answered)
	return min(1, math.Pow(n*math.E/k, k)*math.Pow(e.loss, float64(syns)))
}

// hairpin reports whether flows come back to this host: the kernel has seen them come, or
// repeated SYNs are never answered where those of another source port are, at once.
func (e *evidence) hairpin() bool {
	r := &e.rolled
	if r.comeBack(cameBack) {
		return true
	}
	return len(e.serves) > 0 && 2*r.late <= r.long && r.long >= 3 && r.fresh >= 2 && e.chance(r.long, 2*r.long) <= unlikely && e.same.dead == 0
}

// judge says what it means that a dial is not answered.
func (e *evidence) judge() (Verdict, string) {
	chance := e.chance(e.dials, e.syns)
	if e.beyond && e.syns > 1 || e.same.dead > e.same.alive {
		chance = 0
	}
	full := e.counted && e.full()
	switch {
	case e.hairpin():
		return Hairpin, e.tellHairpin()
	case e.over < examineAfter, chance > improbable, full && chance > unlikely:
		return Unknown, fmt.Sprintf("%s not answered within %v", plural(e.syns, "SYN"), e.over.Round(10*time.Millisecond))
	case full:
		return Exhausted, fmt.Sprintf("%s not answered, %s; %s held%s", plural(e.syns, "SYN"), e.tellAlive(), plural(e.held, "port"), e.tellOthers())
	case e.same.alive > e.same.dead:
		return Unknown, fmt.Sprintf("%s not answered, while %s: the server, or what stands before it, takes no more, or others have the NAT's ports",
			plural(e.syns, "SYN"), e.tellAlive())
	}
	return PathDown, fmt.Sprintf("%s not answered, %s%s", plural(e.syns, "SYN"), e.tellAlive(), e.tellOthers())
}

// full reports whether it is ports that are wanting: what is there lives on.
func (e *evidence) full() bool {
	many := manyHeld
	if e.limit != netpath.None {
		many = max(1, min(many, e.limit/4))
	}
	switch {
	case e.held < many || e.others.dead > e.others.alive || e.after == 0:
		return false
	case e.dials == 1 && e.syns < manySYNs && !e.beyond:
		return false // others would have to wait for what one has seen
	case e.same.alive+e.same.dead > 0:
		return e.same.alive > e.same.dead
	case e.answered > 0:
		return true // some are: the address lives
	}
	// No connection is left to be asked, all are cooling: then there must never have been
	// as many, or almost all that there can be.
	nearly := e.limit != netpath.None && e.held*10 >= e.limit*9
	return e.others.alive > 0 && (nearly || e.held >= 2*manyHeld && e.held >= e.most && e.most > 0)
}

func (e *evidence) tellAlive() string {
	switch {
	case e.same.alive+e.same.dead == 0 && e.answered > 0:
		return "while " + plural(e.answered, "dial") + " to there were"
	case e.same.alive+e.same.dead == 0:
		return "no connection to there is left that could be asked"
	case e.same.dead == 0:
		return plural(e.same.alive, "connection") + " to there live"
	}
	return fmt.Sprintf("of %s to there %d live", plural(e.same.alive+e.same.dead, "connection"), e.same.alive)
}

func (e *evidence) tellOthers() string {
	switch n := e.others.alive + e.others.dead; {
	case n == 0:
		return ""
	case e.others.dead == 0:
		return ", those to elsewhere live"
	default:
		return fmt.Sprintf(", of %d to elsewhere %d live", n, e.others.alive)
	}
}

func (e *evidence) tellHairpin() string {
	var b strings.Builder
	r := &e.rolled
	if r.comeBack(cameBack) {
		fmt.Fprintf(&b, "%d of %d SYNs came back to this host", r.came, r.watched)
	} else {
		fmt.Fprintf(&b, "SYNs of %s never answered, of %d others at once", plural(r.long, "source port"), r.fresh)
	}
	if len(e.serves) > 0 {
		fmt.Fprintf(&b, ", which listens on %s", ports(e.serves))
	}
	if r.lost() {
		b.WriteString("; the balancer has no other backend: dial this host's own address (Dialer.Hairpin), from another one (Sources), or by a Proxy")
	}
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ports lists a few of them.
func ports(ps []uint16) string {
	const most = 4
	var b strings.Builder
	for i, p := range ps {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(ps)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, p)
	}
	return b.String()
}
