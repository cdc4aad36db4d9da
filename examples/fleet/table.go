package main

import (
	"fmt"
	"strings"

	"github.com/natwise/natwise/internal/terminal"
)

// closing prints the runs side by side, and what the difference is.
func (s *screen) closing(results []result) error {
	var played []result
	for _, r := range results {
		if r.Status == "skipped" {
			s.printf("\n%s\n", terminal.Wrap("This machine cannot show what a shared budget does: "+r.Reason+".", "", s.width()))
			continue
		}
		played = append(played, r)
	}
	if len(played) == 0 {
		return s.err
	}
	s.table(played)
	s.printf("\n")
	for line := range strings.Lines(terminal.Wrap(told(played), "", s.width())) {
		s.printf("%s\n", s.Paint(terminal.Bold, strings.TrimSuffix(line, "\n")))
	}
	s.printf("\n%s", advice)
	return s.err
}

const advice = `In your program, in each of the processes:

    shared, err := budget.Host("/dev/shm/myapp", 128)
    dialer.DefaultLedger.Budget = shared

examples/fleet/README.md says which directory, and what is yours on which cloud.

`

// facts are the lines of the table.
var facts = []struct {
	name string
	of   func(result) string
	bad  func(result) bool // nil: it never is
}{
	{"requests served", func(r result) string { return terminal.Thousands(r.Served) }, nil},
	{"by the process with most", func(r result) string { return terminal.Thousands(r.MostServed) }, nil},
	{"by the one with fewest", func(r result) string { return terminal.Thousands(r.LeastServed) }, nil},
	{"requests without an answer", func(r result) string { return terminal.Thousands(r.Failed) }, func(r result) bool { return r.Failed > 0 }},
	{"p99 wait for a connection", func(r result) string { return fmt.Sprintf("%s ms", terminal.Thousands(int(r.P99Wait))) }, nil},
	{"peak of the ports held", func(r result) string { return fmt.Sprintf("%d of %d", r.PeakPorts, r.Ports) }, nil},
	{"SYNs refused", func(r result) string { return terminal.Thousands(r.RefusedSYNs) }, func(r result) bool { return r.RefusedSYNs > 0 }},
	{"ports of the killed process", func(r result) string { return terminal.Thousands(r.KilledHeld) }, nil},
	{"kept by the budget", func(r result) string {
		if r.Kept == 0 {
			return "nobody knows" // what it left in the NAT
		}
		return fmt.Sprintf("%d for %.1f s", r.Kept, r.KeptFor)
	}, nil},
}

const factWidth, cellWidth = 30, 18

var heads = map[string]string{without: "each for itself", with: "shared budget"}

func (s *screen) table(played []result) {
	head := strings.Repeat(" ", factWidth)
	for _, r := range played {
		head += fmt.Sprintf("%*s", cellWidth, heads[r.Scenario])
	}
	s.printf("\n%s\n", s.Paint(terminal.Faint, head))
	for _, f := range facts {
		s.printf("  %-*s", factWidth-2, f.name)
		for _, r := range played {
			cell := fmt.Sprintf("%*s", cellWidth, f.of(r))
			if f.bad != nil && f.bad(r) {
				cell = s.Paint(terminal.Red, cell)
			}
			s.printf("%s", cell)
		}
		s.printf("\n")
	}
}

// told says in a sentence what the numbers show, and no more.
func told(played []result) string {
	var alone, shared *result
	for i, r := range played {
		if r.Status == "missed" {
			return "This run did not show what it should: " + titles[r.Scenario] + ": " + r.Bound + "."
		}
		if r.Scenario == without {
			alone = &played[i]
		} else {
			shared = &played[i]
		}
	}
	switch {
	case shared == nil:
		return fmt.Sprintf("Each for itself, the processes had %s and lost %s.", refused(alone), lost(alone))
	case alone == nil:
		return fmt.Sprintf("With a shared budget the processes held at most %d of %d ports, had %s and lost %s.",
			shared.PeakPorts, shared.Ports, refused(shared), lost(shared))
	case alone.RefusedSYNs == 0:
		return fmt.Sprintf("These sizes do not exhaust %d ports: no SYN was refused in either run, so they show no difference. Try the defaults.", alone.Ports)
	}
	return fmt.Sprintf("Each for itself, the processes wanted more than the %d ports that there are: they had %s and lost %s, and one of them got %s while another got %s. "+
		"With a shared budget they had %s, lost %s, and got %s to %s answers each.",
		alone.Ports, refused(alone), lost(alone), counted(alone.LeastServed, "no answer", "one answer", "answers"), terminal.Thousands(alone.MostServed),
		refused(shared), lost(shared), terminal.Thousands(shared.LeastServed), terminal.Thousands(shared.MostServed))
}

func refused(r *result) string {
	return counted(r.RefusedSYNs, "no SYN", "one SYN", "SYNs") + " refused"
}

func lost(r *result) string { return counted(r.Failed, "no request", "one request", "requests") }
