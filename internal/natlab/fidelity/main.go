package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	natlab.Enter()
	os.Setenv("NO_PROXY", "*") // there is none in a lab
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0 if all bounds were kept, 2 for bad arguments.
func run(args []string, stdout, stderr io.Writer) int {
	o, status, ok := work.ParseOptions("fidelity", args, stderr)
	if !ok {
		return status
	}
	runs, err := choose(all(o.Full), o.Only)
	if err != nil {
		fmt.Fprintln(stderr, "fidelity:", err)
		return 2
	}
	ok = true
	for _, r := range perform(runs) {
		ok = ok && r.Status == "ok"
		if !o.JSON {
			r.print(stdout)
		} else if err := json.NewEncoder(stdout).Encode(r); err != nil {
			fmt.Fprintln(stderr, "fidelity:", err)
			return 1
		}
	}
	if !ok {
		return 1
	}
	return 0
}

// A performance is one scenario and what is done in it.
type performance struct {
	work.Scenario
	play func(st *work.Stage) error
}

func all(long bool) []performance {
	var runs []performance
	for _, s := range work.Scenarios(long) {
		s.Room = 2 * work.Limit
		runs = append(runs, performance{s, storm})
	}
	churn := runs[0].Scenario
	churn.Name, churn.Requests = "churn", 600
	if long {
		churn.Requests = 6000
	}
	return append(runs, performance{churn, func(st *work.Stage) error { return churnOn(st, churn.Requests) }})
}

// storm does the work of a scenario. Nobody may fail in it.
func storm(st *work.Stage) error {
	load := st.Play()
	if load.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %w", load.Failed, load.Requests, load.Error)
	}
	return nil
}

func churnOn(st *work.Stage, flows int) error {
	p, err := listen(st.Lab, netip.AddrPortFrom(st.Origin.Addr(), 81))
	if err != nil {
		return err
	}
	defer p.Close()
	c := &churn{stage: st, peer: p, dialer: &dialer.Dialer{Ledger: st.Ledger, Dial: st.Lab.Dial}}
	return c.play(flows)
}

// choose returns the run of that name, or all for no name.
func choose(all []performance, name string) ([]performance, error) {
	if name == "" {
		return all, nil
	}
	var names []string
	for _, p := range all {
		if p.Name == name {
			return []performance{p}, nil
		}
		names = append(names, p.Name)
	}
	return nil, fmt.Errorf("no scenario %q, there are %s", name, strings.Join(names, ", "))
}

// perform performs all runs, one after the other, but the long wait of close
// beside the others.
func perform(runs []performance) []*Report {
	reports := make([]*Report, len(runs))
	var waiting sync.WaitGroup
	for i, p := range runs {
		if p.Closes {
			waiting.Go(func() { reports[i] = audited(p) })
		}
	}
	for i, p := range runs {
		if !p.Closes {
			reports[i] = audited(p)
		}
	}
	waiting.Wait()
	return reports
}

// audited performs one run in a lab of its own, and watches it.
func audited(p performance) *Report {
	r := newReport(p.Scenario)
	st, err := work.Open(p.Scenario, work.Natwise)
	if err != nil {
		if errors.Is(err, natlab.ErrUnavailable) {
			r.Status = "skipped"
		} else {
			r.Status = "missed"
		}
		r.Why = err.Error()
		return r
	}
	a := begin(st)
	played := p.play(st)
	booked := st.Booked()
	st.Rest()
	ended := a.end()
	r.judge(a, booked)
	if err := cmp.Or(played, ended, st.Close()); err != nil {
		r.miss("%v", err)
	}
	return r
}
