package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goleak "github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/terminal"
)

// TestMain is a process of the fleet where a test starts one, and otherwise fails if a
// goroutine outlives the tests.
func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{asProcess}) {
		os.Exit(beProcess())
	}
	os.Exit(goleak.Check(m.Run))
}

// small is a fleet that wants more than there is, on a NAT that is twice as fast, and may be
// late where others use the processors.
func small() plan {
	return plan{processes: 3, ports: 24, scale: 120, late: time.Second, lasts: 12 * time.Second, service: 20 * time.Millisecond}
}

func TestProcessesThatShareABudgetStayWithinTheGateway(t *testing.T) {
	t.Parallel()
	r := played(t, options{plan: small(), with: true, json: true})
	if r.Status != "ok" || r.RefusedSYNs != 0 || r.PeakPorts > 24 || r.FlowsOpened == 0 || r.LeastServed == 0 {
		t.Errorf("got %+v", r)
	}
	if r.KilledHeld == 0 || r.Kept == 0 || r.Kept > 24 || r.KeptFor == 0 {
		t.Errorf("of the %d ports of the killed process %d were kept, for %v s", r.KilledHeld, r.Kept, r.KeptFor)
	}
}

func TestProcessesThatCountForThemselvesDoNot(t *testing.T) {
	t.Parallel()
	p := small()
	p.lasts /= 2
	r := played(t, options{plan: p, without: true, json: true})
	if r.Status != "ok" || r.RefusedSYNs == 0 || r.PeakPorts != 24 || r.Served == 0 || r.Kept != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestAnInterruptEndsItAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	frames := 0
	_, err := small().run(ctx, "", func(*fleet) {
		if frames++; frames == 2 {
			cancel()
		}
	})
	if err == nil || err.Error() != "interrupted" || frames != 2 {
		t.Errorf("error %v after %d frames", err, frames)
	}
}

func TestAProcessThatEndsBeforeItsTimeSaysWhy(t *testing.T) {
	none := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(none, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := small().run(t.Context(), none, func(*fleet) {})
	if err == nil || !strings.Contains(err.Error(), "before its time") || !strings.Contains(err.Error(), "budget: ") {
		t.Errorf("error %v", err)
	}
}

func TestAnOrderThatMakesNoSenseIsAnError(t *testing.T) {
	if err := work(strings.NewReader("work!"), io.Discard); err == nil || !strings.HasPrefix(err.Error(), "reading the order: ") {
		t.Errorf("error %v", err)
	}
}

func TestABadFlagIsNamedWithItsValue(t *testing.T) {
	for args, want := range map[string]string{
		"-n 1":               "-n 1: must be within 2 and 32",
		"-n 33":              "-n 33: must be within 2 and 32",
		"-n many":            `invalid value "many" for flag -n: parse error`,
		"-ports 15":          "-ports 15: must be within 16, two for each process, and 256",
		"-ports 257":         "-ports 257: must be within 16, two for each process, and 256",
		"-n 20 -ports 39":    "-ports 39: must be within 40",
		"-for 11s":           "-for 11s: must be within 12s, for the ports of a killed process to come back, and 10m0s",
		"-for 11m":           "-for 11m0s: must be within 12s",
		"-prots 7":           "flag provided but not defined: -prots",
		"-with -json 10":     `unexpected argument "10": there are only flags`,
		"-json " + asProcess: "unexpected argument",
	} {
		status, out, errs := runFor(t.Context(), strings.Fields(args)...)
		if status != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, output %q, error %q, want %q", args, status, out, errs, want)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	status, out, errs := runFor(t.Context(), "-help")
	if status != 0 || out != "" || !strings.Contains(errs, "-ports") || !strings.Contains(errs, "-without") {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
}

func TestWithoutAChoiceBothRunsAreMade(t *testing.T) {
	for args, want := range map[string][2]bool{"": {true, true}, "-with": {false, true}, "-without": {true, false}, "-with -without": {true, true}} {
		o, err := parse(strings.Fields(args), io.Discard)
		if err != nil || o.without != want[0] || o.with != want[1] {
			t.Errorf("%q: without %v, with %v, error %v", args, o.without, o.with, err)
		}
	}
}

func TestWhatARunDidNotShowIsNamed(t *testing.T) {
	shared := result{Scenario: with, Ports: 128, PeakPorts: 128, FlowsOpened: 200, LeastServed: 1, KilledHeld: 16, Kept: 16, KeptFor: 4.5}
	if missed := shared.missed(); missed != nil {
		t.Errorf("a run that was as it should be missed %q", missed)
	}
	for want, change := range map[string]func(*result){
		"flows_opened 0":  func(r *result) { r.FlowsOpened = 0 },
		"refused_syn 2":   func(r *result) { r.RefusedSYNs = 2 },
		"peak_ports 129":  func(r *result) { r.PeakPorts = 129 },
		"least_served 0":  func(r *result) { r.LeastServed = 0 },
		"kept 0":          func(r *result) { r.Kept, r.KeptFor = 0, 0 },
		"kept_seconds 0":  func(r *result) { r.KeptFor = 0 },
		`degraded "full"`: func(r *result) { r.Degraded = "full" },
	} {
		r := shared
		change(&r)
		if missed := r.missed(); len(missed) != 1 || !strings.HasPrefix(missed[0], want) {
			t.Errorf("missed %q, want %s", missed, want)
		}
	}
	alone := result{Scenario: without, Ports: 128, PeakPorts: 128, FlowsOpened: 200, RefusedSYNs: 400}
	if missed := alone.missed(); missed != nil {
		t.Errorf("who counts for himself missed %q", missed)
	}
}

func TestTheP99IsTheSmallestThat99Of100DoNotExceed(t *testing.T) {
	var waits []time.Duration
	for i := range 200 {
		waits = append(waits, time.Duration(200-i))
	}
	if got := p99(waits); got != 198 {
		t.Errorf("p99 of 200 is %d", got)
	}
	if got := p99(waits[:1]); got != 200 {
		t.Errorf("p99 of one is %d", got)
	}
	if got := p99(nil); got != 0 {
		t.Errorf("p99 of nothing is %d", got)
	}
}

func runFor(ctx context.Context, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(ctx, args, &o, &e, terminal.Terminal{})
	return status, o.String(), e.String()
}

// played is the one object that is printed.
func played(t *testing.T, o options) (r result) {
	t.Helper()
	var out bytes.Buffer
	if _, err := o.run(t.Context(), &out, terminal.Terminal{}); err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(&out)
	lines.DisallowUnknownFields()
	if err := lines.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if err := lines.Decode(new(any)); err != io.EOF {
		t.Fatalf("more than one object: %v", err)
	}
	if r.Status == "skipped" {
		t.Skip(r.Reason)
	}
	return r
}
