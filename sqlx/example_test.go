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

// A bank is a database whose first transaction meets a deadlock.
type bank struct {
	silent
	deadlocks int
}

func (b *bank) Connect(context.Context) (driver.Conn, error) { return &bankConn{of: b}, nil }

type bankConn struct {
	silentConn
	of *bank
}

func (c *bankConn) Begin() (driver.Tx, error) { return c, nil }
func (c *bankConn) Rollback() error           { return nil }
func (c *bankConn) Commit() error             { return nil }

func (c *bankConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	if c.of.deadlocks++; c.of.deadlocks == 1 {
		return nil, toyError("40P01") // PostgreSQL's SQLSTATE of a deadlock
	}
	return driver.ResultNoRows, nil
}

func ExampleRetry() {
	db := sqlx.OpenDB(new(bank), sqlx.Config{Unbooked: true}) // only because there is no network
	defer db.Close()

	tries := 0
	err := sqlx.Retry(context.Background(), db, nil, func(ctx context.Context, tx *sql.Tx) error {
		tries++
		if _, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance - 5 WHERE id = 1"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance + 5 WHERE id = 2")
		return err
	})
	fmt.Println("transferred at try", tries, "with error", err)
	// Output: transferred at try 2 with error <nil>
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

// The driver's own connection, for what database/sql does not know: COPY, notifications.
func ExampleRaw() {
	db := sqlx.OpenDB(connector, sqlx.Config{Unbooked: true})
	defer db.Close()
	conn, err := db.Conn(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	err = sqlx.Raw(conn, func(driverConn any) error {
		fmt.Printf("%T\n", driverConn) // with pgx: *stdlib.Conn
		return nil
	})
	fmt.Println(err)
	// Output:
	// sqlx_test.silentConn
	// <nil>
}

// A Connector is what OpenDB makes. Who wants its statistics, or events, keeps it.
func ExampleNewConnector() {
	c := sqlx.NewConnector(connector, sqlx.Config{
		Unbooked: true,
		Max:      4,
	})
	db := c.OpenDB()
	defer db.Close()
	db.Exec("SELECT 1")
	db.Exec("SELECT 2") // on the same
	fmt.Println(c.Stats().Opened, "connection was opened")
	// Output: 1 connection was opened
}

// What the driver dials for database/sql is told from what it dials by itself, such as
// cancel requests, by a mark in the context.
func ExampleMarked() {
	db := sql.OpenDB(sqlx.Marked(connector))
	defer db.Close()
	_, err := db.Exec("SELECT 1")
	fmt.Println(err)
	// Output: <nil>
}
