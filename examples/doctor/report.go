package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A fact is what the path does, and how that came to be known.
type fact struct {
	Field  string  `json:"field"`
	Value  float64 `json:"value"` // seconds or flows; -1: there is none
	Grade  string  `json:"grade"`
	Source string  `json:"source"`

	text string
}

func (w pathway) facts() (fs []fact) {
	add := func(field string, value float64, text string, args ...any) {
		source, grade := w.said.Cite(field)
		fs = append(fs, fact{field, value, grade.String(), source, fmt.Sprintf(text, args...)})
	}
	if w.said.Limits == nil {
		fs = append(fs, fact{Field: "Limits", Value: -1, Grade: netpath.Assumed.String(), text: "nobody knows how many connections it carries"})
	}
	for i, l := range w.said.Limits {
		n := w.said.Limit(l.Scope)
		if n == netpath.None {
			continue
		}
		add(fmt.Sprintf("Limits[%d]", i), float64(n), "carries %s connections, counted by %v", terminal.Thousands(n), l.Scope)
	}
	p := w.counted
	after := func(field string, d time.Duration, text string) {
		if d == netpath.None {
			add(field, -1, text, "never")
			return
		}
		add(field, d.Seconds(), text, "after "+span(d))
	}
	after("Idle", p.Idle, "forgets a silent one %s")
	fs[len(fs)-1].text += fmt.Sprintf(", then: %v", p.AtIdle)
	for _, h := range []struct {
		field, what string
		d           time.Duration
	}{{"Hold.FIN", "a FIN", p.Hold.FIN}, {"Hold.RST", "a RST", p.Hold.RST}, {"Hold.SYN", "an unanswered SYN", p.Hold.SYN}} {
		add(h.field, max(0, h.d.Seconds()), "holds a port for %s after %s", span(max(0, h.d)), h.what)
	}
	return fs
}

// A summary is what is printed at the end.
type summary struct {
	*chart
	warnings []warning
	missed   []string
}

// report prints what was seen and returns how many findings there are. Trouble: why it
// could not look, or not to the end.
func (d *doctor) report(trouble error) (findings int, err error) {
	d.proc.bury()
	c := d.history.chart(time.Now(), d.all, d.pid)
	for i, f := range c.findings {
		c.findings[i].Change = c.fix(f, d.proc.language(f.PID))
	}
	r := summary{chart: c, warnings: d.proc.warnings(c.path)}
	switch {
	case d.history.looks == 0:
		r.missed = []string{"everything: " + trouble.Error()}
	case trouble != nil:
		r.missed = []string{"what came later: " + trouble.Error()}
	}
	if d.history.looks > 0 {
		r.missed = append(r.missed, d.missed(c)...)
	}
	if d.asJSON {
		return len(c.findings), d.forMachines(r)
	}
	return len(c.findings), d.forPeople(r)
}

// What is printed for people is bounded, however much there is: -json has it all.
const (
	mostKinds = 12 // of findings
	mostRows  = 40 // of the table
)

func (d *doctor) forPeople(r summary) error {
	cols, _ := room(d.term)
	var b strings.Builder
	title := func(text string) { fmt.Fprintf(&b, "\n%s\n", d.term.Paint(terminal.Bold, text)) }
	head := "The path: " + r.path.said.Name
	if d.history.looks > 0 {
		head += ", watched for " + span(r.now.Sub(r.began))
	}
	b.WriteString(d.term.Paint(terminal.Bold, head) + "\n")
	if !r.path.known {
		b.WriteString(terminal.Wrap("Nothing tells where this machine runs, so that its figures are assumed. Say it: -path NAME, from go run ./examples/paths", "  ", cols) + "\n")
	}
	if d.history.looks > 0 {
		title(r.verdict())
		kinds := r.kinds()
		for i, k := range kinds {
			if i == mostKinds {
				fmt.Fprintf(&b, "  and %s\n", counted(len(kinds)-i, "kind more", "kinds more"))
				break
			}
			b.WriteString("  " + k.title(d.term) + "\n")
			for _, text := range []string{k[0].What + ".", "Change: " + k[0].Change + ".", k.others()} {
				if text != "" {
					b.WriteString(terminal.Wrap(text, "    ", cols) + "\n")
				}
			}
		}
		title("What it carries")
		b.WriteString(strings.Join(table(d.term, r.chart, cols, mostRows), "\n") + "\n")
	}
	title("What the path does")
	b.WriteString(terminal.Wrap("Source: "+r.path.said.Source, "  ", cols) + "\n")
	for _, f := range r.path.facts() {
		fmt.Fprintf(&b, "  %s (%s)\n", f.text, f.Grade)
	}
	if len(r.warnings) > 0 {
		title("Settings of this machine that will hurt")
	}
	for _, w := range r.warnings {
		b.WriteString(terminal.Wrap(fmt.Sprintf("%s is %s: %s.", w.Setting, w.Value, w.What), "  ", cols) + "\n" + terminal.Wrap("Change: "+w.Change+".", "    ", cols) + "\n")
	}
	if len(r.missed) > 0 {
		title("What it may have missed")
	}
	for _, text := range r.missed {
		b.WriteString("  -" + strings.TrimPrefix(terminal.Wrap(text+".", "    ", cols), "   ") + "\n")
	}
	_, err := fmt.Fprint(d.out, b.String())
	return err
}

// verdict is the sentence that who is in trouble reads first. It claims nothing of what
// was not judged.
func (c *chart) verdict() string {
	switch {
	case len(c.findings) > 0:
		return "What is wrong"
	case c.judged > 0:
		return fmt.Sprintf("Nothing wrong was seen in %s that the path counts", counted(c.judged, "connection", "connections"))
	case c.searched > 0:
		return fmt.Sprintf("No leak was seen in %s, none of which the path counts", counted(c.searched, "connection", "connections"))
	}
	return "No connection was seen that the path counts"
}

// The lines of -json.
type (
	pathLine struct {
		Kind   string `json:"kind"`
		Name   string `json:"name"`
		Known  bool   `json:"known"`
		Source string `json:"source"`
		Facts  []fact `json:"facts"`
	}
	useLine struct {
		Kind        string  `json:"kind"`
		Process     string  `json:"process"`
		PID         int     `json:"pid"` // zero: unknown, or ended
		Destination string  `json:"destination"`
		Counted     bool    `json:"counted"`
		Busy        int     `json:"busy"`
		Idle        int     `json:"idle"`
		Dialing     int     `json:"dialing"`
		Cooling     int     `json:"cooling"`
		Forgotten   int     `json:"forgotten"`
		Guessed     int     `json:"guessed"`
		Rate        float64 `json:"new_per_s"`
		Account     string  `json:"account"`
		Taken       int     `json:"account_taken"`
		Limit       int     `json:"account_limit"` // -1: nobody knows
	}
	findingLine struct {
		Kind string `json:"kind"`
		finding
	}
	warningLine struct {
		Kind string `json:"kind"`
		warning
	}
	missedLine struct {
		Kind string `json:"kind"`
		What string `json:"what"`
	}
)

func (d *doctor) forMachines(r summary) error {
	lines := []any{pathLine{"path", r.path.said.Name, r.path.known, r.path.said.Source, r.path.facts()}}
	for _, f := range r.findings {
		lines = append(lines, findingLine{"finding", f})
	}
	for _, a := range r.accounts {
		for _, u := range a.uses {
			lines = append(lines, useLine{"use", u.who.String(), u.who.number(), u.to.String(), !a.exempt, u.busy, u.idle, u.dialing, u.cooling, u.forgotten, u.guessed, r.rate(u), a.key.String(), a.taken, a.limit})
		}
	}
	for _, w := range r.warnings {
		lines = append(lines, warningLine{"warning", w})
	}
	for _, text := range r.missed {
		lines = append(lines, missedLine{"missed", text})
	}
	out := json.NewEncoder(d.out)
	for _, line := range lines {
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// missed tells what may have been there and was not seen.
func (d *doctor) missed(c *chart) (texts []string) {
	h := d.history
	say := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if hold, watched := c.path.hold(finished), c.now.Sub(c.began); hold > timeWaitFor && watched < hold-timeWaitFor {
		say("what was closed more than 60 s before it began: the kernel has forgotten that, and the path holds it for %s. After %s of watching that is over", span(hold), span(hold-timeWaitFor))
	}
	if c.path.said.Limits == nil {
		say("whether the ports run out: nobody knows how many connections this path carries")
	}
	if !d.events {
		say("connections that came and went within %s, unless they ended in TIME_WAIT: this kernel does not tell of what is destroyed", span(d.every))
	}
	if d.begun > h.opened {
		say("%s of the %s that the kernel has counted", counted(d.begun-h.opened, "connection", "connections"), terminal.Thousands(d.begun))
	}
	if h.crowded > 0 {
		say("%s: it keeps %s at most", counted(h.crowded, "connection", "connections"), terminal.Thousands(mostFlows))
	}
	if h.lost > 0 {
		say("some ends of connections: the kernel had no room for them, %s", counted(h.lost, "time", "times"))
	}
	if h.slowest > 2*d.every {
		say("what is shorter than %s: looking took longer than planned", span(h.slowest))
	}
	guessed := 0
	for _, a := range c.accounts {
		for _, u := range a.uses {
			guessed += u.guessed
		}
	}
	if c.searched > 0 {
		say("what else is wrong with %s that the path does not count: there only leaks are looked for, never-closed and half-closed", counted(c.searched, "connection", "connections"))
	}
	if n := h.uncounted(); n > 0 && !d.all {
		say("%s that the path does not count, as within this machine or a private network: -all shows them", counted(n, "connection", "connections"))
	}
	if c.unknown > 0 {
		say("whose %s were: too short to see, or their process hides", counted(c.unknown, "connection", "connections"))
	}
	if guessed > 0 {
		say("whose %s were, for certain: no process was seen to hold them; they are given to the only one seen with the same destination", counted(guessed, "connection", "connections"))
	}
	if hidden := len(d.proc.hidden); hidden > 0 {
		say("what %s of other users hold. As root (or with CAP_SYS_PTRACE) it sees that too", counted(hidden, "process", "processes"))
	}
	if n, pid := d.proc.elsewhere(); n > 0 {
		say("what %s (containers) carry: nsenter -t %d -n %s looks into that of %s", counted(n, "other network namespace", "other network namespaces"), pid, again(os.Args[0]), d.proc.process(pid))
	}
	say("UDP, and the other machines behind the same path")
	return texts
}
