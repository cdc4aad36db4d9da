package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestBadArgumentsAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only nothing", `no bench "nothing"`},
		{"-fast", "-fast"},
		{"pool", `unexpected argument "pool"`},
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

// A fakeReport has one line, and keeps its bounds or not.
type fakeReport bool

func (fakeReport) lines() []any      { return []any{map[string]int{"a": 1}} }
func (fakeReport) print(w io.Writer) { io.WriteString(w, "text\n") }
func (f fakeReport) kept() bool      { return bool(f) }

func TestTheExitStatusSaysWhetherEveryBoundWasKept(t *testing.T) {
	defer func(old []bench) { benches = old }(benches)
	missed := bench{"missed", func(bool, io.Writer) report { return fakeReport(false) }}
	kept := bench{"kept", func(bool, io.Writer) report { return fakeReport(true) }}
	benches = []bench{missed, kept}
	for _, c := range []struct {
		args   string
		status int
		out    string
	}{
		{"", 1, "text\ntext\n"},
		{"-only kept", 0, "text\n"},
		{"-only missed -json", 1, `{"a":1}` + "\n"},
	} {
		var out bytes.Buffer
		if status := run(strings.Fields(c.args), &out, io.Discard); status != c.status || out.String() != c.out {
			t.Errorf("%q: status %d, %q", c.args, status, out.String())
		}
	}
}

func TestARatioIsTheMedianOfThePairsAndNotThatOfTheMedians(t *testing.T) {
	ours := []float64{1, 2, 3, 4, 100}
	peers := []float64{2, 4, 6, 8, 100} // slower by two, but for one pair
	r := compare(peerToOurs, ours, peers)
	if r.Ratio != 2 || r.Low != 1 || r.High != 2 || r.Pairs != 5 {
		t.Errorf("%+v", r)
	}
	if r := compare(oursToPeer, ours, peers); r.Ratio != 0.5 || r.Low != 0.5 || r.High != 1 {
		t.Errorf("the other way: %+v", r)
	}
	if !slices.Equal(ours, []float64{1, 2, 3, 4, 100}) {
		t.Error("compare has sorted its arguments")
	}
}

func TestAMedianLeavesTheFiguresInTheirOrder(t *testing.T) {
	xs := []float64{3, 1, 2}
	if m := median(xs); m != 2 || xs[0] != 3 {
		t.Error(m, xs)
	}
}

func TestAtMostIsAskedOfTheMedianAndAboveOfTheLowerBound(t *testing.T) {
	r := ratio{Ratio: 1.3, Low: 1, High: 1.6}
	if v := r.atMost(1.3); v.Status != statusOK {
		t.Error(v)
	}
	if v := r.atMost(1.29); v.Status != statusMissed {
		t.Error(v)
	}
	if v := r.above(1); v.Status != statusMissed { // not more than 1
		t.Error(v)
	}
	if v := r.above(0.99); v.Status != statusOK {
		t.Error(v)
	}
}

func TestTheFiguresOfSamples(t *testing.T) {
	s := series{{ops: 100, took: 500}, {ops: 300, took: 600, mallocs: 4}}
	if ns := s.nanos(); !slices.Equal(ns, []float64{5, 2}) {
		t.Error(ns)
	}
	if a := s.allocs(); a != 0.01 { // of all operations, not the mean of two figures
		t.Error(a)
	}
}

func TestTheBestHasTheSmallestMedian(t *testing.T) {
	of := []entry{{name: "steady"}, {name: "lucky"}}
	if b := best(of, map[string][]float64{"steady": {5, 5, 5}, "lucky": {1, 6, 6}}); b != "steady" {
		t.Error(b)
	}
}

func TestALineOfJSON(t *testing.T) {
	s := speed{poolCase: poolCases()[6].named("ns"), Peer: "puddle", Ours: 2, Peers: 4}
	s.ratio = compare(peerToOurs, []float64{2, 2, 2, 2, 2}, []float64{4, 4, 4, 4, 4})
	s.verdict = s.above(peersLeast)
	var line map[string]any
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"bench": "pool", "figure": "ns", "goroutines": 8.0, "values": 2.0, "contended": true, "ours_ns": 2.0,
		"peer": "puddle", "peer_ns": 4.0, "ratio_is": "peer/ours", "ratio": 2.0, "ratio_low": 2.0, "ratio_high": 2.0,
		"pairs": 5.0, "bound": 1.0, "bound_is": "ratio_low above", "status": "ok",
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
}

func TestWhatCouldNotBeMeasuredIsMissed(t *testing.T) {
	defer func(old entry) { ours = old }(ours)
	ours.open = func(int) (contender, error) { return nil, errors.New("no pool") }
	r := new(poolReport)
	r.measureSpeed(poolCases()[0], 5)
	r.measureWaits(5)
	if r.kept() || len(r.speeds) != len(peers) || r.speeds[0].Why != "no pool" || r.waits[0].Why != "no pool" {
		t.Errorf("%+v", r)
	}
	if _, err := json.Marshal(r.lines()); err != nil {
		t.Error(err)
	}
}
