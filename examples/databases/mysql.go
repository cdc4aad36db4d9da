package main

import (
	"database/sql/driver"

	"github.com/go-sql-driver/mysql"

	"github.com/natwise/natwise/sqlx"
)

// mysqlConnector has go-sql-driver/mysql dial by d, which is given host names as the DSN
// has them. The driver opens nothing by itself: when a context ends it closes the
// connection, and what the server was doing goes on there.
func mysqlConnector(dsn string, d *sqlx.Dialer) (driver.Connector, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = d.DialContext
	return mysql.NewConnector(cfg)
}
