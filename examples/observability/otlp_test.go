package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
)

// A collector is an OTLP receiver that keeps the names of what it is sent.
type collector struct {
	*httptest.Server
	mu             sync.Mutex // guards the fields below
	metrics, spans map[string]bool
	services       map[string]bool // whose they are
	linked         int             // request spans with a link to the set-up of their connection
}

func newCollector(t *testing.T) *collector {
	c := &collector{metrics: make(map[string]bool), spans: make(map[string]bool), services: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, r *http.Request) {
		var sent metrics.ExportMetricsServiceRequest
		if c.decode(t, w, r, &sent) {
			c.keepMetrics(&sent)
		}
	})
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		var sent traces.ExportTraceServiceRequest
		if c.decode(t, w, r, &sent) {
			c.keepSpans(&sent)
		}
	})
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) decode(t *testing.T, w http.ResponseWriter, r *http.Request, into proto.Message) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false // cut off at the end, which sends all again
	}
	if err := proto.Unmarshal(body, into); err != nil {
		t.Errorf("%s: %v", r.URL, err)
		http.Error(w, "no", http.StatusBadRequest)
		return false
	}
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty message is an answer
	return true
}

func (c *collector) keepMetrics(sent *metrics.ExportMetricsServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, by := range sent.ResourceMetrics {
		c.keepServiceLocked(by.Resource)
		for _, scope := range by.ScopeMetrics {
			for _, m := range scope.Metrics {
				c.metrics[m.Name] = true
			}
		}
	}
}

func (c *collector) keepSpans(sent *traces.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, by := range sent.ResourceSpans {
		c.keepServiceLocked(by.Resource)
		for _, scope := range by.ScopeSpans {
			for _, s := range scope.Spans {
				host, _, _ := strings.Cut(s.Name, ":") // the port is another each time
				c.spans[host] = true
				if s.Name == "HTTP GET" && len(s.Links) > 0 {
					c.linked++
				}
			}
		}
	}
}

func (c *collector) keepServiceLocked(of *resource.Resource) {
	for _, a := range of.GetAttributes() {
		if a.Key == "service.name" {
			c.services[a.Value.GetStringValue()] = true
		}
	}
}

func TestWhatIsSentByOTLPArrivesBeforeItEnds(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "50") // ms; in the end the connections are closed
	mustRun(t, "-json", "-only", "api", "-for", "300ms", "-otlp", c.URL)
	for _, name := range []string{
		"natwise.snat.port.limit", "natwise.snat.port.usage", "natwise.snat.port.utilization", "natwise.snat.port.acquisitions",
		"natwise.connection.dial.duration", "http.client.open_connections", "http.client.request.duration",
	} {
		if !c.metrics[name] {
			t.Errorf("no %s among %v", name, c.metrics)
		}
	}
	for _, name := range []string{"HTTP GET", "HTTP connection_setup api.demo", "HTTP wait_for_connection api.demo"} {
		if !c.spans[name] {
			t.Errorf("no %q among %v", name, c.spans)
		}
	}
	if len(c.services) != 1 || !c.services["observability"] {
		t.Errorf("they are of %v", c.services)
	}
	if c.linked == 0 {
		t.Error("no request leads to the set-up of its connection")
	}
}
