package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/natwise/natwise/internal/natlab/work"
)

func TestBadArgumentsAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only nowhere", `no scenario "nowhere"`},
		{"-fast", "-fast"},
		{"steady", `unexpected argument "steady"`},
	} {
		var out, errs bytes.Buffer
		if status := run(strings.Fields(c.args), &out, &errs); status != 2 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: status %d, %q", c.args, status, errs.String())
		}
		if out.Len() > 0 {
			t.Errorf("%s: standard output %q", c.args, out.String())
		}
	}
}

func TestARatioIsJudgedByItsBoundWhereThereIsOne(t *testing.T) {
	ones := []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
	ours := []float64{1, 1, 1, 1, 1, 1, 1, 1, 0.9, 0.9}
	if r := compare("rate", "tuned", ours, ones, 0.98, true); r.kept() || r.Ratio != 1 || r.Worst != 0.9 {
		t.Errorf("two bad pairs of ten: %v", r)
	}
	if r := compare("rate", "tuned", ours[6:9], ones[6:9], 0.98, true); !r.kept() {
		t.Errorf("one bad pair of three: %v", r)
	}
	if r := compare("p99_ms", "tuned", ours, ones, 1, false); !r.kept() || r.Worst != 1 {
		t.Errorf("at most: %v", r)
	}
}

func TestARatioWithoutBoundIsOnlyTold(t *testing.T) {
	if r := compare("p99_ms", "steady", []float64{500}, []float64{100}, 0, false); !r.kept() {
		t.Error(r)
	}
}

func TestWhatIsAskedOfNatwise(t *testing.T) {
	good := work.Result{Name: work.Natwise, Requests: 10, OK: 10, Opened: 3, Booked: 3}
	for what, spoil := range map[string]func(*work.Result){
		"":                    func(*work.Result) {},
		"1 requests failed":   func(c *work.Result) { c.Failed = 1 },
		"2 requests never":    func(c *work.Result) { c.Requests = 8 },
		"3 SYNs refused":      func(c *work.Result) { c.RefusedSYN = 3 },
		"129 ports at a time": func(c *work.Result) { c.PeakPorts = 129 },
		"129 flows opened":    func(c *work.Result) { c.Opened = 129 },
		"has booked no flow":  func(c *work.Result) { c.Booked = 0 },
	} {
		s := work.Scenario{Name: "steady", Requests: 10}
		a := &act{Scenario: s, report: newReport(s, "")}
		c := good
		spoil(&c)
		a.judge(c)
		if missed := a.report.Status == statusMissed; missed != (what != "") || !strings.Contains(a.report.Why, what) {
			t.Errorf("%q: %s, %q", what, a.report.Status, a.report.Why)
		}
	}
}
