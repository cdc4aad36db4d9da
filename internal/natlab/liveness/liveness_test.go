package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

func TestBadArgumentsAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only nowhere", `no scenario "nowhere"`},
		{"-fast", "-fast"},
		{"parked", `unexpected argument "parked"`},
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

func TestEveryScenarioCanBeChosen(t *testing.T) {
	for _, s := range scenarios {
		if got, err := choose(scenarios, s.name); err != nil || len(got) != 1 || got[0].about != s.about {
			t.Errorf("%s: %v, %v", s.name, got, err)
		}
	}
}

func TestWhoMeasuresMillisecondsRunsAlone(t *testing.T) {
	var running, most atomic.Int32
	play := func(alone bool) func(*report) error {
		return func(r *report) error {
			now := running.Add(1)
			defer running.Add(-1)
			if alone && now > 1 {
				t.Errorf("%s runs beside others", r.name)
			}
			time.Sleep(time.Second)
			most.Store(max(most.Load(), running.Load()))
			r.note(told("x", "", number(1)))
			return nil
		}
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		reports := perform([]scenario{
			{"a", "", false, play(false)}, {"b", "", true, play(true)}, {"c", "", false, play(false)}, {"d", "", true, play(true)},
		}, false, io.Discard)
		for i, name := range []string{"a", "b", "c", "d"} {
			if r := reports[i]; r.name != name || !r.kept() {
				t.Errorf("report %d is %s, kept %t", i, r.name, r.kept())
			}
		}
		if took := time.Since(begin); took != 3*time.Second || most.Load() != 2 {
			t.Errorf("it took %v, %d at a time", took, most.Load())
		}
	})
}

func TestWhatDidNotHappenIsNoSuccess(t *testing.T) {
	for _, c := range []struct {
		err  error
		want status
	}{
		{fmt.Errorf("no root: %w", natlab.ErrUnavailable), statusSkipped},
		{errors.New("broken"), statusMissed},
	} {
		r := perform([]scenario{{"a", "", false, func(*report) error { return c.err }}}, false, io.Discard)[0]
		if m := r.measurements; r.kept() || len(m) != 1 || m[0].Status != c.want || m[0].Why != c.err.Error() {
			t.Errorf("%v: %+v", c.err, m)
		}
	}
	r := perform([]scenario{{"a", "", false, func(*report) error { return nil }}}, false, io.Discard)[0]
	if r.kept() {
		t.Error("nothing was measured, and all is well")
	}
}

func TestABoundIsTheMost(t *testing.T) {
	for _, c := range []struct {
		ours Reading
		want status
	}{
		{seconds(7999 * time.Millisecond), statusOK},
		{seconds(8 * time.Second), statusOK},
		{seconds(8001 * time.Millisecond), statusMissed},
		{moreThan(8500 * time.Millisecond), statusMissed}, // 8 s were waited for in vain
	} {
		if m := measured("x", "s", c.ours, 8); m.Status != c.want {
			t.Errorf("%v: %+v", c.ours, m)
		}
	}
	if m := told("x", "", number(99)); m.Status != statusOK || m.Bound != nil {
		t.Errorf("nothing was asked of %+v", m)
	}
}

func TestARatioNeedsTwoKnownValues(t *testing.T) {
	for _, c := range []struct {
		ours, peer Reading
		want       float64
	}{
		{seconds(2 * time.Second), seconds(8 * time.Second), 0.25},
		{seconds(2 * time.Second), moreThan(60 * time.Second), 0},
		{moreThan(2 * time.Second), seconds(8 * time.Second), 0},
		{number(0), number(0), 0},
	} {
		if m := measured("x", "", c.ours, 8).beside("Go", c.peer); m.Ratio != c.want {
			t.Errorf("%v beside %v: %v", c.ours, c.peer, m.Ratio)
		}
	}
}

func TestTheFieldsOfTheJSON(t *testing.T) {
	r := &report{scenario: scenario{name: "parked-reader"}}
	r.note(measured("until it is known to be dead", "s", seconds(6*time.Second), 8).
		beside("Go", moreThan(time.Minute)).over(http2, "").said(io.EOF, nil))
	r.note(told("suspicions", "", number(0)))
	text, err := json.Marshal(r.measurements)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"scenario":"parked-reader","over":"http2","figure":"until it is known to be dead","unit":"s","ours_value":6,` +
		`"ours_error":"EOF","peer":"Go","peer_value":60,"peer_more":true,"bound":8,"status":"ok"},` +
		`{"scenario":"parked-reader","figure":"suspicions","ours_value":0,"status":"ok"}]`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestPeopleReadWhatWasMissedAndWhy(t *testing.T) {
	r := &report{scenario: scenario{name: "busy", about: "a flow goes black"}}
	m := measured("until it is dead", "s", seconds(time.Second), 3).beside(goDefaults, moreThan(time.Minute)).over(plain, "one request")
	m.miss("Read: %v is no black hole", io.EOF)
	r.note(m)
	r.note(measured("lost", "", number(1), 0).beside("http.Transport", number(2)).over(http2, "").said(syscall.ECONNRESET, nil))
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{
		"busy: a flow goes black", "plain one request", "1 s", "> 60 s", "3 s", "MISSED",
		"plain one request until it is dead: Read: EOF is no black hole",
		"2 (http.Transport)", "http2 lost: connection reset by peer",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestMeasurementsOfOneConnectionStandTogether(t *testing.T) {
	r := new(report)
	for _, m := range []Measurement{
		told("1", "", number(0)).over(http2, ""), told("2", "", number(0)).over(plain, "b"),
		told("3", "", number(0)).over(plain, "a"), told("4", "", number(0)).over(plain, "b"),
	} {
		r.note(m)
	}
	r.sort()
	order := ""
	for _, m := range r.measurements {
		order += m.Figure
	}
	if order != "3241" {
		t.Error(order)
	}
}

func TestWhatNftPrintsOfCounters(t *testing.T) {
	counts, err := parseCounters(`table ip liveness {
	counter ours_tls {
		packets 12 bytes 720
	}
	counter ours_tls_passed {
		packets 0 bytes 0
	}
}
`)
	if err != nil || len(counts) != 2 || counts["ours_tls"] != 12 {
		t.Error(counts, err)
	}
}

func TestOnlyTheFirstFateCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		since := time.Now()
		f := newFate()
		time.AfterFunc(3*time.Second, func() { f.is(io.EOF) })
		time.AfterFunc(4*time.Second, func() { f.is(nil) })
		soon, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if v, err := f.after(soon, since); v != (Reading{2, true}) || err != nil {
			t.Errorf("after 2.5 s: %v, %v", v, err)
		}
		time.Sleep(2 * time.Second)
		for range 2 { // the second time its context is done, too
			if v, err := f.after(soon, since); v != (Reading{3, false}) || err != io.EOF {
				t.Errorf("after 4.5 s: %v, %v", v, err)
			}
		}
	})
}

func TestTheWorstOfTheWrecks(t *testing.T) {
	var w wreck
	for i := range resets {
		w.dropped = append(w.dropped, time.Duration(i+1)*time.Millisecond)
	}
	if got := w.took(0.5); got != (Reading{50, false}) {
		t.Error(got)
	}
	if got := w.took(1); got != (Reading{100, false}) {
		t.Error(got)
	}
	w.dropped[resets-1] = never
	if got := w.took(1); got != (Reading{1000, true}) {
		t.Error(got)
	}
}
