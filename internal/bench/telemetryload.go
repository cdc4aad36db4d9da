package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A toldCall is what telemetry does in one acquire.
type toldCall struct {
	name string
	// begin returns what does it n times.
	begin func(ctx context.Context, c *dialer.Conn, l *dialer.Ledger) func(n int)
}

// An acquire of httpx and of pool/conns tells the connection, and through it whoever follows
// the request; one of sqlx has a time to record besides.
var toldCalls = []toldCall{
	{"acquire of httpx, of conns", func(ctx context.Context, c *dialer.Conn, _ *dialer.Ledger) func(int) {
		return func(n int) {
			for range n {
				c.Serve(ctx, time.Time{})
			}
		}
	}},
	{"acquire of sqlx", func(ctx context.Context, c *dialer.Conn, l *dialer.Ledger) func(int) {
		db := l.Telemetry().Database("orders")
		return func(n int) {
			for range n {
				c.Serve(ctx, time.Time{})
				db.Used(context.Background(), time.Millisecond)
			}
		}
	}},
}

const (
	callsInTurn  = 200_000 // some milliseconds
	dialsInTurn  = 20
	allocsSample = 1000
)

// turns measures the nanoseconds of a call, and of a round of the loop without it, and the
// allocations of a call. The context is such as a request has.
func (o toldCall) turns(pairs int) (calls, loops []float64, allocs float64, err error) {
	h, err := newHost(&dialer.Ledger{})
	if err != nil {
		return nil, nil, 0, err
	}
	defer h.close()
	c, err := h.dial()
	if err != nil {
		return nil, nil, 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	both := [2]func(int){o.begin(ctx, c, h.dialer.Ledger), func(n int) {
		for range n {
			runtime.KeepAlive(c)
		}
	}}
	var found [2][]float64
	for pair := range pairs {
		for turn := range both {
			i := (pair + turn) % 2
			found[i] = append(found[i], nanosOf(both[i], callsInTurn))
		}
	}
	return found[0], found[1], allocsOf(both[0], allocsSample), nil
}

// nanosOf returns how long each of n takes.
func nanosOf(do func(n int), n int) float64 {
	begin := time.Now()
	do(n)
	return float64(time.Since(begin)) / float64(n)
}

// allocsOf returns the allocations of each of n. Somebody else's in this process count too:
// they are few.
func allocsOf(do func(n int), n int) float64 {
	do(1) // whatever is made once
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do(n)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

// A host accepts connections on loopback, and has a dialer whose path counts them.
type host struct {
	net.Listener
	dialer *dialer.Dialer
}

// newHost has a ledger with a path of its own, which holds no port.
func newHost(l *dialer.Ledger) (*host, error) {
	l.Path = netpath.AzureAppService()
	l.Path.Exempt = netpath.NoExempt() // or loopback would be
	l.Path.Hold = netpath.Hold{FIN: netpath.None, RST: netpath.None, SYN: netpath.None, Idle: netpath.None}
	l.Ramp = -1
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &host{ln, &dialer.Dialer{Ledger: l}}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	return h, nil
}

func (h *host) close() { h.Listener.Close() }

func (h *host) dial() (*dialer.Conn, error) {
	c, err := h.dialer.DialContext(context.Background(), "tcp", h.Addr().String())
	if err != nil {
		return nil, err
	}
	return c.(*dialer.Conn), nil
}

// dialTurns measures the microseconds of a dial that the SDK is told of, and of one that
// nobody is.
func dialTurns(pairs int) (on, off []float64, err error) {
	p := newProviders(true)
	defer p.shutdown()
	var found [2][]float64
	var hosts [2]*host
	for i, l := range []*dialer.Ledger{{MeterProvider: p.metrics, TracerProvider: p.traces}, {}} {
		if hosts[i], err = newHost(l); err != nil {
			return nil, nil, err
		}
		defer hosts[i].close()
	}
	for pair := range pairs + 1 {
		for turn := range hosts {
			i := (pair + turn) % 2
			us := nanosOf(func(n int) { err = errors.Join(err, hosts[i].dials(n)) }, dialsInTurn) / 1000
			if pair > 0 { // the first makes what is made once
				found[i] = append(found[i], us)
			}
		}
	}
	return found[0], found[1], err
}

// dials connects and closes, n times.
func (h *host) dials(n int) error {
	for range n {
		c, err := h.dial()
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// collections measures the microseconds of each, of a ledger with connections to so many
// destinations.
func collections(destinations, times int) (each []float64, err error) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	defer provider.Shutdown(context.Background())
	var network memnet.Network
	const at = "20.0.0.1:443"
	ln, err := network.Listen(at)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	d := &dialer.Dialer{
		Ledger: &dialer.Ledger{Path: netpath.AzureAppService(), Ramp: -1, MeterProvider: provider},
		Dial: func(ctx context.Context, network_, _ string) (net.Conn, error) {
			return network.DialContext(ctx, network_, at)
		},
	}
	for i := range destinations {
		c, err := d.DialContext(context.Background(), "tcp", fmt.Sprintf("20.1.%d.%d:443", i/200, i%200+1))
		if err != nil {
			return nil, err
		}
		defer c.Close()
	}
	for range times {
		var all metricdata.ResourceMetrics
		us := nanosOf(func(int) { err = reader.Collect(context.Background(), &all) }, 1) / 1000
		if err != nil {
			return nil, err
		}
		each = append(each, us)
	}
	return each[1:], nil // the first makes what is made once
}

// providers are those of the SDK, with exporters that throw away what they get.
type providers struct {
	metrics *sdkmetric.MeterProvider
	traces  *sdktrace.TracerProvider // nil: there are no traces
}

func newProviders(traces bool) *providers {
	p := &providers{metrics: sdkmetric.NewMeterProvider(sdkmetric.WithReader(
		sdkmetric.NewPeriodicReader(noMetrics{}, sdkmetric.WithInterval(time.Second))))}
	if traces {
		p.traces = sdktrace.NewTracerProvider(sdktrace.WithBatcher(noSpans{}))
	}
	return p
}

func (p *providers) shutdown() error {
	err := p.metrics.Shutdown(context.Background())
	if p.traces != nil {
		err = errors.Join(err, p.traces.Shutdown(context.Background()))
	}
	return err
}

type noMetrics struct{}

func (noMetrics) Temporality(k sdkmetric.InstrumentKind) metricdata.Temporality {
	return sdkmetric.DefaultTemporalitySelector(k)
}
func (noMetrics) Aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(k)
}
func (noMetrics) Export(context.Context, *metricdata.ResourceMetrics) error { return nil }
func (noMetrics) ForceFlush(context.Context) error                          { return nil }
func (noMetrics) Shutdown(context.Context) error                            { return nil }

type noSpans struct{}

func (noSpans) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (noSpans) Shutdown(context.Context) error                             { return nil }

// A toldSDK is who listens to the requests of toldLoad.
type toldSDK struct {
	name    string
	metrics bool
	sampled int  // of that many requests, one is within a span that is recorded; zero: none
	bound   bool // on requests a second
}

var (
	toldNone = toldSDK{name: noSDK}
	toldSDKs = []toldSDK{
		{"metrics", true, 0, true},
		{"metrics, and traces of 1 % of the requests", true, 100, true},
		{"metrics, and traces of all requests", true, 1, false},
	}
	toldLoad = httpLoad{Protocol: plain, Concurrency: 64}
)

// entry makes a client of natwise's transport that is seen so.
func (s toldSDK) entry() httpEntry {
	return httpEntry{s.name, true, func(trust *tls.Config) httpClient {
		path := netpath.AzureLoadBalancer(2 * tunedConns)
		path.Exempt = netpath.NoExempt()
		l := &dialer.Ledger{Path: path, Ramp: -1}
		c := &toldClient{every: s.sampled, providers: new(providers)}
		if s.metrics {
			c.providers = newProviders(s.sampled > 0)
			l.MeterProvider = metric.MeterProvider(c.metrics)
			if c.traces != nil {
				l.TracerProvider = c.traces
				c.tracer = c.traces.Tracer("bench")
			}
		}
		t := &httpx.Transport{Dialer: &dialer.Dialer{Ledger: l}, TLS: trust}
		c.stdClient = stdClient{http.Client{Transport: t}, t.Close}
		return c
	}}
}

// A toldClient begins a span for some of its requests, as whoever instruments a program does.
// What such a span costs is part of what is measured.
type toldClient struct {
	stdClient
	*providers
	tracer trace.Tracer
	every  int
	sent   atomic.Int64
}

func (c *toldClient) get(ctx context.Context, url string) error {
	if c.every > 0 && c.sent.Add(1)%int64(c.every) == 0 {
		var span trace.Span
		ctx, span = c.tracer.Start(ctx, "GET")
		defer span.End()
	}
	return c.stdClient.get(ctx, url)
}

func (c *toldClient) close(ctx context.Context) error {
	err := c.stdClient.close(ctx)
	if c.metrics != nil {
		err = errors.Join(err, c.shutdown())
	}
	return err
}
