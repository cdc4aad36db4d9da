package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// providers are where measurements go. natwise knows only the OpenTelemetry API; which
// exporters there are is decided here and nowhere else.
type providers struct {
	metrics *metric.MeterProvider
	traces  *trace.TracerProvider
	scrape  http.Handler // for Prometheus
}

// newProviders has the metrics of the service name scraped by Prometheus and, if otlp is a URL, metrics
// and traces sent there. Whoever calls it calls shutdown.
func newProviders(ctx context.Context, name, otlp string) (*providers, error) {
	// A registry of our own: nothing registers itself anywhere else.
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	// Whose measurements they are. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES know better.
	who, err := resource.New(ctx, resource.WithAttributes(semconv.ServiceName(name)), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	metrics := []metric.Option{metric.WithReader(exporter), metric.WithResource(who)}
	// Here each request is followed. For one in a hundred put TraceIDRatioBased(0.01).
	traces := []trace.TracerProviderOption{trace.WithResource(who), trace.WithSampler(setups{trace.ParentBased(trace.AlwaysSample())})}
	if otlp != "" {
		pushed, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(otlp+"/v1/metrics"))
		if err != nil {
			return nil, fmt.Errorf("otlp: %w", err)
		}
		spans, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(otlp+"/v1/traces"))
		if err != nil {
			return nil, fmt.Errorf("otlp: %w", err)
		}
		metrics = append(metrics, metric.WithReader(metric.NewPeriodicReader(pushed)))
		traces = append(traces, trace.WithBatcher(spans))
	}
	return &providers{
		metrics: metric.NewMeterProvider(metrics...),
		traces:  trace.NewTracerProvider(traces...),
		// OpenMetrics carries exemplars: the trace of one request in each bucket.
		scrape: promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}),
	}, nil
}

// shutdown sends what has not been sent yet. It must be called, or the end of a short run
// is never seen.
func (p *providers) shutdown(ctx context.Context) error {
	return errors.Join(p.metrics.Shutdown(ctx), p.traces.Shutdown(ctx))
}
