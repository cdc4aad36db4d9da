package telemetry_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/natwise/natwise/internal/telemetry"
)

// A provider has one meter, which keeps the callback that it is given.
type provider struct {
	noop.MeterProvider
	*meter
}

func (p provider) Meter(string, ...metric.MeterOption) metric.Meter { return p.meter }

type meter struct {
	noop.Meter
	collect metric.Callback
	atOnce  func() // what is done as soon as there is one
}

func (m *meter) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	m.collect = f
	if m.atOnce != nil {
		m.atOnce()
	}
	return noop.Registration{}, nil
}

// An observer does something whenever it is told something.
type observer struct {
	noop.Observer
	do func()
}

func (o observer) ObserveInt64(metric.Int64Observable, int64, ...metric.ObserveOption)       { o.do() }
func (o observer) ObserveFloat64(metric.Float64Observable, float64, ...metric.ObserveOption) { o.do() }

func TestWhoDialsDoesNotWaitForACollection(t *testing.T) {
	m := new(meter)
	s := telemetry.New(telemetry.Config{MeterProvider: provider{meter: m}, Snapshot: func() telemetry.Snapshot {
		return telemetry.Snapshot{
			Accounts: []telemetry.Account{{Peer: peerAt(1), Limit: 4, Active: 1}},
			Waiting:  map[string]int{name: 1},
			Engines:  []telemetry.Engine{{Name: "host"}},
		}
	}})
	for i := range 10 {
		s.Closed(s.Opened(context.Background(), name, peerAt(i), 0), "closed", 1)
	}
	s.Name(name).Beaten(nil)
	pools := []telemetry.Pool{{Kind: "http", Address: name}, {Kind: "sql", Address: name, DB: new(telemetry.DB)}}
	telemetry.Join(s, &pools, func(pools *[]telemetry.Pool) ([]telemetry.Pool, bool) { return *pools, true })
	told := 0
	err := m.collect(context.Background(), observer{do: func() {
		if told++; s.Held() {
			t.Fatal("whoever dials waits until all is told")
		}
	}})
	if err != nil || told < 80 {
		t.Errorf("%d were told (error %v)", told, err)
	}
	s.Name(pools[0].Address) // both are there until the end
}

func TestACollectionMayComeBeforeTheFirstDial(t *testing.T) {
	m, told := new(meter), 0
	m.atOnce = func() {
		defer func() {
			if v := recover(); v != nil { // in a goroutine of the reader's nobody would
				t.Error(v)
			}
		}()
		m.collect(context.Background(), observer{do: func() { told++ }})
	}
	telemetry.New(telemetry.Config{MeterProvider: provider{meter: m}, Snapshot: func() telemetry.Snapshot { return telemetry.Snapshot{} }})
	if told == 0 {
		t.Error("nothing was told")
	}
}
