package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// A stormRun is what one client did in one scenario.
type stormRun struct {
	Bench    string `json:"bench"`
	Scenario string `json:"scenario"`
	Limit    int    `json:"limit"`
	work.Result
	verdict
}

// A stormReport is the bench storm.
type stormReport struct{ runs []stormRun }

// chosenStorm is the scenario to be played; empty: all but close, which lasts for
// as long as the others together.
var chosenStorm string

// stormFlags adds -scenario to the command line.
func stormFlags(flags *flag.FlagSet) {
	flags.Func("scenario", "of the bench storm play one `scenario`", func(name string) error {
		chosenStorm = name
		_, err := storms(false)
		return err
	})
}

// storms returns the scenarios to be played.
func storms(full bool) ([]work.Scenario, error) {
	all := work.Scenarios(full)
	if chosenStorm == "" {
		return slices.DeleteFunc(all, func(s work.Scenario) bool { return s.Closes }), nil
	}
	var names []string
	for _, s := range all {
		if s.Name == chosenStorm {
			return []work.Scenario{s}, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("no scenario %q, there are %s", chosenStorm, strings.Join(names, ", "))
}

// enterStorm lets a user who is not root have labs, if the storm is all that was asked
// for: others need the network outside.
func enterStorm(chosen []bench) {
	if len(chosen) == 1 && chosen[0].name == "storm" {
		natlab.Enter()
	}
}

// measureStorm has every client do the same work, each in a kernel lab of its own.
func measureStorm(full bool, progress io.Writer) report {
	r := new(stormReport)
	scenarios, err := storms(full)
	if err != nil {
		r.runs = []stormRun{{Bench: "storm", Scenario: chosenStorm, verdict: failed(err)}}
		return r
	}
	for _, s := range scenarios {
		for _, e := range stormEntries {
			run := playStorm(s, e)
			fmt.Fprintf(progress, "storm: %s, %s: %d of %d ok, p99 %.1f ms, %.1f s\n",
				s.Name, e.name, run.OK, run.Requests, run.P99, run.Seconds)
			r.runs = append(r.runs, run)
		}
	}
	return r
}

// playStorm has one client play one scenario. Where the gateway has room to show what
// natwise takes beyond the limit, the others meet the limit itself.
func playStorm(s work.Scenario, e stormEntry) stormRun {
	if e.name != work.Natwise {
		s.Room = work.Limit
	}
	got, err := work.Perform(e.name, func() (*work.Stage, error) {
		return work.OpenFor(s, e.open)
	})
	run := stormRun{Bench: "storm", Scenario: s.Name, Limit: work.Limit, Result: got, verdict: verdict{Status: statusOK}}
	run.Name = e.name
	switch {
	case errors.Is(err, natlab.ErrUnavailable):
		run.verdict = verdict{Status: statusSkipped, Why: err.Error()}
	case err != nil:
		run.verdict = failed(err)
	case e.name == work.Natwise:
		run.judge(s)
	}
	return run
}

// judge asks of natwise that it asks all, loses nothing and takes no port too many.
func (r *stormRun) judge(s work.Scenario) {
	var wrong []string
	for _, b := range []struct {
		what      string
		got, most int
	}{
		{"requests failed", r.Failed, 0},
		{"requests never asked", s.Requests - r.Requests, 0},
		{"SYNs refused", r.RefusedSYN, 0},
		{"ports at a time", r.PeakPorts, work.Limit},
	} {
		if b.got > b.most {
			wrong = append(wrong, fmt.Sprintf("%d %s", b.got, b.what))
		}
	}
	if r.Booked == 0 {
		wrong = append(wrong, "the ledger has booked no flow")
	}
	if len(wrong) > 0 {
		r.verdict = verdict{Status: statusMissed, Why: strings.Join(wrong, ", ")}
	}
}

func (r *stormReport) lines() []any {
	var all []any
	for _, run := range r.runs {
		all = append(all, run)
	}
	return all
}

func (r *stormReport) kept() bool {
	return !slices.ContainsFunc(r.runs, func(run stormRun) bool { return run.Status != statusOK })
}

func (r *stormReport) print(w io.Writer) {
	fmt.Fprintf(w, "storm: one address behind a NAT with %d ports, %s\n", work.Limit, work.Timers())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tclient\trequests\tok\tflows opened\tSYNs refused\tp50 ms\tp99 ms\tp99.9 ms\trate/s\t  ")
	for _, c := range r.runs {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.0f\t  %v\n", c.Scenario, c.Name,
			c.Requests, c.OK, c.Opened, c.RefusedSYN, c.P50, c.P99, c.P999, c.Rate, c.verdict)
	}
	t.Flush()
	for _, c := range r.runs {
		if c.Error != "" {
			fmt.Fprintf(w, "  %s, %s, the first failure: %s\n", c.Scenario, c.Name, c.Error)
		}
	}
	fmt.Fprint(w, stormFoot)
}

// stormFoot says how the peers are set up.
var stormFoot = fmt.Sprintf(`Each is set up by somebody who knows the limit: at most %d connections of a host, and all of
them kept; requests wait for a connection until their deadline; resty, go-retryablehttp and httplb
stand on such an http.Transport. go-retryablehttp repeats as it does by itself, resty not at all.
"split" knows besides, of each scenario, how many names and clients share the ports, and gives
each its part.
`, work.Limit)
