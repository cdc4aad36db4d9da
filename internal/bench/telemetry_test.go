package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/natwise/natwise/internal/leak"
)

func TestWhatIsAskedOfTelemetryThatSomebodyListensTo(t *testing.T) {
	result := func(perSecond int) httpResult {
		return httpResult{series: slices.Repeat(series{{ops: perSecond, took: time.Second, mallocs: 10}}, 5)}
	}
	for _, c := range []struct {
		perSecond int
		bound     bool
		want      status
	}{
		{950, true, statusOK},
		{949, true, statusMissed},
		{500, false, statusOK}, // it is only shown
	} {
		r := new(toldReport)
		r.compareRates(toldSDK{name: "sdk", bound: c.bound}, result(c.perSecond), result(1000))
		if rate := r.figures[0]; rate.Status != c.want || rate.Ours != float64(c.perSecond) || rate.Peers != 1000 || r.kept() != (c.want == statusOK) {
			t.Errorf("%+v: %+v", c, rate)
		}
	}
	r := new(toldReport)
	r.compareRates(toldSDKs[0], result(1000), httpResult{err: errBroke})
	if r.kept() || len(r.figures) != 2 || r.figures[0].Why != "broken" || r.figures[1].Why != "broken" {
		t.Errorf("%+v", r.figures)
	}
}

func TestWhatAnAcquireTellsIsMeasuredBesideALoopWithoutIt(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for _, o := range toldCalls {
		r := new(toldReport)
		r.measureCalls(o, 5)
		ns, allocs := r.figures[0], r.figures[1]
		if ns.Why != "" || ns.Ours <= ns.Peers || ns.Peers <= 0 || ns.BoundIs != moreAtMost || ns.Bound != 10 {
			t.Errorf("%s: %+v", o.name, ns)
		}
		if allocs.Status != statusOK || allocs.Ours >= 0.1 {
			t.Errorf("%s: %+v", o.name, allocs)
		}
	}
	if stacks := leak.Beyond(goroutines); stacks != "" {
		t.Errorf("goroutines left behind:\n%s", stacks)
	}
}

func TestDialsAndCollectionsAreMeasured(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	r := new(toldReport)
	r.measureDials(5)
	r.measureCollection(3, 5)
	if len(r.figures) != 2 || !r.kept() {
		t.Fatalf("%+v", r.figures)
	}
	for _, f := range r.figures {
		if f.Ours <= 0 || f.BoundIs != "" {
			t.Errorf("%+v", f)
		}
	}
	if stacks := leak.Beyond(goroutines); stacks != "" {
		t.Errorf("goroutines left behind:\n%s", stacks)
	}
}

// roundTripper is a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestAsManyRequestsAreWithinASpanAsTheNameSays(t *testing.T) {
	for every, want := range map[int]int{0: 0, 100: 3, 1: 300} {
		followed := 0
		c := &toldClient{every: every, tracer: sdktrace.NewTracerProvider().Tracer("test")}
		c.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			if trace.SpanFromContext(req.Context()).IsRecording() {
				followed++
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader([]byte(answer)))}, nil
		})
		for range 300 {
			if err := c.get(context.Background(), "http://example.com/"); err != nil {
				t.Fatal(err)
			}
		}
		if followed != want {
			t.Errorf("with a span for one of %d, %d of 300 have one", every, followed)
		}
	}
}

func TestClientsThatAreSeenLeaveNothingBehind(t *testing.T) {
	o := openTestOrigin(t)
	goroutines := runtime.NumGoroutine()
	l := httpLoad{Protocol: plain, Concurrency: 4}
	for _, s := range append(toldSDKs, toldNone) {
		if found := l.play([]httpEntry{s.entry()}, 1, o); found[0].err != nil || found[0].series[0].ops == 0 {
			t.Errorf("%s: %+v", s.name, found[0])
		}
	}
	if stacks := leak.Beyond(goroutines); stacks != "" {
		t.Errorf("goroutines left behind:\n%s", stacks)
	}
}

func TestALineOfTheBenchTelemetry(t *testing.T) {
	s := httpResult{series: slices.Repeat(series{{ops: 10, took: time.Second, mallocs: 20}}, 5)}
	r := new(toldReport)
	r.compareRates(toldSDKs[0], s, s)
	var out bytes.Buffer
	if err := show(r, true, &out); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	for _, want := range []map[string]any{
		{"figure": "per_second", "ours_value": 10.0, "peer_value": 10.0, "bound": 0.95, "bound_is": "ratio_low at least"},
		{"figure": "allocs", "ours_value": 2.0, "peer_value": 2.0},
	} {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		for key, v := range map[string]any{
			"bench": "telemetry", "operation": "HTTP/1.1, 64 at a time", "sdk": "metrics", "peer": "none",
			"ratio_is": "ours/peer", "ratio": 1.0, "pairs": 5.0, "status": "ok",
		} {
			want[key] = v
		}
		for key, v := range want {
			if line[key] != v {
				t.Errorf("%s is %v, want %v", key, line[key], v)
			}
		}
	}
	if d.Decode(new(any)) != io.EOF {
		t.Error("there are more lines")
	}
}
