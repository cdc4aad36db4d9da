package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
)

// Of twenty requests on one connection the last ten are followed. It was set up for the first.
func TestWhereFewRequestsAreFollowedEachOfThoseLeadsToTheSetupOfItsConnection(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	spans := tracetest.NewSpanRecorder()
	traces := trace.NewTracerProvider(trace.WithSpanProcessor(spans), trace.WithSampler(setups{trace.ParentBased(trace.NeverSample())}))
	defer traces.Shutdown(context.Background())
	transport := &httpx.Transport{Dialer: &dialer.Dialer{Ledger: &dialer.Ledger{TracerProvider: traces}}, Proxy: httpx.NoProxy}
	defer transport.Close(context.Background())
	client := &http.Client{Transport: otelhttp.NewTransport(transport, otelhttp.WithTracerProvider(traces))}
	send := func(ctx context.Context) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	followed := propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	for range 10 {
		send(t.Context())
	}
	for range 10 {
		send(followed)
	}
	drawn := make(map[string]string)
	for _, s := range spans.Ended() {
		name, _, _ := strings.Cut(s.Name(), " 127.")
		drawn[s.SpanContext().SpanID().String()] = name
	}
	count := make(map[string]int)
	for _, name := range drawn {
		count[name]++
	}
	if count["HTTP GET"] != 10 || count["HTTP connection_setup"] != 1 || count["socket connect"] != 1 {
		t.Errorf("drawn were %v", count)
	}
	for _, s := range spans.Ended() {
		if s.Name() != "HTTP GET" {
			continue
		}
		if len(s.Links()) != 1 || drawn[s.Links()[0].SpanContext.SpanID().String()] != "HTTP connection_setup" {
			t.Errorf("a request leads to %v", s.Links())
		}
	}
}

func TestTheREADMEShowsTheSamplerAsItIs(t *testing.T) {
	_, declared, _ := strings.Cut(read(t, "sampling.go"), ")\n\n")
	if !strings.Contains(read(t, "README.md"), "```go\n"+declared+"```\n") {
		t.Errorf("README.md does not show\n%s", declared)
	}
}
