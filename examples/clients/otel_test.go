package clients_test

import (
	"context"
	"net/http"
	"testing"

	"cloud.google.com/go/auth/credentials"
	"go.opentelemetry.io/contrib/instrumentation/net/http/httptrace/otelhttptrace"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/api/oauth2/v2"
	"google.golang.org/api/option"

	"github.com/natwise/natwise/examples/clients"
)

// recorded returns a context whose requests leave their spans with the recorder.
func recorded(t *testing.T) (context.Context, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	tracer := trace.NewTracerProvider(trace.WithSpanProcessor(spans)).Tracer("clients_test")
	ctx, parent := tracer.Start(t.Context(), t.Name())
	t.Cleanup(func() { parent.End() })
	return ctx, spans
}

func TestASpanSaysWhichConnectionItsRequestHad(t *testing.T) {
	ctx, spans := recorded(t)
	o := newOrigin(t)
	var remotes []string
	o.answers(func(_ http.ResponseWriter, r *http.Request) { remotes = append(remotes, r.RemoteAddr) })
	post := otelPost(t, o, newTransport(t, behindNAT(4)))
	for range 2 {
		if err := post(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ended := spans.Ended()
	if len(ended) != 2 {
		t.Fatalf("%d spans for two requests", len(ended))
	}
	for i, span := range ended {
		got := connectionOf(span)
		local, reused := got[otelhttptrace.HTTPLocalAddr].AsString(), got[otelhttptrace.HTTPConnectionReused].AsBool()
		if local != remotes[i] || reused != (i == 1) {
			t.Errorf("request %d came from %s; its span says %q, used before: %t", i, remotes[i], local, reused)
		}
	}
}

// connectionOf returns what span says of its connection.
func connectionOf(span trace.ReadOnlySpan) map[attribute.Key]attribute.Value {
	got := make(map[attribute.Key]attribute.Value)
	for _, event := range span.Events() {
		if event.Name == "http.getconn.done" {
			for _, a := range event.Attributes {
				got[a.Key] = a.Value
			}
		}
	}
	return got
}

func TestARequestOfATracedGoogleClientHasOneSpan(t *testing.T) {
	ctx, spans := recorded(t)
	o := newOrigin(t)
	fakeAccounts(t, o.URL)
	traced := clients.Traced(newTransport(t, behindNAT(4)))
	with, err := clients.Google(traced, credentials.DetectOptions{Scopes: []string{oauth2.OpenIDScope}})
	if err != nil {
		t.Fatal(err)
	}
	service, err := oauth2.NewService(ctx, with, option.WithEndpoint(o.URL))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.Tokeninfo().Context(ctx).Do(); err != nil {
		t.Fatal(err)
	}
	if n := len(spans.Ended()); n != 2 { // and one for its token
		t.Errorf("%d spans, want 2", n)
	}
}
