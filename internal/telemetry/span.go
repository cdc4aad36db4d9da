package telemetry

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Wait draws the span of a wait for a connection that is just over, below the caller's, if
// anybody follows that: protocol is "HTTP" or "", and address host:port, or "DB" and the name
// of a pool. Ahead is how many had waited for longer; negative: nobody knows.
func (s *Scope) Wait(ctx context.Context, protocol, address string, ahead int, took time.Duration, err error) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	began := time.Now().Add(-took)
	attrs := named(protocol, address)
	if ahead >= 0 {
		attrs = append(attrs, attribute.Int("natwise.wait.position", ahead+1))
	}
	_, span := s.tracer.Start(ctx, spanName(protocol, "wait_for_connection", address), trace.WithTimestamp(began), trace.WithAttributes(attrs...))
	fail(span, err)
	span.End()
}

func spanName(protocol, what, address string) string {
	if protocol == "" {
		return what + " " + address
	}
	return protocol + " " + what + " " + address
}

// named are the attributes of what a span is called after.
func named(protocol, address string) []attribute.KeyValue {
	if protocol == "DB" {
		return []attribute.KeyValue{semconv.DBClientConnectionPoolName(address)}
	}
	return server(address)
}

func server(address string) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return []attribute.KeyValue{semconv.ServerAddress(address)}
	}
	n, _ := strconv.Atoi(port)
	return []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(n)}
}

func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	kind := ErrorType(err) // and not its text, which may be anybody's and hold anything
	span.SetStatus(codes.Error, kind)
	span.SetAttributes(semconv.ErrorTypeKey.String(kind))
}

// Used tells the span in ctx of the connection that serves it: its port, which is what the
// NAT's log has, whether it had others before, for how long it was idle; and links it to
// where the connection came from. A zero since: it was not idle.
func Used(ctx context.Context, c *Setup, reused bool, since time.Time) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Bool("natwise.connection.reused", reused))
	if !since.IsZero() {
		span.SetAttributes(attribute.Float64("natwise.connection.idle", time.Since(since).Seconds()))
	}
	span.SetAttributes(c.ends()...)
	if from := c.Context(); from.IsValid() {
		span.AddLink(trace.Link{SpanContext: from})
	}
}

// Replayed tells the span in ctx that what was sent has to be sent again, and why.
func Replayed(ctx context.Context, why error) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("natwise.replayed", trace.WithAttributes(semconv.ErrorTypeKey.String(ErrorType(why))))
	}
}

// A Setup is how a connection comes to be. Its spans are drawn when that is over, since
// nobody knows before whether there will be a connection, or only a permission that is
// given up. All its methods may be called on nil, and do nothing then.
type Setup struct {
	scope    *Scope
	protocol string
	link     trace.SpanContext // whoever had waited longest when it began
	began    time.Time
	span     atomic.Pointer[trace.SpanContext]

	mu      sync.Mutex // guards the fields below
	address string     // "": nobody knows yet
	phases  []phase
	verdict string // what it means that it fails, if anybody has said so
	peer    netip.AddrPort
	both    []attribute.KeyValue // of the two ends, as far as they are known; never changed
}

type phase struct {
	name       string
	began, end time.Time
	err        error
}

// Setup begins a connection to address, for the one who asks with ctx.
func (s *Scope) Setup(ctx context.Context, protocol, address string) *Setup {
	return &Setup{scope: s, protocol: protocol, address: address, link: trace.SpanContextFromContext(ctx), began: time.Now()}
}

type setupKey struct{}

// With returns ctx with u in it, for whoever does a part of it.
func (u *Setup) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, setupKey{}, u)
}

// SetupOf returns what ctx has a part of, or nil.
func SetupOf(ctx context.Context) *Setup {
	u, _ := ctx.Value(setupKey{}).(*Setup)
	return u
}

// Phase notes a part that is over: "DNS lookup", "socket connect", "TLS client handshake",
// and of what; "": of the host.
func (u *Setup) Phase(name, of string, began time.Time, err error) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if of == "" { // so says crypto/tls of a handshake that failed early
		of, _, _ = net.SplitHostPort(u.address)
	}
	u.phases = append(u.phases, phase{name + " " + of, began, time.Now(), err})
}

// Named notes what the connection is for, where nobody knew when it began.
func (u *Setup) Named(address string) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.address = cmp.Or(u.address, address)
}

// Judged notes what it means that a dial has failed: "hairpin". Of several, the first counts that
// is known.
func (u *Setup) Judged(verdict string) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.verdict == "" || u.verdict == unknown {
		u.verdict = verdict
	}
}

const unknown = "unknown" // as a verdict

// Connected notes the two ends.
func (u *Setup) Connected(local, peer netip.AddrPort) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.peer, u.both = peer, nil
	if local.IsValid() {
		u.both = append(u.both, semconv.NetworkLocalPort(int(local.Port())))
	}
	if peer.IsValid() {
		u.both = append(u.both, semconv.NetworkPeerAddress(peer.Addr().String()), semconv.NetworkPeerPort(int(peer.Port())), semconv.NetworkTransportTCP)
	}
}

// End draws the spans: a root, linked to the span of whoever wanted it, and one below it for
// each phase.
func (u *Setup) End(err error) {
	if u == nil {
		return
	}
	address := u.name()
	attrs := append(named(u.protocol, address), u.ends()...)
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithTimestamp(u.began), trace.WithAttributes(attrs...)}
	if u.link.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: u.link}))
	}
	ctx, span := u.scope.tracer.Start(context.Background(), spanName(u.protocol, "connection_setup", address), options...)
	defer span.End()
	at := span.SpanContext()
	u.span.Store(&at)
	u.mu.Lock()
	phases, verdict := u.phases, u.verdict
	u.phases = nil // the connection keeps the rest
	u.mu.Unlock()
	if !span.IsRecording() {
		return
	}
	if engines := u.scope.engineNames(); engines != "" {
		span.SetAttributes(engineKey.String(engines))
	}
	fail(span, err)
	if err != nil && verdict != "" {
		span.SetAttributes(attribute.String("natwise.verdict", verdict))
	}
	for _, p := range phases {
		_, part := u.scope.tracer.Start(ctx, p.name, trace.WithTimestamp(p.began))
		fail(part, p.err)
		part.End(trace.WithTimestamp(p.end))
	}
}

// Context is that of the root span, once it is drawn. The zero one is not valid.
func (u *Setup) Context() trace.SpanContext {
	if u != nil {
		if at := u.span.Load(); at != nil {
			return *at
		}
	}
	return trace.SpanContext{}
}

// name is what the connection was for. A database's driver says only by dialing where its
// server is.
func (u *Setup) name() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.address != "":
		return u.address
	case u.peer.IsValid():
		return u.peer.String()
	}
	return other
}

// ends are attributes of the two ends, as far as they are known.
func (u *Setup) ends() []attribute.KeyValue {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.both
}
