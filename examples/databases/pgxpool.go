package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

// pgxPool returns pgx's own pool, which dials by d, and is as large as the path allows.
// What is said of pgxConnector holds here too.
//
// pgxpool gives no context of ours to a dial, but for a tracer's: that is where a
// connection which was asked for is marked, so that a cancel request is known as none.
func pgxPool(ctx context.Context, dsn string, d *sqlx.Dialer) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.DialFunc = d.DialContext
	cfg.ConnConfig.Tracer = marking(cfg.ConnConfig.Tracer)
	if most := d.Dialer.MaxConns(); most != netpath.None {
		cfg.MaxConns = int32(most) // 4, or one a CPU, by itself
	}
	cfg.MaxConnLifetimeJitter = cfg.MaxConnLifetime / 4 // or those of one minute all go within one
	if idle := d.Dialer.MaxIdle(); idle > 0 {
		cfg.MaxConnIdleTime = min(cfg.MaxConnIdleTime, idle)
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// marking returns a tracer that marks connects, beside the one that is there, if any.
func marking(tracer pgx.QueryTracer) pgx.QueryTracer {
	both := new(multitracer.Tracer)
	if tracer != nil {
		both = multitracer.New(tracer)
	}
	both.ConnectTracers = append(both.ConnectTracers, marks{})
	return both
}

// marks is a pgx.ConnectTracer.
type marks struct{}

func (marks) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return sqlx.Mark(ctx)
}

func (marks) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) {}
