package sqlx_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

// connector stands for your driver's: stdlib.GetConnector, pq.NewConnector,
// mysql.NewConnector, mssql.NewConnectorConfig. Those are told to dial by
// sqlx.DefaultDialer; examples/databases shows each.
var connector driver.Connector = silent{}

func ExampleOpenDB() {
	dialer.DefaultLedger.Path = netpath.AzureAppService() // once, before the first dial

	db := sqlx.OpenDB(connector, sqlx.Config{
		Max:      50,
		Unbooked: true, // only because there is no network in this example
	})
	defer db.Close()

	_, err := db.Exec("INSERT INTO orders VALUES (1)")
	var lost *sqlx.LostError
	switch {
	case errors.As(err, &lost) && lost.Sent:
		fmt.Println("the order may have been taken: ask before you try again")
	case err != nil:
		fmt.Println("it was not taken:", err)
	default:
		fmt.Println("it was taken")
	}
	// Output: it was taken
}

func ExampleRetry() {
	transfer := func(ctx context.Context, db *sql.DB) error {
		return sqlx.Retry(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance - 5 WHERE id = 1"); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance + 5 WHERE id = 2")
			return err
		})
	}
	_ = transfer
}

// A service that keeps database/sql's own pool.
func ExampleTune() {
	path := netpath.AzureAppService()
	db := sql.OpenDB(sqlx.Marked(connector))
	defer db.Close()
	sqlx.Tune(db, path)
	fmt.Println(db.Stats().MaxOpenConnections, "connections at most")
	// Output: 127 connections at most
}

func ExampleConnector_Stats() {
	c := sqlx.NewConnector(connector, sqlx.Config{Unbooked: true})
	db := c.OpenDB()
	defer db.Close()
	db.Exec("SELECT 1")
	s := c.Stats()
	fmt.Println(s.Idle, "idle,", s.InUse, "in use,", s.Waiting, "waiting")
	// Output: 1 idle, 0 in use, 0 waiting
}
