package withsdk_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/natwise/natwise/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// A lens is an SDK that looks at natwise. It is shut down with its test.
type lens struct {
	*testing.T
	reader  *sdkmetric.ManualReader
	meters  *sdkmetric.MeterProvider
	spans   *tracetest.SpanRecorder
	tracers *sdktrace.TracerProvider
	through metric.MeterProvider // what ledgers have; nil: meters
}

// provider is what a ledger has its meters from.
func (l *lens) provider() metric.MeterProvider {
	if l.through != nil {
		return l.through
	}
	return l.meters
}

var encoder = attribute.DefaultEncoder()

// newLens has counters as they are; deltaLens, what was added since the last look.
func newLens(t *testing.T, others ...sdkmetric.Reader) *lens {
	return lensOf(t, sdkmetric.NewManualReader(), others...)
}

func deltaLens(t *testing.T) *lens {
	return lensOf(t, sdkmetric.NewManualReader(sdkmetric.WithTemporalitySelector(func(kind sdkmetric.InstrumentKind) metricdata.Temporality {
		switch kind {
		case sdkmetric.InstrumentKindUpDownCounter, sdkmetric.InstrumentKindObservableUpDownCounter:
			return metricdata.CumulativeTemporality // as OTLP's exporters have it
		}
		return metricdata.DeltaTemporality
	})))
}

func lensOf(t *testing.T, reader *sdkmetric.ManualReader, others ...sdkmetric.Reader) *lens {
	l := &lens{T: t, reader: reader, spans: tracetest.NewSpanRecorder()}
	options := []sdkmetric.Option{sdkmetric.WithReader(reader)}
	for _, r := range others {
		options = append(options, sdkmetric.WithReader(r))
	}
	l.meters = sdkmetric.NewMeterProvider(options...)
	l.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(l.spans), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	t.Cleanup(func() {
		l.meters.Shutdown(context.Background())
		l.tracers.Shutdown(context.Background())
	})
	return l
}

// ask begins a span of the caller's own, as an instrumented program has.
func (l *lens) ask(ctx context.Context, name string) (context.Context, trace.Span) {
	return l.tracers.Tracer("the caller").Start(ctx, name)
}

// A reading is what one collection has brought.
type reading struct {
	t      *testing.T
	scopes []metricdata.ScopeMetrics
}

func (l *lens) read() reading {
	l.Helper()
	var all metricdata.ResourceMetrics
	if err := l.reader.Collect(context.Background(), &all); err != nil {
		l.Fatal(err)
	}
	return reading{l.T, all.ScopeMetrics}
}

// A point is a value with its attributes. For a histogram it is how many there were.
type point struct {
	scope, attrs attribute.Set
	value        float64
	sum          float64 // of a histogram
}

// has reports whether the point has such attributes: "key=value".
func (p point) has(attrs ...string) bool {
	for _, want := range attrs {
		key, value, _ := strings.Cut(want, "=")
		v, ok := p.attrs.Value(attribute.Key(key))
		if !ok {
			v, ok = p.scope.Value(attribute.Key(key))
		}
		if !ok || v.String() != value {
			return false
		}
	}
	return true
}

func (p point) String() string {
	return fmt.Sprintf("{%s} %v", p.attrs.Encoded(encoder), p.value)
}

// points returns those of a metric that have such attributes.
func (r reading) points(name string, attrs ...string) (found []point) {
	r.t.Helper()
	for _, s := range r.scopes {
		for _, m := range s.Metrics {
			if m.Name != name {
				continue
			}
			for _, p := range pointsOf(r.t, m) {
				if p.scope = s.Scope.Attributes; p.has(attrs...) {
					found = append(found, p)
				}
			}
		}
	}
	return found
}

func pointsOf(t *testing.T, m metricdata.Metrics) (ps []point) {
	t.Helper()
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			ps = append(ps, point{attrs: p.Attributes, value: float64(p.Value)})
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			ps = append(ps, point{attrs: p.Attributes, value: p.Value})
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			ps = append(ps, point{attrs: p.Attributes, value: float64(p.Count), sum: p.Sum})
		}
	default:
		t.Fatalf("%s is a %T", m.Name, data)
	}
	return ps
}

// sum adds up the values of a metric at such attributes. There is one point at least.
func (r reading) sum(name string, attrs ...string) (sum float64) {
	r.t.Helper()
	found := r.points(name, attrs...)
	if len(found) == 0 {
		r.t.Errorf("%s has no point with %v, but %v", name, attrs, r.points(name))
	}
	for _, p := range found {
		sum += p.value
	}
	return sum
}

// want fails the test unless a metric's values add up to that.
func (r reading) want(value float64, name string, attrs ...string) {
	r.t.Helper()
	if got := r.sum(name, attrs...); got != value {
		r.t.Errorf("%s with %v is %v, want %v: %v", name, attrs, got, value, r.points(name))
	}
}

// absent fails the test if a metric has a point with such attributes.
func (r reading) absent(name string, attrs ...string) {
	r.t.Helper()
	if found := r.points(name, attrs...); len(found) > 0 {
		r.t.Errorf("%s has %v", name, found)
	}
}

// sane fails the test if anything is negative.
func (r reading) sane() {
	r.t.Helper()
	for _, s := range r.scopes {
		for _, m := range s.Metrics {
			for _, p := range pointsOf(r.t, m) {
				if p.value < 0 {
					r.t.Errorf("%s is negative: %v", m.Name, p)
				}
			}
		}
	}
}

// byKey is a span's or point's attributes.
func byKey(attrs []attribute.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, a := range attrs {
		m[string(a.Key)] = a.Value.String()
	}
	return m
}

func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
