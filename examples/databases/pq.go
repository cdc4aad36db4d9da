package main

import (
	"database/sql/driver"

	"github.com/lib/pq"

	"github.com/natwise/natwise/sqlx"
)

// pqConnector has lib/pq dial by d, which is given host names as the DSN has them. When
// a context ends during a query lib/pq dials once more, to cancel it. With sslmode=prefer
// it opens two connections to a server without TLS, and leaves the first open: sqlx.OpenDB
// closes that, and otherwise the garbage collector does.
func pqConnector(dsn string, d *sqlx.Dialer) (driver.Connector, error) {
	c, err := pq.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	c.Dialer(d)
	return c, nil
}
