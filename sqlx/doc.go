// Package sqlx lets database/sql survive NATs, failovers and its own drivers. It has
// nothing to do with github.com/jmoiron/sqlx, which makes scanning easier, and goes well
// with it; whoever needs both may import this one as natsql.
//
//	cfg, err := pgx.ParseConfig(dsn)
//	...
//	cfg.DialFunc = sqlx.DefaultDialer.DialContext
//	db := sqlx.OpenDB(stdlib.GetConnector(*cfg), sqlx.Config{})
//	defer db.Close()
//
// What the *sql.DB does is what it does without: the driver's own optional interfaces
// decide. But its connections come from natwise's pool. Who has waited longest is served
// first; an idle connection is used before another is dialed; each is booked as a port,
// which the ledger may ask back; idle ones are watched, and asked by the driver's Ping
// so often that the path does not forget them.
//
// A statement is run once. Drivers return driver.ErrBadConn, which has database/sql run
// it again on another connection, although it was sent (after an EOF lib/pq 1.12 does, and
// pgx from 5.9 to 5.12). Here that counts only if not a byte was written since the
// operation began, or it does no harm twice; otherwise the error is a *LostError, which
// says that it may have run.
//
// Three doors lead in, each further than the one before:
//
//   - A Dialer under any driver: its connections are booked, kept known to the path, and
//     known to be dead before a byte is written, which all drivers take for safe to try
//     again.
//   - Tune, for database/sql's own pool.
//   - OpenDB.
//
// What differs from a driver alone: the limits of a DB's own pool are to be left alone;
// errors of lost connections are wrapped; what a driver calls bad after it was sent is not
// run again, not even for go-sql-driver/mysql's rejectReadOnly, whose servers do refuse;
// and a prepared statement outlives its Close on the connection (Config.Statements).
//
// Retry runs a transaction again that is known not to have happened.
//
// sqlx parses no SQL, and repeats nothing that may have run unless it is told that it may
// (Idempotent, Policy.Idempotent).
//
//doctest:compiled in examples/databases with: dsn string
package sqlx
