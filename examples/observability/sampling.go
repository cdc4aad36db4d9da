package main

import (
	"strings"

	"go.opentelemetry.io/otel/sdk/trace"
)

// setups samples how connections came to be, and has a Sampler for all else.
type setups struct{ trace.Sampler }

func (s setups) ShouldSample(p trace.SamplingParameters) trace.SamplingResult {
	if strings.Contains(p.Name, "connection_setup ") {
		return trace.AlwaysSample().ShouldSample(p)
	}
	return s.Sampler.ShouldSample(p)
}
