// Package adapter opens the DBs of a driver's tests over natwise. It is copied into the
// driver's module, and knows no driver: a file beside the tests tells it.
package adapter

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"

	"github.com/natwise/natwise/sqlx"
)

var (
	// Connector returns the driver's Connector for what sql.Open was called with, which
	// dials by sqlx.DefaultDialer. Nil, or false: what database/sql would use is to be
	// used.
	Connector func(name, dsn string) (driver.Connector, bool)

	// Dial has a Connector of the driver's dial by sqlx.DefaultDialer, if it does not dial
	// by something of its test's. Nil: it cannot.
	Dial func(driver.Connector)
)

// config is that of all DBs. What a test dials by itself is unbooked. Close waits for
// nobody, as that of database/sql does.
var config = sqlx.Config{Unbooked: true, Drain: -1}

// broken has no connection come to be. A test that does not mind says nothing of natwise.
var broken = flag.Bool("natwise.broken", false, "let no connection come to be")

// open is OpenDB for a Connector that dials as it is to dial.
func open(c driver.Connector) *sql.DB {
	if *broken {
		c = none{c}
	}
	return sqlx.OpenDB(c, config)
}

type none struct{ driver.Connector }

func (none) Connect(context.Context) (driver.Conn, error) { return nil, errors.New("broken") }

// Open is sql.Open over natwise.
func Open(name, dsn string) (*sql.DB, error) {
	own, err := sql.Open(name, dsn)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if Connector != nil {
		if c, ok := Connector(name, dsn); ok {
			return open(c), nil
		}
	}
	if d, ok := own.Driver().(driver.DriverContext); ok {
		c, err := d.OpenConnector(dsn)
		if err != nil {
			return nil, err
		}
		return open(c), nil
	}
	return open(named{own.Driver(), dsn}), nil
}

// OpenDB is sql.OpenDB over natwise.
func OpenDB(c driver.Connector) *sql.DB {
	if Dial != nil {
		Dial(c)
	}
	return open(c)
}

// Raw is sql.Conn.Raw.
func Raw(c *sql.Conn, f func(any) error) error { return sqlx.Raw(c, f) }

// A named is the Connector of a driver that has none.
type named struct {
	driver driver.Driver
	dsn    string
}

func (n named) Connect(context.Context) (driver.Conn, error) { return n.driver.Open(n.dsn) }
func (n named) Driver() driver.Driver                        { return n.driver }
