package clients

import (
	"context"
	"net/http"
	"net/http/httptrace"

	"go.opentelemetry.io/contrib/instrumentation/net/http/httptrace/otelhttptrace"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// Traced returns a RoundTripper that records a span for each request, with the local
// address of its connection, and whether that was used before. Wrap rt once and give
// the result to all other clients: a second layer would record each request twice.
// Whoever made rt closes it: the result has no CloseIdleConnections.
//
// It retries nothing. What rt sends again is in the same span.
func Traced(rt http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(rt, otelhttp.WithClientTrace(func(ctx context.Context) *httptrace.ClientTrace {
		return otelhttptrace.NewClientTrace(ctx, otelhttptrace.WithoutSubSpans())
	}))
}
