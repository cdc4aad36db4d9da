package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// What is asked of natwise, beside everybody's 0 failed and 0 refused.
const (
	steadyRate = 0.98 // of the tuned transport's, at least
	burstsP99  = 1.0  // times the tuned transport's, at most
	closeRate  = 0.95 // of ports / hold, at least
	closeP99   = 1.2  // times an ideal queue's, at most
)

// besideSteady is asked of the scenarios that are held against steady: p99, times that
// of steady, at most.
var besideSteady = map[string]float64{"names32": 1.3, "names40": 1.5, "clients": 1.3}

// sideBySide is how many clients run at a time that mostly wait. Each wants some
// 700 files. (http.DefaultTransport may want 12,000 in the other scenarios: it
// begins a dial for every request that does not find an idle connection, and
// goes on with it when the request has found one. So it runs alone there.)
const sideBySide = 5

// A theatre performs scenarios. What is compared with each other runs alone, in
// turns; clients that mostly wait run side by side in the end.
type theatre struct {
	pairs    int
	progress io.Writer

	mu sync.Mutex // guards progress and what the reports collect
}

// An act is one scenario with its report and all its runs.
type act struct {
	work.Scenario
	report *Report
	runs   map[string][]work.Result
}

// all performs the scenarios and reports on each.
func (t *theatre) all(scenarios []work.Scenario) []*Report {
	var acts []*act
	var reports []*Report
	for _, s := range scenarios {
		a := &act{s, newReport(s, bound(s)), make(map[string][]work.Result)}
		acts = append(acts, a)
		reports = append(reports, a.report)
	}
	for _, a := range acts {
		if !a.Closes {
			t.compared(a)
		}
	}
	t.others(acts)
	for _, a := range acts {
		a.finish()
	}
	return reports
}

// others performs what is left: clients that mostly wait.
func (t *theatre) others(acts []*act) {
	var all sync.WaitGroup
	turns := make(chan struct{}, sideBySide)
	for _, a := range slices.Backward(acts) { // the longest first
		for _, kind := range slices.Backward(work.Kinds) {
			if len(a.runs[kind]) > 0 || a.report.Status == statusSkipped {
				continue
			}
			turns <- struct{}{}
			all.Go(func() {
				t.run(a, a.in(kind), kind)
				<-turns
			})
		}
	}
	all.Wait()
}

// in is the scenario as a client meets it. Where the gateway has room to show
// what natwise takes beyond the limit, the others meet the limit itself.
func (a *act) in(kind string) work.Scenario {
	s := a.Scenario
	if kind != work.Natwise {
		s.Room = work.Limit
	}
	return s
}

// bound says in words what is asked.
func bound(s work.Scenario) string {
	always := "natwise: all requests asked, 0 failed, 0 SYNs refused, at most 128 ports; "
	switch s.Name {
	case "steady":
		return always + fmt.Sprintf("at most 128 flows opened, rate at least %.2f of tuned's", steadyRate)
	case "bursts":
		return always + "p99 at most tuned's"
	case "names32", "names40", "clients":
		return always + fmt.Sprintf("p99 at most %.1f x steady's", besideSteady[s.Name])
	case "close":
		return always + fmt.Sprintf("rate at least %.2f x 128 / hold, p99 at most %.1f x an ideal queue's", closeRate, closeP99)
	}
	return strings.TrimSuffix(always, "; ")
}

// compared performs the pairs of a's ratio, and what else must run alone.
func (t *theatre) compared(a *act) {
	switch a.Name {
	case "steady":
		ours, peers := t.turns(a, a.Scenario, work.Tuned)
		a.hold("rate", "tuned", ours, peers, steadyRate, true)
	case "bursts":
		ours, peers := t.turns(a, a.Scenario, work.Tuned)
		a.hold("p99_ms", "tuned", ours, peers, burstsP99, false)
	default:
		steady := a.Scenario
		steady.Name, steady.Names, steady.Clients = "steady", 1, 1
		ours, peers := t.turns(a, steady, work.Natwise)
		a.hold("p99_ms", "steady", ours, peers, besideSteady[a.Name], false)
	}
	for _, kind := range []string{work.Tuned, work.Default} {
		if len(a.runs[kind]) == 0 && a.report.Status != statusSkipped {
			t.run(a, a.Scenario, kind)
		}
	}
}

// turns runs natwise in a, and the peer, in pairs. Who begins changes from pair
// to pair: the first is not always met by a cold process.
func (t *theatre) turns(a *act, peer work.Scenario, kind string) (ours, peers []work.Result) {
	for i := range t.pairs {
		var own, other work.Result
		var ok, also bool
		if i%2 == 0 {
			other, also = t.run(a, peer, kind)
			own, ok = t.run(a, a.Scenario, work.Natwise)
		} else {
			own, ok = t.run(a, a.Scenario, work.Natwise)
			other, also = t.run(a, peer, kind)
		}
		if !ok || !also {
			break
		}
		ours, peers = append(ours, own), append(peers, other)
	}
	return ours, peers
}

// run performs one run and notes it if it is one of a's own scenario.
func (t *theatre) run(a *act, s work.Scenario, kind string) (work.Result, bool) {
	c, err := work.Perform(kind, func() (*work.Stage, error) { return work.Open(s, kind) })
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		a.failed(err)
		return c, false
	}
	fmt.Fprintf(t.progress, "%s, %s: %d of %d ok, %d flows, %d SYNs refused, p99 %.1f ms, %.0f/s, %.1f s\n",
		s.Name, kind, c.OK, c.Requests, c.Opened, c.RefusedSYN, c.P99, c.Rate, c.Seconds)
	if s.Name == a.Name {
		a.runs[kind] = append(a.runs[kind], c)
	}
	return c, true
}

func (a *act) failed(err error) {
	if errors.Is(err, natlab.ErrUnavailable) {
		a.report.skip(err)
		return
	}
	a.report.miss("%v", err)
}

// hold compares one figure of pairs of runs.
func (a *act) hold(of, peer string, ours, peers []work.Result, bound float64, least bool) {
	if len(ours) == 0 {
		return
	}
	figure := func(cs []work.Result) (fs []float64) {
		for _, c := range cs {
			if of == "rate" {
				fs = append(fs, c.Rate)
			} else {
				fs = append(fs, c.P99)
			}
		}
		return fs
	}
	a.report.hold(compare(of, peer, figure(ours), figure(peers), bound, least))
}

// finish judges natwise's runs and chooses a run of each client to be printed.
func (a *act) finish() {
	if a.report.Status == statusSkipped {
		return
	}
	for _, c := range a.runs[work.Natwise] {
		a.judge(c)
	}
	if own := a.runs[work.Natwise]; a.Closes && len(own) > 0 {
		a.judgeQueue(own[0])
	}
	for _, kind := range work.Kinds {
		if runs := a.runs[kind]; len(runs) > 0 {
			a.report.Clients = append(a.report.Clients, typical(runs))
		}
	}
}

// judge holds one run of natwise against what is asked of all.
func (a *act) judge(c work.Result) {
	for _, b := range []struct {
		what      string
		got, most int
	}{
		{"requests failed", c.Failed, 0},
		{"requests never asked", a.Requests - c.Requests, 0},
		{"SYNs refused", c.RefusedSYN, 0},
		{"ports at a time", c.PeakPorts, work.Limit},
	} {
		if b.got > b.most {
			a.report.miss("natwise: %d %s", b.got, b.what)
		}
	}
	if a.Name == "steady" && c.Opened > work.Limit {
		a.report.miss("natwise: %d flows opened", c.Opened)
	}
	if c.Booked == 0 {
		a.report.miss("natwise: the ledger has booked no flow")
	}
}

// judgeQueue compares with a queue that knows everything and loses no time.
func (a *act) judgeQueue(c work.Result) {
	hold := work.Path().Hold.FIN
	ideal := work.IdealQueue(a.Workers, a.Requests, work.Limit, work.Service, hold)
	a.report.hold(compare("rate", "128 / hold", []float64{c.Rate}, []float64{work.Limit / hold.Seconds()}, closeRate, true))
	p99 := work.Milliseconds(work.Percentile(ideal, 0.99))
	a.report.hold(compare("p99_ms", "ideal queue", []float64{c.P99}, []float64{p99}, closeP99, false))
}

// typical is the run with the median of the 99th percentiles.
func typical(runs []work.Result) work.Result {
	runs = slices.Clone(runs)
	slices.SortFunc(runs, func(a, b work.Result) int {
		if a.P99 < b.P99 {
			return -1
		}
		return 1
	})
	return runs[len(runs)/2]
}
