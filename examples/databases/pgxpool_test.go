package main

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/natwise/natwise/dialer"
)

func TestThePoolsCancelRequestIsKnownAsASideConnection(t *testing.T) {
	dsn := dsns["pgxpool"](t)
	for side, opened := range map[int]uint64{1: 2, -1: 1} {
		d := behindNAT()
		d.Side = side
		p, err := pgxPool(t.Context(), dsn, d)
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := c.Conn().PgConn()
		flow, ok := dialer.Unwrap(begun.Conn())
		if !ok {
			t.Fatalf("the connection is a %T", begun.Conn())
		}
		written := flow.BytesWritten()
		ctx, cancel := context.WithCancel(t.Context())
		sleeping := make(chan error)
		go func() {
			_, err := c.Exec(ctx, "SELECT pg_sleep(1)")
			sleeping <- err
		}()
		until(t, "it sleeps", func() bool { return flow.BytesWritten() > written })
		cancel()
		if err := <-sleeping; err == nil {
			t.Error("the context ended, and nothing else")
		}
		c.Release()
		<-begun.CleanupDone()
		p.Close()
		if a := account(t, d); a.Opened != opened {
			t.Errorf("with Side %d, %d connections, want %d: %v", side, a.Opened, opened, a)
		}
	}
}

// A witness is somebody else's tracer.
type witness struct{ queries, connects int }

func (w *witness) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	w.queries++
	return ctx
}
func (w *witness) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (w *witness) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	w.connects++
	return ctx
}
func (w *witness) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) {}

func TestMarkingLeavesAnotherTracerItsWork(t *testing.T) {
	w := new(witness)
	cfg, err := pgx.ParseConfig(dsns["pgx"](t))
	if err != nil {
		t.Fatal(err)
	}
	d := behindNAT()
	d.Side = -1
	cfg.DialFunc, cfg.Tracer = d.DialContext, marking(w)
	ask := func() {
		t.Helper()
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.WithoutCancel(t.Context()))
		if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	ask() // by then an unmarked one would be refused
	if w.queries != 2 || w.connects != 2 {
		t.Errorf("the other tracer was told of %d queries and %d connects", w.queries, w.connects)
	}
}

var _ pgx.ConnectTracer = marks{}
