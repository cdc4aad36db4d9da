package withsdk_test

import (
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
)

// A notary is a MeterProvider that hands on, and notes of what kind instruments are: the SDK
// does not tell in the end which of them were observed. What natwise has no instruments of
// is not noted, so that the first one fails the test.
type notary struct {
	metric.MeterProvider

	registered atomic.Int32 // callbacks

	mu   sync.Mutex // guards made
	made map[string]instrument
}

type instrument struct{ kind, unit, what string }

func (n *notary) Meter(name string, options ...metric.MeterOption) metric.Meter {
	return &notedMeter{n.MeterProvider.Meter(name, options...), n}
}

func (n *notary) note(name string, i instrument) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.made == nil {
		n.made = make(map[string]instrument)
	}
	n.made[name] = i
}

type notedMeter struct {
	metric.Meter
	by *notary
}

func (m *notedMeter) RegisterCallback(f metric.Callback, instruments ...metric.Observable) (metric.Registration, error) {
	r, err := m.Meter.RegisterCallback(f, instruments...)
	m.by.registered.Add(1)
	return &noted{r, m.by}, err
}

// A noted registration is that of a callback.
type noted struct {
	metric.Registration
	by *notary
}

func (r *noted) Unregister() error {
	r.by.registered.Add(-1)
	return r.Registration.Unregister()
}

func (m *notedMeter) Int64ObservableUpDownCounter(name string, options ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	cfg := metric.NewInt64ObservableUpDownCounterConfig(options...)
	m.by.note(name, instrument{"observable UpDownCounter", cfg.Unit(), cfg.Description()})
	return m.Meter.Int64ObservableUpDownCounter(name, options...)
}

func (m *notedMeter) Int64ObservableCounter(name string, options ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	cfg := metric.NewInt64ObservableCounterConfig(options...)
	m.by.note(name, instrument{"observable Counter", cfg.Unit(), cfg.Description()})
	return m.Meter.Int64ObservableCounter(name, options...)
}

func (m *notedMeter) Float64ObservableGauge(name string, options ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	cfg := metric.NewFloat64ObservableGaugeConfig(options...)
	m.by.note(name, instrument{"observable Gauge", cfg.Unit(), cfg.Description()})
	return m.Meter.Float64ObservableGauge(name, options...)
}

func (m *notedMeter) Float64Histogram(name string, options ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	cfg := metric.NewFloat64HistogramConfig(options...)
	m.by.note(name, instrument{"Histogram", cfg.Unit(), cfg.Description()})
	return m.Meter.Float64Histogram(name, options...)
}
