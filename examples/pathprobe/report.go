package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"go/format"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// The measurements besides idle and ports.
const (
	holdFIN = "hold-fin"
	holdRST = "hold-rst"
	holdSYN = "hold-syn"
)

var holdKinds = [...]string{holdFIN, holdRST, holdSYN}

const (
	statusOK      = "ok"
	statusMissed  = "missed"
	statusSkipped = "skipped"
)

// A result is one measurement, as -json prints it. What is absent is not known.
type result struct {
	Scenario    string   `json:"scenario"`
	Target      string   `json:"target"`
	Status      string   `json:"status"`
	Why         string   `json:"why,omitempty"`        // it is not ok
	AtLeast     *float64 `json:"at_least_s,omitempty"` // survived; not free yet
	AtMost      *float64 `json:"at_most_s,omitempty"`  // deadly; free
	Then        string   `json:"then,omitempty"`       // what the path does with a flow that it forgot
	Certified   *bool    `json:"certified,omitempty"`  // nothing slipped into the silences
	Ports       int      `json:"ports,omitempty"`
	More        bool     `json:"more,omitempty"` // ports: there are at least as many
	Connections int      `json:"connections,omitempty"`
	Took        float64  `json:"took_s,omitempty"`
	Profile     string   `json:"profile,omitempty"` // in Go

	text string // for people
}

// A report collects the results and what they say about the path.
type report struct {
	*prober
	results []result
	path    netpath.Profile
	notes   map[string]string // of a field of the path: what exactly was seen
}

func (r *report) add(res result) {
	if res.Target = r.dest.String(); res.Status == "" {
		res.Status = statusOK
	}
	r.results = append(r.results, res)
}

func (r *report) note(field, format string, args ...any) {
	if r.notes == nil {
		r.notes = make(map[string]string)
	}
	r.notes[field] = fmt.Sprintf(format, args...)
}

func (r *report) skip(scenario, why string) {
	r.add(result{Scenario: scenario, Status: statusSkipped, Why: why})
}

// idle reports what was found. Of a search that did not come to its end, that is
// what is known so far.
func (r *report) idle(found idleFinding, took time.Duration) {
	lo, hi := found.Lo, found.Hi
	res := result{Scenario: "idle", Connections: found.flows, Took: *seconds(took)}
	switch {
	case found.err != nil:
		res.Status, res.Why = statusMissed, found.err.Error()
	case hi == 0 && found.Server == 0 && lo < r.max:
		res.Status, res.Why = statusMissed, "nothing was survived and nothing deadly"
	}
	if lo > 0 {
		res.AtLeast = seconds(lo)
	}
	switch {
	case hi > 0:
		res.AtMost, res.Then = seconds(hi), found.action.String()
		res.text = fmt.Sprintf("forgets after %v to %v of silence; then: %v", short(lo), short(hi), found.action)
		r.path.AtIdle = found.action
	case found.Server > 0:
		res.AtMost, res.Then = seconds(found.Server), netpath.Close.String()
		res.text = fmt.Sprintf("the server, or a proxy before it, closes after %v of silence", short(found.Server))
		r.path.AtIdle = netpath.Close
	case lo > 0:
		res.text = fmt.Sprintf("remembers for %v and more", short(lo))
	default:
		res.text = "nothing is known"
	}
	if found.flows > 0 {
		res.Certified = &found.certified
		if !found.certified {
			res.text += "; not certified: this system does not tell whether something slipped into the silence"
		}
	}
	r.path.Idle = floor(cmp.Or(found.Lo, found.Hi/2))
	r.note("Idle", "%s", res.text)
	r.add(res)
}

func (r *report) ports(found portsFinding, took time.Duration) {
	res := result{Scenario: "ports", Ports: found.n, More: !found.full, Connections: found.n, Took: *seconds(took)}
	res.text = fmt.Sprintf("%d connections at a time", found.n)
	switch {
	case found.err != nil:
		res.Status, res.Why = statusMissed, found.err.Error()
		res.text += " and maybe more"
	case !found.full:
		res.text += ", and more"
	default:
		r.path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: found.n}}
		r.note("Limits", "to this address and port; that others have accounts of their own was not measured")
	}
	r.add(res)
}

func (r *report) hold(kind string, found holdFinding, took time.Duration) {
	res := result{Scenario: kind, Took: *seconds(took)}
	if found.atLeast > 0 {
		res.AtLeast = seconds(found.atLeast)
	}
	if found.atMost > 0 {
		res.AtMost = seconds(found.atMost)
	}
	switch {
	case found.err != nil:
		res.Status, res.Why = statusMissed, found.err.Error()
	case found.atMost == 0:
		res.Status, res.Why = statusMissed, fmt.Sprintf("the port was not free after %v", short(found.atLeast))
	case found.atLeast == 0:
		res.text = fmt.Sprintf("the port is free at once (%v)", short(found.atMost))
	default:
		res.text = fmt.Sprintf("the port is taken for %v to %v", short(found.atLeast), short(found.atMost))
	}
	if res.Status == "" {
		field := map[string]*time.Duration{holdFIN: &r.path.Hold.FIN, holdRST: &r.path.Hold.RST, holdSYN: &r.path.Hold.SYN}[kind]
		*field = ceil(found.atMost)
		if found.atLeast == 0 {
			*field = netpath.None
		}
	}
	r.add(res)
}

// end prints the results, and as the last one the profile that they make.
func (r *report) end() error {
	r.path.Name, r.path.Grade = "measured", netpath.Measured
	r.path.Source = fmt.Sprintf("pathprobe to %v, %s", r.dest, time.Now().Format(time.DateOnly))
	complete := true
	for _, res := range r.results {
		complete = complete && res.Status == statusOK
		if res.Certified != nil && !*res.Certified {
			r.path.Source += ", not certified"
		}
	}
	profile := result{Scenario: "profile", Profile: r.inGo()}
	if !complete {
		profile.Status, profile.Why = statusMissed, "not everything was measured; what is missing is left out"
	}
	r.add(profile)
	write := r.forPeople
	if r.asJSON {
		write = r.forMachines
	}
	if err := write(); err != nil {
		return err
	}
	if !complete {
		return errIncomplete
	}
	return nil
}

func (r *report) forMachines() error {
	lines := json.NewEncoder(r.out)
	for _, res := range r.results {
		if err := lines.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) forPeople() error {
	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	for _, res := range r.results {
		if res.Profile != "" {
			continue
		}
		text := res.text
		if res.Why != "" {
			text = strings.Trim(res.Status+": "+res.Why+"; "+text, "; ")
		}
		fmt.Fprintf(table, "%s\t%s\n", res.Scenario, text)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.out, "\n%s", r.inGo())
	return err
}

// inGo is the path as Go reads it. What was not measured is left out: a Profile
// is cautious about it.
func (r *report) inGo() string {
	p := r.path
	var b strings.Builder
	line := func(field, value string) {
		fmt.Fprintf(&b, "\t%s: %s,", field, value)
		if note := r.notes[field]; note != "" {
			b.WriteString(" // " + note)
		}
		b.WriteString("\n")
	}
	b.WriteString("netpath.Profile{\n")
	line("Name", fmt.Sprintf("%q", p.Name))
	line("Source", fmt.Sprintf("%q", p.Source))
	line("Grade", "netpath.Measured")
	if len(p.Limits) > 0 {
		line("Limits", fmt.Sprintf("[]netpath.Limit{{Scope: netpath.Destination, N: %d}}", p.Limits[0].N))
	}
	if p.Idle > 0 {
		line("Idle", goDuration(p.Idle))
	}
	if p.AtIdle != netpath.Drop {
		line("AtIdle", map[netpath.IdleAction]string{
			netpath.ResetNext: "netpath.ResetNext", netpath.ResetBoth: "netpath.ResetBoth", netpath.Close: "netpath.Close",
		}[p.AtIdle])
	}
	if p.Hold != (netpath.Hold{}) {
		line("Hold", goHold(p.Hold))
	}
	b.WriteString("}\n")
	text, err := format.Source([]byte(b.String()))
	if err != nil {
		panic(fmt.Sprintf("pathprobe: %v in %s", err, &b))
	}
	return string(text)
}

func goHold(h netpath.Hold) string {
	var fields []string
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"FIN", h.FIN}, {"RST", h.RST}, {"SYN", h.SYN}} {
		if f.value != 0 {
			fields = append(fields, f.name+": "+goDuration(f.value))
		}
	}
	return "netpath.Hold{" + strings.Join(fields, ", ") + "}"
}

func goDuration(d time.Duration) string {
	switch {
	case d == netpath.None:
		return "netpath.None"
	case d%time.Second == 0:
		return fmt.Sprintf("%d * time.Second", d/time.Second)
	}
	return fmt.Sprintf("%d * time.Millisecond", d/time.Millisecond)
}

// step is what a measured time is rounded to: more would be a lie.
func step(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Second:
		return 10 * time.Millisecond
	case d < 100*time.Second:
		return 100 * time.Millisecond
	}
	return time.Second
}

func floor(d time.Duration) time.Duration { return d.Truncate(step(d)) }

func ceil(d time.Duration) time.Duration { return (d + step(d) - 1).Truncate(step(d)) }

func short(d time.Duration) time.Duration { return d.Round(step(d)) }

func shorts(ds []time.Duration) (rounded []time.Duration) {
	for _, d := range ds {
		rounded = append(rounded, short(d))
	}
	return rounded
}

func seconds(d time.Duration) *float64 {
	s := float64(d.Round(time.Millisecond).Milliseconds()) / 1000
	return &s
}
