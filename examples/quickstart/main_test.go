package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
)

func TestWithJSONOneObjectAndNothingElseIsPrinted(t *testing.T) {
	v := mustRun(t, "-json", "-requests", "45", "-concurrency", "10", "-service", "1ms")
	if v.Scenario != "exhaustion" || v.Path != "azure-app-service" || v.Limit != 128 || v.TimeScale != 60 || v.Status != "ok" || v.Bound != "" {
		t.Errorf("got %+v", v)
	}
	var names []string
	for _, r := range v.Clients {
		names = append(names, r.Name)
		if r.Requests != 45 || r.OK != 45 || r.Failed != 0 || r.RefusedSYN != 0 {
			t.Errorf("got %+v", r)
		}
		if r.P50 < 1 || r.P99 < r.P50 || r.Seconds <= 0 || r.PeakPorts < 1 || r.FlowsOpened < r.PeakPorts {
			t.Errorf("that cannot be measured: %+v", r)
		}
	}
	if got := strings.Join(names, " "); got != "client-per-request http.DefaultTransport natwise" {
		t.Errorf("the clients are %s", got)
	}
	if leak, ours := v.Clients[0], v.Clients[2]; leak.FlowsOpened != 45 || ours.FlowsOpened > 10 {
		t.Errorf("a client per request opened %d flows for 45 requests, natwise %d, 10 at a time", leak.FlowsOpened, ours.FlowsOpened)
	}
}

func TestNatwiseDoesWhatExhaustsTheOthers(t *testing.T) {
	v := mustRun(t, "-json", "-requests", "300", "-concurrency", "150", "-service", "10ms")
	leak, standard, ours := v.Clients[0], v.Clients[1], v.Clients[2]
	if leak.Failed == 0 || leak.RefusedSYN == 0 || leak.PeakPorts != 128 {
		t.Errorf("a client per request was not exhausted: %+v", leak)
	}
	if standard.RefusedSYN == 0 || standard.PeakPorts != 128 {
		t.Errorf("http.DefaultTransport was not exhausted: %+v", standard)
	}
	if ours.Failed != 0 || ours.RefusedSYN != 0 || ours.PeakPorts > 128 || ours.OK != 300 {
		t.Errorf("natwise: %+v", ours)
	}
}

func TestTheFieldsOfTheJSON(t *testing.T) {
	text, err := json.Marshal(verdict{Scenario: "exhaustion", Status: "ok", Clients: []result{{Name: natwise}}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"scenario":"exhaustion","path":"","limit":0,"time_scale":0,"status":"ok","clients":[` +
		`{"name":"natwise","requests":0,"ok":0,"failed":0,"flows_opened":0,"peak_ports":0,"refused_syn":0,"p50_ms":0,"p99_ms":0,"seconds":0}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestAClientThatGoesPastItsNATIsMissed(t *testing.T) {
	past := contender{name: "past", open: func(dialFunc) (func(*http.Request) (*http.Response, error), func()) {
		client := http.Client{Transport: new(http.Transport)}
		return client.Do, client.CloseIdleConnections
	}}
	v := raced(t, past)
	if v.Status != "missed" || v.Bound != "past: flows_opened 0, want more: it went past its NAT" {
		t.Errorf("%s: %s", v.Status, v.Bound)
	}
}

func TestALostRequestOfNatwiseIsMissed(t *testing.T) {
	broken := contender{name: natwise, open: func(dial dialFunc) (func(*http.Request) (*http.Response, error), func()) {
		send, closeIdle := defaultTransport(dial)
		return func(r *http.Request) (*http.Response, error) {
			r.URL.Path = "/" // an answer first, or there would be no flow
			resp, err := send(r)
			if err == nil {
				resp.Body.Close()
			}
			return resp, err
		}, closeIdle
	}}
	v := raced(t, broken)
	if v.Status != "missed" || !strings.HasPrefix(v.Bound, "natwise: failed 3, want 0 (the first: http: read on closed response body)") {
		t.Errorf("%s: %s", v.Status, v.Bound)
	}
	if said := happened(v); !strings.Contains(said, v.Bound) {
		t.Errorf("the screen says %q", said)
	}
}

func TestABadFlagIsNamedWithItsValue(t *testing.T) {
	for args, want := range map[string]string{
		"-requests 0":     "-requests 0: must be within 1 and 20000",
		"-requests 20001": "-requests 20001: must be within 1 and 20000",
		"-requests many":  `invalid value "many" for flag -requests: parse error`,
		"-concurrency -1": "-concurrency -1: must be within 1 and 1000",
		"-service -1s":    "-service -1s: must not be negative",
		"-service 2h":     "-service 2h0m0s: too long to end within 30 s",
		"-service 5s":     "would take 1m0s at best, too long to end within 30 s; at most -service 833ms, or fewer -requests",
		// Two rounds a wave, as there are 127 ports to spend.
		"-concurrency 128 -requests 1344 -service 500ms": "1344 requests, 128 at a time through 128 ports, would take 11s at best",
		"-servcie 1s": "flag provided but not defined: -servcie",
		"-json 10":    `unexpected argument "10": there are only flags`,
	} {
		status, out, errs := runFor(t.Context(), strings.Fields(args)...)
		if status != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, output %q, error %q, want %q", args, status, out, errs, want)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	status, out, errs := runFor(t.Context(), "-help")
	if status != 0 || out != "" || !strings.Contains(errs, "-concurrency") {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
}

func TestWhatTheFlagsMayAskForEndsInTime(t *testing.T) {
	for _, w := range []work{
		{requests: 1, concurrency: 1000, service: 10 * time.Second},
		{requests: 20000, concurrency: 1000, service: 60 * time.Millisecond},
		{requests: 1200, concurrency: 100, service: 833 * time.Millisecond},
	} {
		if err := w.check(128); err != nil {
			t.Error(err)
		}
		if best := time.Duration(w.waves()) * w.ideal(); best > patience/2 || w.timeout() <= w.ideal() {
			t.Errorf("%+v: %v at best, %v a request", w, best, w.timeout())
		}
	}
}

func TestAnInterruptEndsItAtOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	status, out, errs := runFor(ctx, "-json")
	if status != 1 || out != "" || errs != "quickstart: interrupted\n" {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestPercentileIsTheSmallestThatSoManyDoNotExceed(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		sorted  []time.Duration
		p, want int
	}{
		{nil, 99, 0}, {hundred[:1], 50, 1}, {hundred[:2], 50, 1}, {hundred[:3], 50, 2}, {hundred[:3], 99, 3},
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1},
	} {
		if got := percentile(c.sorted, c.p); got != time.Duration(c.want) {
			t.Errorf("percentile(%v, %d) = %d, want %d", c.sorted, c.p, got, c.want)
		}
	}
}

// raced lets c alone send three requests.
func raced(t *testing.T, c contender) verdict {
	t.Helper()
	w := work{requests: 3, concurrency: 1}
	path := thePath()
	if err := w.check(128); err != nil {
		t.Fatal(err)
	}
	lanes, err := race(t.Context(), w, path, []contender{c}, func([]*lane) {})
	if err != nil {
		t.Fatal(err)
	}
	return newVerdict(path, lanes)
}

func runFor(ctx context.Context, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(ctx, args, &o, &e, false)
	return status, o.String(), e.String()
}

// mustRun decodes what -json printed, strictly.
func mustRun(t *testing.T, args ...string) (v verdict) {
	t.Helper()
	status, out, errs := runFor(t.Context(), args...)
	if status != 0 || errs != "" {
		t.Fatalf("status %d: %s%s", status, errs, out)
	}
	lines := json.NewDecoder(strings.NewReader(out))
	lines.DisallowUnknownFields()
	if err := lines.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := lines.Decode(new(any)); err != io.EOF {
		t.Fatalf("more than one object: %v: %s", err, out)
	}
	return v
}

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }
