package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

func TestWhatIsAskedOfNatwiseInAStorm(t *testing.T) {
	good := work.Result{Requests: 10, OK: 10, Opened: 3, Booked: 3, PeakPorts: work.Limit}
	for what, spoil := range map[string]func(*work.Result){
		"":                    func(*work.Result) {},
		"1 requests failed":   func(r *work.Result) { r.Failed = 1 },
		"2 requests never":    func(r *work.Result) { r.Requests = 8 },
		"3 SYNs refused":      func(r *work.Result) { r.RefusedSYN = 3 },
		"129 ports at a time": func(r *work.Result) { r.PeakPorts = 129 },
		"has booked no flow":  func(r *work.Result) { r.Booked = 0 },
	} {
		run := stormRun{Result: good, verdict: verdict{Status: statusOK}}
		spoil(&run.Result)
		run.judge(work.Scenario{Requests: 10})
		r := &stormReport{runs: []stormRun{run}}
		if r.kept() != (what == "") || !strings.Contains(run.Why, what) {
			t.Errorf("%q: %v", what, run.verdict)
		}
	}
}

func TestAScenarioThatDoesNotExistIsABadArgument(t *testing.T) {
	defer func() { chosenStorm = "" }()
	var out, errs bytes.Buffer
	status := run([]string{"-only", "storm", "-scenario", "calm"}, &out, &errs)
	if status != 2 || !strings.Contains(errs.String(), `no scenario "calm", there are steady`) || out.Len() > 0 {
		t.Errorf("status %d, %q", status, errs.String())
	}
}

func TestWithoutAChoiceTheLongScenarioIsLeftOut(t *testing.T) {
	all, err := storms(false)
	if err != nil || len(all) != len(work.Scenarios(false))-1 {
		t.Errorf("%d scenarios, error %v", len(all), err)
	}
	for _, s := range all {
		if s.Closes {
			t.Error(s.Name)
		}
	}
}

func TestALineOfJSONOfStorm(t *testing.T) {
	text, err := json.Marshal(stormRun{
		Bench: "storm", Scenario: "steady", Limit: 128, verdict: verdict{Status: statusOK},
		Result: work.Result{Name: "resty", OK: 9, Opened: 7, RefusedSYN: 5, P50: 1.5, P99: 2.5, P999: 3.5},
	})
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"bench": "storm", "scenario": "steady", "name": "resty", "ok": 9.0, "flows_opened": 7.0, "refused_syn": 5.0,
		"p50_ms": 1.5, "p99_ms": 2.5, "p999_ms": 3.5, "status": "ok",
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
}

func TestEveryClientOfTheStormKeepsItsConnections(t *testing.T) {
	s := work.Scenario{
		Name: "calm", Workers: 4, Requests: 40, Names: 2, Clients: 2, Room: work.Limit,
		Deadline: 10 * time.Second, Cap: 10 * time.Second,
	}
	for _, e := range stormEntries {
		r := playStorm(s, e)
		if r.Status == statusSkipped {
			t.Skip(r.Why)
		}
		// No more than 8 are needed at a time; http.Transport begins some in vain.
		if r.Status != statusOK || r.OK != s.Requests || r.Opened < 2 || r.Opened > s.Requests/2 {
			t.Errorf("%s: %d of %d ok, %d flows opened, %v %s", e.name, r.OK, r.Requests, r.Opened, r.verdict, r.Error)
		}
	}
}
