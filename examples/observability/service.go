package main

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/sqlx"
)

// A service is what a program has that asks others: an HTTP client and a database, on
// connections of one Dialer.
type service struct {
	dialer    *dialer.Dialer
	transport *httpx.Transport
	http      *http.Client
	db        *sql.DB
	pages     http.Handler
}

// newService makes a service that can be watched. Yours has the zero Dialer, whose ledger
// is dialer.DefaultLedger, and says in main what it stands behind:
//
//	dialer.DefaultLedger.Path = netpath.AzureAppService()
func newService(d *dialer.Dialer, p *providers, dsn string) *service {
	// This is all that it takes. With otel.SetMeterProvider and otel.SetTracerProvider it
	// takes nothing.
	d.Ledger.MeterProvider, d.Ledger.TracerProvider = p.metrics, p.traces

	// The request's span is otelhttp's, so otelhttp is outside; what the request waited for is
	// told by the spans below.
	transport := &httpx.Transport{Dialer: d, MaxWait: patience, Proxy: httpx.NoProxy}
	client := &http.Client{Transport: otelhttp.NewTransport(transport,
		otelhttp.WithMeterProvider(p.metrics), otelhttp.WithTracerProvider(p.traces))}

	// Few connections that do not live for long, so that there is something to see.
	sqlDialer := &sqlx.Dialer{Dialer: d}
	db := sqlx.OpenDB(toyDB{dsn, sqlDialer.DialContext}, sqlx.Config{
		Dialer: sqlDialer, MaxWait: patience, Max: 2, MaxLife: 10 * time.Second, Heartbeat: time.Second,
	})

	// Mount these where operators come and nobody else. The live page answers this machine
	// only, unless its Allow says otherwise.
	pages := http.NewServeMux()
	pages.Handle("/metrics", p.scrape)
	pages.Handle("/debug/natwise/", &debug.Page{Ledger: d.Ledger})

	return &service{dialer: d, transport: transport, http: client, db: db, pages: pages}
}

// close ends the connections: what is left open holds its port until the NAT forgets it.
func (s *service) close(ctx context.Context) error {
	return errors.Join(s.transport.Close(ctx), s.db.Close())
}
