package conformance

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

var statements = []scenario{
	{name: "a statement of a DB", run: dbStatement},
	{name: "a statement of a Tx", run: txStatement},
	{name: "a statement of a Conn", run: connStatement},
	{name: "one query prepared twice at a time", run: preparedTwice},
	{name: "a statement that 20 goroutines use", run: sharedStatement},
	{name: "a statement whose table is altered", run: alteredTable},
	{name: "a statement prepared again when its table is another", run: recreatedTable},
	{name: "more statements than are kept", run: manyStatements},
	{name: "a statement that a Conn prepares again after the session forgot it", run: forgottenStatement, only: drivers.PQ},
	{name: "a statement of pgx's that a Conn prepares again after the session forgot it", run: forgottenStatement, only: drivers.PGX},
	{name: "a statement that a Conn prepares again with other settings", run: otherSettings},
	{name: "a statement is prepared by the server once", run: preparedOnce},
	{name: "COPY by a statement, three times", run: copyIn, only: drivers.PQ},
	{name: "COPY that is given up", run: copyGivenUp, only: drivers.PQ},
}

// one scans the first column of one row.
func one(row *sql.Row) any {
	var v any
	if err := row.Scan(&v); err != nil {
		return err
	}
	return fmt.Sprintf("%s", v)
}

func dbStatement(s *subject) {
	st, err := s.db.Prepare("SELECT " + s.text)
	s.must(err)
	for range 3 {
		s.see("value", one(st.QueryRow("x")))
	}
	ended, cancel := context.WithCancel(s.Context())
	cancel()
	s.see("ended", one(st.QueryRowContext(ended, "x")))
	s.see("too few", one(st.QueryRow()))
	s.see("too many", one(st.QueryRow("x", "y")))
	s.see("again", one(st.QueryRow("x")))
	rows, err := st.Query("open")
	s.must(err)
	s.see("closed while its rows are open", st.Close())
	s.see("rows", rows.Next(), rows.Close(), rows.Err())
	s.see("closed twice", st.Close())
	s.see("used afterwards", one(st.QueryRow("x")))
	_, err = st.Exec("x")
	s.see("used afterwards", err)
	_, err = s.db.PrepareContext(ended, "SELECT 1")
	s.see("prepared too late", err)
	s.see("who", s.which(s.db))
}

func txStatement(s *subject) {
	outer, err := s.db.Prepare("SELECT " + s.text)
	s.must(err)
	defer outer.Close()
	tx, err := s.db.Begin()
	s.must(err)
	inner := tx.Stmt(outer)
	s.see("the DB's in Tx", one(inner.QueryRow("a")))
	own, err := tx.Prepare("SELECT " + s.text)
	s.must(err)
	s.see("its own", one(own.QueryRow("b")))
	again := tx.Stmt(own)
	s.see("its own by Stmt", one(again.QueryRow("c")))
	s.see("closed", inner.Close(), one(inner.QueryRow("d")))
	s.see("the DB's is open", one(outer.QueryRow("e")))
	_, err = tx.Prepare("SELEC 1")
	s.see("not to be prepared", err)
	s.see("end", tx.Commit())
	s.see("its own afterwards", one(own.QueryRow("f")))
	s.see("its own closed", own.Close(), own.Close())
	s.see("of what is over", one(tx.Stmt(outer).QueryRow("g")))
	_, err = tx.Prepare("SELECT 1")
	s.see("prepared in what is over", err)

	other, err := s.db.Begin()
	s.must(err)
	s.see("another's", one(other.Stmt(own).QueryRow("h")))
	s.see("end", other.Rollback())
}

func connStatement(s *subject) {
	c := s.conn()
	st, err := c.PrepareContext(s.Context(), "SELECT "+s.text)
	s.must(err)
	s.see("value", one(st.QueryRow("a")))
	tx, err := c.BeginTx(s.Context(), nil)
	s.must(err)
	s.see("in a Tx of the Conn", one(tx.Stmt(st).QueryRow("b")))
	s.see("end", tx.Rollback())
	s.see("who", s.which(c))
	s.see("closed", c.Close())
	s.see("afterwards", one(st.QueryRow("c")))
	s.see("closed", st.Close())
	s.see("who", s.which(s.db))
}

func preparedTwice(s *subject) {
	tx, err := s.db.Begin()
	s.must(err)
	const q = "SELECT %s, 'twice'"
	a, err := tx.Prepare(fmt.Sprintf(q, s.text))
	s.must(err)
	b, err := tx.Prepare(fmt.Sprintf(q, s.text))
	s.must(err)
	s.see("both", one(a.QueryRow("x")) != nil, one(b.QueryRow("y")) != nil)
	s.see("one closed", a.Close())
	rows, err := b.Query("z")
	s.rows("the other", rows, err)
	a, err = tx.Prepare(fmt.Sprintf(q, s.text))
	s.must(err)
	rows, err = a.Query("z")
	s.rows("once more", rows, err)
	s.see("closed", b.Close(), a.Close())
	s.see("end", tx.Commit())
	s.see("who", s.which(s.db))
}

func sharedStatement(s *subject) {
	st, err := s.db.Prepare("SELECT " + s.text)
	s.must(err)
	var wrong atomic.Int64
	var users sync.WaitGroup
	for g := range 20 {
		users.Go(func() {
			for i := range 50 {
				mine := fmt.Sprint(g, " ", i)
				if got := one(st.QueryRow(mine)); got != mine {
					wrong.Add(1)
					s.Logf("%v, want %s", got, mine)
				}
			}
		})
	}
	users.Wait()
	s.see("wrong", wrong.Load())
	s.see("closed", st.Close())
	if n := s.opened.Swap(0); n > most {
		s.Errorf("%d connections, want %d at most", n, most)
	}
}

func alteredTable(s *subject) {
	s.table("id INT", "1")
	st, err := s.db.Prepare("SELECT * FROM things")
	s.must(err)
	rows, err := st.Query()
	s.rows("before", rows, err)
	s.admin("ALTER TABLE things ADD COLUMN more INT")
	for n := range 3 {
		rows, err = st.Query()
		s.rows(fmt.Sprint("after ", n), rows, err)
	}
	s.see("closed", st.Close())
	st, err = s.db.Prepare("SELECT * FROM things")
	s.must(err)
	rows, err = st.Query()
	s.rows("prepared again", rows, err)
	s.see("closed", st.Close())
	s.see("who", s.which(s.db))
}

// recreatedTable has nobody notice by an error that a statement which was closed is of
// no use any more.
func recreatedTable(s *subject) {
	s.table("id INT", "1")
	use := func(label string) {
		st, err := s.db.Prepare("SELECT * FROM things")
		if err != nil {
			s.see(label, err)
			return
		}
		rows, err := st.Query()
		s.rows(label, rows, err)
		s.see(label+", closed", st.Close())
	}
	use("before")
	s.table("name VARCHAR(20), id BIGINT", "'a', 2")
	use("after")
	s.admin("DROP TABLE things")
	use("gone")
	s.see("who", s.which(s.db))
}

func manyStatements(s *subject) {
	for i := range 100 {
		st, err := s.db.Prepare(fmt.Sprintf("SELECT %s, %d", s.text, i%40))
		s.must(err)
		rows, err := st.Query("x")
		s.must(err)
		n := 0
		for rows.Next() {
			n++
		}
		if n != 1 || rows.Err() != nil || st.Close() != nil {
			s.see("statement", i, n, rows.Err())
		}
	}
	s.see("who", s.which(s.db))
}

// forgottenStatement has the session lose all its statements between two uses.
func forgottenStatement(s *subject) {
	c := s.conn()
	use := func(label string) {
		st, err := c.PrepareContext(s.Context(), "SELECT "+s.text)
		if s.see(label, err); err == nil {
			s.see(label, one(st.QueryRow("x")))
			s.see(label, st.Close())
		}
	}
	use("first")
	for _, forget := range []string{"DEALLOCATE ALL", "DISCARD ALL"} {
		_, err := c.ExecContext(s.Context(), forget)
		s.see(forget, err)
		use("then")
		use("and then")
	}
	s.see("who", s.which(c))
}

// otherSettings changes what a query means, between two statements of it.
func otherSettings(s *subject) {
	s.table("id INT", "1")
	before, after := "SET search_path = public", "SET search_path = other, public"
	quote := "SET standard_conforming_strings = on"
	unquote := "SET standard_conforming_strings = off"
	create, drop := "CREATE SCHEMA other", "DROP SCHEMA IF EXISTS other CASCADE"
	if s.is(drivers.MySQL) {
		before, after = "USE "+s.at.Database, "USE other"
		quote, unquote = "SET sql_mode = ''", "SET sql_mode = 'NO_BACKSLASH_ESCAPES'"
		create, drop = "CREATE DATABASE other", "DROP DATABASE IF EXISTS other"
	}
	s.admin(drop, create, "CREATE TABLE other.things (id INT)", "INSERT INTO other.things VALUES (2)")
	defer s.admin(drop)
	c := s.conn()
	use := func(setting, query string) {
		_, err := c.ExecContext(s.Context(), setting)
		s.see(setting, err)
		st, err := c.PrepareContext(s.Context(), query)
		s.must(err)
		rows, err := st.QueryContext(s.Context())
		s.rows(setting, rows, err)
		s.see(setting, st.Close())
	}
	for range 2 {
		use(before, "SELECT id FROM things")
		use(after, "SELECT id FROM things")
	}
	for range 2 {
		use(quote, `SELECT 'a\\b'`)
		use(unquote, `SELECT 'a\\b'`)
	}
}

// preparedOnce asks the server how often it has prepared what one connection uses often.
func preparedOnce(s *subject) {
	st, err := s.db.Prepare("SELECT " + s.text + " AS once")
	s.must(err)
	defer st.Close()
	count := func() any {
		if s.is(drivers.MySQL) {
			var name, n string
			if err := s.db.QueryRow("SHOW SESSION STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &n); err != nil {
				return err
			}
			return n
		}
		return one(s.db.QueryRow("SELECT count(*) || ' ' || (min(prepare_time) = max(prepare_time))::text FROM pg_prepared_statements WHERE statement LIKE '% AS once'"))
	}
	s.see("prepared", count())
	for range 10 {
		s.see("value", one(st.QueryRow("x")))
	}
	s.see("prepared", count())
}

func copyIn(s *subject) {
	s.table("id INT, name TEXT")
	for n := range 3 {
		tx, err := s.db.Begin()
		s.must(err)
		st, err := tx.Prepare("COPY things (id, name) FROM STDIN")
		s.must(err)
		for i := range 3 {
			_, err := st.Exec(i, fmt.Sprint(n))
			s.see("row", err)
		}
		r, err := st.Exec()
		s.done("flush", r, err)
		s.see("closed", st.Close())
		s.see("end", tx.Commit())
		s.see("rows", one(s.db.QueryRow("SELECT count(*)::text FROM things")))
	}
	s.see("who", s.which(s.db))
}

// copyGivenUp closes the statement before it was flushed, and after an error.
func copyGivenUp(s *subject) {
	s.table("id INT PRIMARY KEY")
	for range 2 {
		tx, err := s.db.Begin()
		s.must(err)
		st, err := tx.Prepare("COPY things (id) FROM STDIN")
		s.must(err)
		_, err = st.Exec(1)
		s.see("row", err)
		s.see("closed", st.Close())
		s.see("within", one(tx.QueryRow("SELECT count(*)::text FROM things")))
		s.see("end", tx.Rollback())
		s.see("rows", one(s.db.QueryRow("SELECT count(*)::text FROM things")))
	}
	for range 2 {
		tx, err := s.db.Begin()
		s.must(err)
		st, err := tx.Prepare("COPY things (id) FROM STDIN")
		s.must(err)
		_, err = st.Exec("no number")
		s.see("row", err)
		_, err = st.Exec()
		s.see("flush", err)
		s.see("closed", st.Close())
		s.see("end", tx.Rollback())
	}
	s.see("who", s.which(s.db))
}
