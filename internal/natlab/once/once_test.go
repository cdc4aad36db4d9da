package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

func TestBadArgumentsAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only nowhere", `no scenario "nowhere"`},
		{"-fast", "-fast"},
		{"black", `unexpected argument "black"`},
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

func TestWhatDidNotHappenIsNoSuccess(t *testing.T) {
	for _, c := range []struct {
		err  error
		want status
	}{
		{fmt.Errorf("no root: %w", natlab.ErrUnavailable), statusSkipped},
		{errors.New("broken"), statusMissed},
	} {
		r := perform(scenario{"a", "", func(*report) error { return c.err }}, false, io.Discard)
		if m := r.measurements; r.kept() || len(m) != 1 || m[0].Status != c.want || m[0].Why != c.err.Error() {
			t.Errorf("%v: %+v", c.err, m)
		}
	}
	if r := perform(scenario{"a", "", func(*report) error { return nil }}, false, io.Discard); r.kept() {
		t.Error("nothing was measured, and all is well")
	}
}

func TestABoundIsTheMost(t *testing.T) {
	for _, c := range []struct {
		ours Reading
		want status
	}{
		{seconds(4 * time.Second), statusOK},
		{seconds(4001 * time.Millisecond), statusMissed},
		{Reading{3, true}, statusMissed}, // 3 s were waited for in vain
	} {
		if m := told("", "x", "s", c.ours).atMost(4); m.Status != c.want {
			t.Errorf("%v: %+v", c.ours, m)
		}
	}
	if m := told("", "x", "", number(99)); m.Status != statusOK || m.Bound != nil {
		t.Errorf("nothing was asked of %+v", m)
	}
}

func TestTheFieldsOfTheJSON(t *testing.T) {
	r := &report{scenario: scenario{name: "black-http1"}}
	var failed causes
	failed.add(io.EOF)
	r.note(told(http1, "later by, p99.9", "s", seconds(2*time.Second)).beside(tuned, seconds(8*time.Second)).said(failed, nil).atMost(4))
	r.note(told("", "it took", "s", Reading{55, true}).beside(tuned, Reading{}))
	var out strings.Builder
	if err := r.write(&out, true); err != nil {
		t.Fatal(err)
	}
	const want = `{"scenario":"black-http1","over":"http1","figure":"later by, p99.9","unit":"s","ours_value":2,"ours_error":"1 x EOF",` +
		`"peer":"http.Transport, tuned","peer_value":8,"ratio":0.25,"bound":4,"status":"ok"}` + "\n" +
		`{"scenario":"black-http1","figure":"it took","unit":"s","ours_value":55,"ours_more":true,` +
		`"peer":"http.Transport, tuned","peer_value":0,"status":"ok"}` + "\n"
	if out.String() != want {
		t.Errorf("got  %s\nwant %s", out.String(), want)
	}
	if !json.Valid([]byte(strings.SplitAfter(out.String(), "\n")[0])) {
		t.Error("a line is no object")
	}
}

func TestPeopleReadWhatWasMissedAndWhy(t *testing.T) {
	r := &report{scenario: scenario{name: "exactly-once", about: "faults"}}
	var failed causes
	failed.add(syscall.ECONNRESET)
	r.note(told(http2, "GETs that failed", "", number(1)).beside(tuned, number(2)).said(failed, nil).atMost(0))
	m := told(http1, "POSTs", "", number(3))
	m.miss("%d were to be sent", 4)
	r.note(m)
	var out strings.Builder
	if err := r.write(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"exactly-once: faults", "2 (http.Transport, tuned)", "MISSED",
		"http2 GETs that failed, ours: 1 x connection reset by peer", "http1 POSTs: 4 were to be sent",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if got := r.summary(); got != "0 of 2 bounds kept" {
		t.Error(got)
	}
}

func TestCausesThatDifferInNumbersAreOne(t *testing.T) {
	var c causes
	for i := range 3 {
		c.add(fmt.Errorf(`Get "http://198.51.100.1:80/wait?for=%dms": read tcp 10.78.1.2:%d->198.51.100.1:80: silent for %d.5ms`, i, 40000+i, i))
	}
	c.add(io.EOF)
	if want := "3 x Get read tcp 10.78.1.2->198.51.100.1:80: silent for ; 1 x EOF"; c.String() != want {
		t.Errorf("got %q, want %q", c, want)
	}
	for i := range 10 {
		c.add(fmt.Errorf("%c", 'a'+i))
	}
	if !strings.HasSuffix(c.String(), "; and 8 others") {
		t.Error(c)
	}
}

func TestAFateIsWhatTheErrorPromises(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fate
	}{
		{nil, answered},
		{fmt.Errorf("%w: 404", errStrange), strange},
		{&dialer.DialError{Network: "tcp", Address: "a:1", Err: io.EOF}, safe},
		{io.EOF, unknown},
	} {
		if got := judge(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestEachFateIsHeldAgainstTheOriginsCount(t *testing.T) {
	type row struct {
		post
		count int
	}
	failed := func(f fate) post { return post{f, io.EOF} }
	for _, c := range []struct {
		name string
		row
		of func(verdict) int
	}{
		{"answered", row{post{fate: answered}, 1}, func(v verdict) int { return v.answered }},
		{"a phantom", row{post{fate: answered}, 0}, func(v verdict) int { return v.phantoms }},
		{"safe", row{failed(safe), 0}, func(v verdict) int { return v.safe }},
		{"a broken promise", row{failed(safe), 1}, func(v verdict) int { return v.broken }},
		{"ran", row{failed(unknown), 1}, func(v verdict) int { return v.ran }},
		{"lost", row{failed(unknown), 0}, func(v verdict) int { return v.lost }},
		{"strange", row{failed(strange), 1}, func(v verdict) int { return v.strange }},
		{"twice", row{failed(unknown), 2}, func(v verdict) int { return v.twice }},
		{"twice, though nobody knows what came of it", row{post{}, 2}, func(v verdict) int { return v.twice }},
	} {
		v := weigh([]post{c.post}, func(int) int { return c.count })
		if c.of(v) != 1 {
			t.Errorf("%s: %+v", c.name, v)
		}
		if bad := v.twice + v.phantoms + v.broken + v.strange; (bad > 0) != (c.of(v) == bad) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	if v := weigh([]post{{}}, func(int) int { return 1 }); v.sent != 0 {
		t.Errorf("what came of it nobody knows, and it counts: %+v", v)
	}
}

func TestEveryFaultComesWhileSomebodyAsksOrAllRest(t *testing.T) {
	var down bool
	var seen toll
	last := time.Duration(-1)
	for _, f := range faults() {
		seen[f.kind]++
		switch single := f.kind < killRST; {
		case f.at < last || f.at >= round:
			t.Errorf("%+v comes after %v", f, last)
		case single && (down || resting(f.at) > 0):
			t.Errorf("%+v strikes nobody", f)
		case f.kind == restart && !down, f.kind != restart && !single && down:
			t.Errorf("%+v while the origin is down: %t", f, down)
		}
		switch {
		case f.kind == restart:
			down = false
		case f.kind >= killRST:
			down = true
		}
		last = f.at
	}
	for k, n := range seen {
		if n == 0 {
			t.Errorf("fault %d never comes", k)
		}
	}
	if down {
		t.Error("the origin is down in the end")
	}
}

func TestARestIsLongerThanThePathRemembersAndShorterThanTheFirstProbe(t *testing.T) {
	if rest := resting(working); rest <= realIdle || rest >= 4*time.Second || resting(working-1) != 0 || resting(half) != 0 {
		t.Errorf("it lasts for %v", rest)
	}
	for _, f := range faults() {
		if f.at >= working && f.at < half {
			t.Errorf("%+v disturbs the first rest", f)
		}
	}
}

func TestWhatFailedIsLaterThanAll(t *testing.T) {
	l := lateness{failed: 1}
	for i := range 999 {
		l.late = append(l.late, time.Duration(i+1)*time.Millisecond)
	}
	for _, c := range []struct {
		q    float64
		want Reading
	}{
		{0.001, Reading{0.001, false}}, {0.999, Reading{0.999, false}}, {1, Reading{10, true}},
	} {
		if got := l.quantile(c.q); got != c.want {
			t.Errorf("%v: %v, want %v", c.q, got, c.want)
		}
	}
	if n := l.over(990 * time.Millisecond); n != 10 {
		t.Errorf("%d are later than 990 ms", n)
	}
	if got := (lateness{}).quantile(0.5); !got.More {
		t.Errorf("of nothing: %v", got)
	}
}
