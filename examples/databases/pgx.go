package main

import (
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/natwise/natwise/sqlx"
)

// pgxConnector has pgx dial by d. By itself it looks names up and tries their addresses
// in turn, so that d sees an address at a time: with sslmode=prefer, which is the
// default, twice if the server has no TLS.
//
// A connection that breaks, or whose context ends, is one more dial: pgx asks the server
// to cancel what may still run.
func pgxConnector(dsn string, d *sqlx.Dialer) (driver.Connector, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = d.DialContext
	return stdlib.GetConnector(*cfg), nil
}
