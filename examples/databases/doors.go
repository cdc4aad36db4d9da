package main

import (
	"database/sql"
	"database/sql/driver"

	"github.com/natwise/natwise/sqlx"
)

// doors are the ways into package sqlx, for any driver whose Connector dials by d. Each
// goes further than the one before.
var doors = map[string]func(c driver.Connector, d *sqlx.Dialer) *sql.DB{
	"plain": plain, "tuned": tuned, "open": open,
}

// plain leaves everything to database/sql and to the driver. The connections are booked
// and kept known to the path; but two idle ones are all that database/sql keeps by
// itself, and which of the dials are the driver's own nobody knows.
func plain(c driver.Connector, _ *sqlx.Dialer) *sql.DB {
	return sql.OpenDB(c)
}

// tuned leaves database/sql its pool, sets the limits that fit the path, and marks the
// connections that were asked for.
func tuned(c driver.Connector, d *sqlx.Dialer) *sql.DB {
	db := sql.OpenDB(sqlx.Marked(c))
	sqlx.Tune(db, d.Dialer.Path())
	return db
}

// open has natwise's pool: in turn, with heartbeats, and no statement run twice.
func open(c driver.Connector, d *sqlx.Dialer) *sql.DB {
	return sqlx.OpenDB(c, sqlx.Config{Dialer: d})
}
