package sqlx

//lint:file-ignore SA1019 older drivers have nothing else

import (
	"context"
	"database/sql/driver"
	"errors"
)

// What database/sql asks of drivers that know no contexts.
type (
	execer          = driver.Execer
	queryer         = driver.Queryer
	columnConverter = driver.ColumnConverter
)

func begin(c driver.Conn) (driver.Tx, error) { return c.Begin() }

func exec(s driver.Stmt, args []driver.Value) (driver.Result, error) { return s.Exec(args) }

func query(s driver.Stmt, args []driver.Value) (driver.Rows, error) { return s.Query(args) }

// plain returns arguments for a driver that knows neither names nor contexts.
func plain(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		if a.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = a.Value
	}
	return values, ctx.Err()
}

// named returns arguments for a driver that knows both.
func named(args []driver.Value) []driver.NamedValue {
	values := make([]driver.NamedValue, len(args))
	for i, v := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return values
}
