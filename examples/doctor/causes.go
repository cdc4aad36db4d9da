package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A finding is what one process does wrong to one destination, and what to change.
type finding struct {
	Cause       string `json:"cause"`
	Process     string `json:"process"`
	PID         int    `json:"pid"`
	Destination string `json:"destination"`
	What        string `json:"what"`
	Change      string `json:"change"`

	of *cause
	by *use
}

// So many connections, and not one or two, are a habit.
const few = 5

// A cause is one way to waste ports: says tells what a use does of that, "" if nothing.
type cause struct {
	name   string
	says   func(c *chart, u *use) string
	change advice
}

// advice is what to change: in a program that we know nothing of, in one in Go, in one
// with natwise. PROBE and EVERY stand for seconds, LIFE for a lifetime.
type advice struct{ general, inGo, natwise string }

// causes are looked for in this order. A use may have several; the last is for those that
// have no other.
var causes = [...]cause{
	{"unanswered", (*chart).unanswered, advice{
		"dial less, not more often: each SYN takes a port",
		"dial less, not more often: each SYN takes a port; a dialer.Dialer of natwise waits for one and says why a dial failed (dialer.VerdictOf)",
		"dialer.VerdictOf(err) says which of the two it is; with Ledger.Path set, dials wait for a port instead of hanging",
	}},
	{"too-silent", (*chart).tooSilent, advice{
		"SO_KEEPALIVE with TCP_KEEPIDLE PROBE, TCP_KEEPINTVL EVERY, TCP_KEEPCNT 3, or close what is idle for so long",
		"net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: PROBE * time.Second, Interval: EVERY * time.Second, Count: 3}}",
		"Dialer.Ledger.Path is not this path, or Dialer.Plan overrides what follows from it",
	}},
	{"half-closed", (*chart).halfClosed, advice{
		"close a connection whose read returned 0 bytes; in a pool, an idle time below the server's, or a test before reuse",
		"Close a connection whose Read returned io.EOF; with database/sql, SetConnMaxIdleTime below the server's timeout",
		"lend these connections from a pool (pool/conns, httpx, sqlx), which notices; or Close them when Peek says that they ended",
	}},
	{"never-closed", (*chart).neverClosed, advice{
		"one client for the whole program, a bound on its pool, an idle time after which it closes; each answer read to its end",
		"one http.Client for the whole program, each Body read to its end and closed, Transport.MaxConnsPerHost; db.SetMaxOpenConns, Rows closed",
		"one httpx.Transport for the whole program, each Body closed; Config.Max of a pool, each Lease put back",
	}},
	{"small-pool", (*chart).smallPool, advice{
		"let the pool keep as many idle connections as there are requests at once",
		"http.Transport{MaxIdleConnsPerHost: as many as there are requests at once}; db.SetMaxIdleConns equal to SetMaxOpenConns",
		"httpx.NewClient, whose pool keeps what it opened; with Wrap or Install, Transport.MaxIdleConnsPerHost",
	}},
	{"short-lived", (*chart).shortLived, advice{
		"keep the connection for the next request: keep-alive, one client for the whole program, a lifetime of LIFE or more in its pool",
		"one http.Client for the whole program, no DisableKeepAlives, each Body read to its end and closed; SetConnMaxLifetime of LIFE or more",
		"one httpx.NewClient for the whole program; MaxLife of LIFE or more, or none",
	}},
	{"replaced", (*chart).replaced, advice{
		"a lifetime of LIFE or more in its pool, and an idle time as long as the server and the path allow",
		"db.SetConnMaxLifetime(0) or LIFE and more; db.SetMaxIdleConns equal to SetMaxOpenConns; Transport.IdleConnTimeout as long as server and path allow",
		"MaxLife of LIFE or more, or none; MaxIdle as long as the server allows",
	}},
	{"crowded", (*chart).crowded, advice{
		"fewer connections at a time, or more ports: another address on the NAT, a private endpoint",
		"fewer connections at a time (Transport.MaxConnsPerHost), or more ports: another address on the NAT, a private endpoint",
		"nothing, if dialer.DefaultLedger.Path is this path: dials wait for a port; else set it",
	}},
}

// leaks take files and local ports too, and the server's connections, so that they are
// wrong where no path counts.
var leaks = map[string]bool{"half-closed": true, "never-closed": true}

// fix is what to change, in a program of this language.
func (c *chart) fix(f finding, language string) string {
	path := c.path.counted
	if f.Cause == "too-silent" && path.Counts != netpath.Segments {
		return fmt.Sprintf("TCP keepalive does not help on this path: have the program ask something every %s, or close what is idle for so long", span(probeAfter(path.Idle)))
	}
	text := map[string]string{"": f.of.change.general, "go": f.of.change.inGo, "natwise": f.of.change.natwise}[language]
	return strings.NewReplacer(
		"PROBE", seconds(probeAfter(path.Idle)), "EVERY", seconds(probeEvery(path.Idle)), "LIFE", span(10*c.path.hold(finished)),
	).Replace(text)
}

// A chart is the accounts at one time, and what is wrong with them.
type chart struct {
	path       pathway
	began, now time.Time
	accounts   []*account
	findings   []finding
	judged     int // connections that the path counts
	searched   int // others, for leaks only
	unknown    int // of all these, those that nobody was seen to hold

	totals []*account // of all destinations together
	most   *use       // of what they have, the largest
}

// chart draws up what there is. With a pid, that is what this process has.
func (h *history) chart(now time.Time, all bool, pid int) *chart {
	c := &chart{path: h.path, began: h.began, now: now, accounts: h.standing(now, all)}
	for _, a := range c.accounts {
		if a.total() {
			c.totals = append(c.totals, a)
		}
		for _, u := range a.uses {
			if !a.exempt && (c.most == nil || u.taken() > c.most.taken()) {
				c.most = u
			}
			if u.who == nil {
				c.unknown += len(u.flows)
			}
		}
	}
	for _, a := range c.accounts {
		for _, u := range a.uses {
			if pid == 0 || pid == u.who.number() {
				c.diagnose(u)
			}
		}
		if pid != 0 {
			a.uses = slices.DeleteFunc(a.uses, func(u *use) bool { return pid != u.who.number() })
		}
	}
	if pid != 0 {
		c.accounts = slices.DeleteFunc(c.accounts, func(a *account) bool { return len(a.uses) == 0 })
	}
	return c
}

func (c *chart) diagnose(u *use) {
	if u.owes.exempt {
		c.searched += len(u.flows)
	} else {
		c.judged += len(u.flows)
	}
	for i, cause := range causes {
		if u.owes.exempt && !leaks[cause.name] {
			continue
		}
		if what := cause.says(c, u); what != "" {
			u.wrong = append(u.wrong, cause.name)
			c.findings = append(c.findings, finding{cause.name, u.who.String(), u.who.number(), u.to.String(), what, "", &causes[i], u})
		}
	}
}

// A kind is the findings of one cause in one program, the largest first: fifty workers, or a
// thousand destinations, have one habit.
type kind []finding

func (c *chart) kinds() (kinds []kind) {
	type name struct{ cause, program string }
	at := make(map[name]int)
	for _, f := range c.findings {
		n := name{f.Cause, f.by.who.program()}
		if _, known := at[n]; !known {
			at[n] = len(kinds)
			kinds = append(kinds, nil)
		}
		kinds[at[n]] = append(kinds[at[n]], f)
	}
	return kinds
}

// title is who does what, and to whom.
func (k kind) title(t terminal.Terminal) string {
	return fmt.Sprintf("%s to %s: %s", t.Paint(terminal.Bold, k[0].Process), k[0].Destination, t.Paint(terminal.Red, k[0].Cause))
}

// others names some of those that the title does not, "" if there are none.
func (k kind) others() string {
	const some = 3
	var names []string
	for _, f := range k[1:min(len(k), 1+some)] {
		name := "to " + f.Destination
		if f.Process != k[0].Process {
			name = f.Process + " " + name
		}
		names = append(names, name)
	}
	switch more := len(k) - 1 - len(names); {
	case len(names) == 0:
		return ""
	case more > 0:
		return "The same: " + strings.Join(names, ", ") + " and " + terminal.Thousands(more) + " more."
	}
	return "The same: " + strings.Join(names, ", ") + "."
}

// rate is how many connections a second a use began in the last minute.
func (c *chart) rate(u *use) float64 {
	over := min(c.now.Sub(c.began), time.Minute)
	if over <= 0 {
		return 0
	}
	return float64(u.count(func(f *flow) bool { return !f.early && c.now.Sub(f.opened) <= over })) / over.Seconds()
}

func (c *chart) unanswered(u *use) string {
	n := u.count(func(f *flow) bool { return f.hung })
	if n < few {
		return ""
	}
	alive := 0
	for _, other := range u.owes.uses {
		alive += other.busy + other.idle
	}
	if alive > 0 {
		return fmt.Sprintf("%d dials got no answer, while %s to the same place %s: most likely the path has no port left", n, counted(alive, "connection", "connections"), verb(alive, "lives", "live"))
	}
	return fmt.Sprintf("%d dials got no answer, and no connection to it lives: it is unreachable, or the path has no port left", n)
}

func (c *chart) tooSilent(u *use) string {
	idle := c.path.counted.Idle
	if idle <= 0 {
		return ""
	}
	bare, late := 0, 0
	for _, f := range u.flows {
		silence := c.path.silence(&f.sock)
		switch {
		case !f.ended.IsZero() || !f.lookedAt || f.state != established || silence < idle/2 || f.forgotten(c.path):
		case c.path.counted.Counts != netpath.Segments:
		case f.expires == 0 && !f.keepalive:
			bare++
		case f.keepalive && silence+f.expires > idle:
			late++
		}
	}
	if u.forgotten+bare+late == 0 {
		return ""
	}
	text := fmt.Sprintf("the path forgets after %s of silence (then: %v): ", span(idle), c.path.counted.AtIdle)
	for _, part := range []struct {
		n    int
		what string
	}{{u.forgotten, "forgotten already"}, {bare, "without keepalive"}, {late, "probed too late"}} {
		if part.n > 0 {
			text += fmt.Sprintf("%s %s, ", counted(part.n, "connection", "connections"), part.what)
		}
	}
	return text[:len(text)-2]
}

func (c *chart) halfClosed(u *use) string {
	n := u.count(func(f *flow) bool {
		return f.ended.IsZero() && f.state == closeWait && c.now.Sub(f.since) >= overdue
	})
	if n < few {
		return ""
	}
	return fmt.Sprintf("%d connections in CLOSE_WAIT: the server has closed them, and this process has not", n)
}

func (c *chart) neverClosed(u *use) string {
	half := c.began.Add(c.now.Sub(c.began) / 2)
	begun, open, held, unread, late := 0, 0, 0, 0, 0
	for _, f := range u.flows {
		if f.early {
			continue
		}
		begun++
		if !f.ended.IsZero() || f.state == closeWait {
			continue
		}
		open++
		if f.quiet > 0 && !f.reused {
			held++
			if f.opened.After(half) {
				late++
			}
		}
		if f.unread > 0 {
			unread++
		}
	}
	// A pool that fills up stops growing, and uses what it has.
	if held < few || held*10 < open*7 || (begun-open)*10 > begun || late == 0 || late == held {
		return ""
	}
	text := fmt.Sprintf("%d opened, %d closed; %d lie idle and more come", begun, begun-open, held)
	if unread > 0 {
		text += fmt.Sprintf(", %d with an answer that nobody has read to its end", unread)
	}
	if limit := u.owes.limit; limit > u.owes.taken {
		if rate := c.rate(u); rate > 0 {
			text += fmt.Sprintf("; at this rate the path's %s ports are gone in %s", terminal.Thousands(limit), span(time.Duration(float64(limit-u.owes.taken)/rate*float64(time.Second))))
		}
	}
	return text
}

// A spending is connections that cost the path more time after their end than they lived.
type spending struct {
	n, byThem  int           // byThem: the server closed first
	rested     int           // that were idle for most of their life
	life, hold time.Duration // on average
	wants      int           // ports in the long run, at this rate: Little's law
	limit      int
}

// spent sums up those that were used again after a rest, or those that were not. Not ok:
// there are none to speak of.
func (c *chart) spent(u *use, reused bool) (s spending, ok bool) {
	s.limit = u.owes.limit
	for _, f := range u.flows {
		hold := c.path.hold(f.how)
		if f.early || f.ended.IsZero() || f.reused != reused || f.how == unanswered || f.how == refused || f.life() >= hold {
			continue
		}
		s.n, s.life, s.hold = s.n+1, s.life+f.life(), s.hold+hold
		if f.byThem {
			s.byThem++
		}
		if f.quiet > f.life()/2 {
			s.rested++
		}
	}
	if s.n < few {
		return s, false
	}
	s.life, s.hold = s.life/time.Duration(s.n), s.hold/time.Duration(s.n)
	s.wants = int(c.rate(u) * (s.life + s.hold).Seconds())
	return s, s.limit <= 0 || max(s.wants, u.taken())*20 >= s.limit
}

func (s spending) String() string {
	text := fmt.Sprintf("%d closed, open for %s at most on average. Each port stays taken for %s more", s.n, span(s.life), span(s.hold))
	if s.wants > 0 {
		text += ", so that at this rate it takes " + terminal.Thousands(s.wants)
	}
	if s.wants > 0 && s.limit > 0 {
		text += " of " + terminal.Thousands(s.limit)
	}
	return text
}

// kept is how many connections wait for the next burst, and how large a burst was. None,
// where none was ever used again: what seems to rest may still wait for its answer, as TLS
// says something in between. What was kept of the last burst has not rested yet.
func (c *chart) kept(u *use) (kept, burst int) {
	together, pooled, idle := make(map[time.Time]int), false, 0
	for _, f := range u.flows {
		pooled = pooled || f.reused
		if f.ended.IsZero() && (f.reused || f.quiet > 0) {
			kept++
		}
		if f.ended.IsZero() && f.idle(0) {
			idle++
		}
		if !f.early {
			together[f.opened]++ // between the same two looks
			burst = max(burst, together[f.opened])
		}
	}
	if kept = max(kept, idle); !pooled {
		kept = 0
	}
	return kept, max(burst, u.peak())
}

func (c *chart) smallPool(u *use) string {
	s, ok := c.spent(u, false)
	kept, burst := c.kept(u)
	if !ok || 2*max(s.byThem, s.rested) > s.n || kept == 0 || burst < kept+3 {
		return ""
	}
	goes := ""
	if kept == 2 {
		goes = " (Go's MaxIdleConnsPerHost is 2 where nobody sets it)"
	}
	return fmt.Sprintf("up to %d connections at once, of which it keeps %d%s and closes the others after use: %v", burst, kept, goes, s)
}

func (c *chart) shortLived(u *use) string {
	s, ok := c.spent(u, false)
	if !ok || c.smallPool(u) != "" {
		return ""
	}
	text := fmt.Sprintf("connections for one use: %v", s)
	if 2*s.byThem > s.n {
		text = fmt.Sprintf("connections that the server closes after one use: %v", s)
	}
	for _, other := range u.owes.uses {
		if s, _ := c.spent(other, false); u.who == nil && other != u && s.n > 0 {
			text += fmt.Sprintf("; %s was seen to do so", other.who)
		}
	}
	return text
}

func (c *chart) replaced(u *use) string {
	s, ok := c.spent(u, true)
	if once, _ := c.spent(u, false); !ok || 2*s.byThem > s.n || once.n > s.n {
		return ""
	}
	return fmt.Sprintf("a pool that replaces what it could use again: %v", s)
}

func (c *chart) crowded(u *use) string {
	if len(u.wrong) > 0 {
		return ""
	}
	if a := u.owes; a.full() && u == a.uses[0] {
		return fmt.Sprintf("%s of %s ports are taken, most of them by it (%s)", terminal.Thousands(a.taken), terminal.Thousands(a.limit), terminal.Thousands(u.taken()))
	}
	for _, a := range c.totals {
		if a.full() && u == c.most {
			return fmt.Sprintf("%s of %s are taken (%s), more of them by it than by any other", terminal.Thousands(a.taken), terminal.Thousands(a.limit), a.name())
		}
	}
	return ""
}

// full reports whether four fifths of what there is are taken.
func (a *account) full() bool { return a.limit > 0 && a.taken*5 >= a.limit*4 }
