package conformance

import (
	"context"
	"database/sql"
	"fmt"
	"net"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

var transactions = []scenario{
	{name: "isolation levels", run: isolation},
	{name: "a transaction that only reads", run: readOnly},
	{name: "commit, roll back, and once more", run: ends},
	{name: "an error within a transaction", run: failedTx},
	{name: "a transaction whose context ends while nothing runs", run: canceledTx, races: drivers.PQ},
	{name: "a transaction whose context ends during a query", run: canceledInTx},
	{name: "a transaction whose context had ended", run: lateTx},
	{name: "a transaction of a Conn whose context ends", run: canceledTxOfConn, not: drivers.PQ}, // as in lateTx
	{name: "BEGIN that nobody told database/sql", run: hiddenTx},
	{name: "two transactions at a time", run: twoTx},
}

// isolation tells levels by what a transaction sees of another's work, or whether it
// keeps it from working.
func isolation(s *subject) {
	s.table("id INT PRIMARY KEY, n INT", "1, 0")
	other := sql.OpenDB(open(s.T, s.driver, s.at, new(net.Dialer).DialContext))
	defer other.Close()
	update := "UPDATE things SET n = n + 1"
	if s.is(drivers.MySQL) {
		update = "SET STATEMENT innodb_lock_wait_timeout = 0 FOR " + update
	}
	for l := sql.LevelDefault; l <= sql.LevelLinearizable+1; l++ {
		tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{Isolation: l})
		if err != nil {
			s.see(fmt.Sprint(l), err)
			continue
		}
		s.see(fmt.Sprint(l), one(tx.QueryRow("SELECT n FROM things")))
		theirs, err := other.Begin()
		s.must(err)
		_, err = theirs.Exec(update)
		s.see(fmt.Sprint(l), "another's", err)
		s.see(fmt.Sprint(l), "before it commits", one(tx.QueryRow("SELECT n FROM things")))
		s.must(theirs.Commit())
		s.see(fmt.Sprint(l), "and after", one(tx.QueryRow("SELECT n FROM things")), tx.Rollback())
	}
	s.see("who", s.which(s.db))
}

func readOnly(s *subject) {
	s.table("id INT", "1")
	for _, l := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelSerializable} {
		tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true, Isolation: l})
		s.must(err)
		rows, err := tx.Query("SELECT id FROM things")
		s.rows("read", rows, err)
		_, err = tx.Exec("UPDATE things SET id = 2")
		s.see("write", err)
		s.see("end", tx.Commit())
	}
	_, err := s.db.Exec("UPDATE things SET id = 3")
	s.see("write afterwards", err)
	s.see("who", s.which(s.db))
}

func ends(s *subject) {
	s.table("id INT")
	for _, first := range []string{"commit", "roll back"} {
		tx, err := s.db.Begin()
		s.must(err)
		_, err = tx.Exec("INSERT INTO things VALUES (1)")
		s.see("insert", err)
		end := tx.Commit
		if first == "roll back" {
			end = tx.Rollback
		}
		s.see(first, end())
		s.see("commit afterwards", tx.Commit())
		s.see("roll back afterwards", tx.Rollback())
		_, err = tx.Exec("INSERT INTO things VALUES (2)")
		s.see("Exec afterwards", err)
		_, err = tx.Query("SELECT 1")
		s.see("Query afterwards", err)
		s.see("rows", one(s.db.QueryRow("SELECT id FROM things")))
	}
	s.see("who", s.which(s.db))
}

func failedTx(s *subject) {
	s.table("id INT PRIMARY KEY", "1")
	for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
		tx, err := s.db.Begin()
		s.must(err)
		_, err = tx.Exec("INSERT INTO things VALUES (1)")
		s.see("twice", err)
		_, err = tx.Exec("INSERT INTO things VALUES (2)")
		s.see("next", err)
		s.see("end", end(tx))
		s.see("rows", one(s.db.QueryRow("SELECT count(*) FROM things")))
	}
	s.see("who", s.which(s.db))
}

func canceledTx(s *subject) {
	s.table("id INT")
	s.see("before", s.which(s.db))
	for range 2 {
		ctx, cancel := context.WithCancel(s.Context())
		tx, err := s.db.BeginTx(ctx, nil)
		s.must(err)
		_, err = tx.Exec("INSERT INTO things VALUES (1)")
		s.see("insert", err)
		cancel()
		s.quiet()
		s.see("commit", tx.Commit())
		s.see("roll back", tx.Rollback())
		_, err = tx.Exec("INSERT INTO things VALUES (2)")
		s.see("Exec", err)
		s.see("connection afterwards", s.which(s.db))
		s.see("rows", one(s.db.QueryRow("SELECT count(*) FROM things")))
	}
}

func canceledInTx(s *subject) {
	s.see("before", s.which(s.db))
	ctx, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, nil)
	s.must(err)
	_, err = tx.ExecContext(ctx, s.sleep)
	s.see("query", err)
	s.quiet()
	s.see("end", tx.Commit(), tx.Rollback())
	s.see("connection afterwards", s.which(s.db))

	// And one where only the query is called off.
	short, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	tx, err = s.db.BeginTx(s.Context(), nil)
	s.must(err)
	_, err = tx.ExecContext(short, s.sleep)
	s.see("a query's own context", err)
	_, err = tx.Exec("SELECT 1")
	s.see("next", err)
	s.see("commit", tx.Commit())
	s.quiet()
	s.see("connection afterwards", s.which(s.db))
}

func lateTx(s *subject) {
	s.see("before", s.which(s.db))
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	_, err := s.db.BeginTx(ctx, nil)
	s.see("begin", err)
	if s.is(drivers.PQ) {
		return // it watches the context by itself, and it is chance who is first
	}
	c := s.conn()
	_, err = c.BeginTx(ctx, nil)
	s.see("of a Conn", err)
	s.see("the Conn", s.which(c), c.Close())
	s.see("connection afterwards", s.which(s.db))
}

func canceledTxOfConn(s *subject) {
	c := s.conn()
	s.see("before", s.which(c))
	ctx, cancel := context.WithCancel(s.Context())
	tx, err := c.BeginTx(ctx, nil)
	s.must(err)
	_, err = tx.Exec("SELECT 1")
	s.see("within", err)
	cancel()
	for tx.Rollback() != sql.ErrTxDone { // database/sql does it by itself
	}
	s.see("commit", tx.Commit())
	// Whoever rolls back has the Conn until that is done, and may close it then.
	s.see("next", c.PingContext(s.Context()))
	s.see("the Conn", s.which(c))
	s.see("closed", c.Close())
	s.see("connection afterwards", s.which(s.db))
}

func hiddenTx(s *subject) {
	s.table("id INT")
	_, err := s.db.Exec("BEGIN")
	s.see("begin", err)
	s.see("connection", s.which(s.db))
	c := s.conn()
	_, err = c.ExecContext(s.Context(), "BEGIN")
	s.see("begin of a Conn", err)
	_, err = c.ExecContext(s.Context(), "INSERT INTO things VALUES (1)")
	s.see("insert", err)
	s.see("closed", c.Close())
	s.see("connection", s.which(s.db))
	s.see("rows", one(s.db.QueryRow("SELECT count(*) FROM things")))
	_, err = s.db.Exec("ROLLBACK")
	s.see("end", err)
	s.see("rows", one(s.db.QueryRow("SELECT count(*) FROM things")))
}

func twoTx(s *subject) {
	a, err := s.db.Begin()
	s.must(err)
	b, err := s.db.Begin()
	s.must(err)
	s.see("two", s.which(a), s.which(b), s.which(s.db))
	s.see("end", a.Commit(), b.Rollback())
	c, err := s.db.Conn(s.Context())
	s.must(err)
	first, err := c.BeginTx(s.Context(), nil)
	s.must(err)
	second, err := c.BeginTx(s.Context(), nil)
	s.see("a second of a Conn", err)
	s.see("the first", first.Commit())
	defer func() { s.see("closed", c.Close()) }()
	if err == nil {
		defer func() { s.see("panic", recover()) }()
		s.see("the second", second.Commit())
	}
}
