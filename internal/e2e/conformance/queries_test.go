package conformance

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

var queries = []scenario{
	{name: "Ping answers, and not where the context has ended", run: ping},
	{name: "Exec with arguments and without", run: exec},
	{name: "Query with arguments and without", run: query},
	{name: "QueryRow of none, of one, of two rows", run: queryRow},
	{name: "the server's errors, and what it did before and after", run: serverErrors},
	{name: "several result sets", run: resultSets},
	{name: "the types of columns", run: columnTypes},
	{name: "a large result that is not read to its end", run: unread},
	{name: "a result that stays open while others come", run: twoResults, doubt: true},
	{name: "a function in the place of Exec", run: queriesByExec},
}

func ping(s *subject) {
	s.see("ping", s.db.Ping())
	ended, cancel := context.WithCancel(s.Context())
	cancel()
	s.see("ended", s.db.PingContext(ended))
	s.see("again", s.db.Ping())
	s.see("who", s.which(s.db))
}

// done is Exec's outcome as a program sees it.
func (s *subject) done(label string, r sql.Result, err error) {
	s.Helper()
	if err != nil {
		s.see(label, err)
		return
	}
	id, errID := r.LastInsertId()
	n, errN := r.RowsAffected()
	s.see(label, id, errID, n, errN)
}

func exec(s *subject) {
	serial := "SERIAL PRIMARY KEY"
	if s.is(drivers.MySQL) {
		serial = "INT AUTO_INCREMENT PRIMARY KEY"
	}
	s.table("id " + serial + ", name VARCHAR(20)")
	for _, q := range []struct {
		query string
		args  []any
	}{
		{"INSERT INTO things (name) VALUES ('a'), ('b')", nil},
		{"INSERT INTO things (name) VALUES (" + s.arg + ")", []any{"c"}},
		{"UPDATE things SET name = 'd'", nil},
		{"UPDATE things SET name = " + s.arg + " WHERE id = " + s.arg2, []any{"e", 2}},
		{"DELETE FROM things WHERE id = " + s.arg, []any{99}},
		{"DELETE FROM things WHERE id = " + s.arg, []any{1, 2}},
		{"DELETE FROM things WHERE id = " + s.arg, nil},
		{"DELETE FROM things", []any{1}},
		{"", nil},
		{"-- nothing", nil},
	} {
		r, err := s.db.Exec(q.query, q.args...)
		s.done(q.query, r, err)
	}
	s.see("who", s.which(s.db))
}

func query(s *subject) {
	s.table("id INT, name VARCHAR(20), at TIMESTAMP NULL", "1, 'a', '2026-01-02 03:04:05'", "2, NULL, NULL")
	for _, q := range []struct {
		query string
		args  []any
	}{
		{"SELECT * FROM things ORDER BY id", nil},
		{"SELECT * FROM things WHERE id = " + s.arg, []any{1}},
		{"SELECT name FROM things WHERE id > " + s.arg, []any{5}},
		{"SELECT name FROM things WHERE id > " + s.arg, []any{5, 6}},
		{"SELECT name FROM things WHERE id > " + s.arg, nil},
		{"INSERT INTO things (id) VALUES (3)", nil},
		{"", nil},
	} {
		rows, err := s.db.Query(q.query, q.args...)
		s.rows(q.query, rows, err)
	}
	s.see("who", s.which(s.db))
}

func queryRow(s *subject) {
	s.table("id INT", "1", "2")
	var id int
	s.see("none", s.db.QueryRow("SELECT id FROM things WHERE id = 9").Scan(&id), id)
	s.see("one", s.db.QueryRow("SELECT id FROM things WHERE id = "+s.arg, 2).Scan(&id), id)
	s.see("two", s.db.QueryRow("SELECT id FROM things ORDER BY id").Scan(&id), id)
	s.see("too many columns", s.db.QueryRow("SELECT id FROM things").Scan())
	var b bool
	s.see("not of this type", s.db.QueryRow("SELECT 'x'").Scan(&b))
	s.see("no such table", s.db.QueryRow("SELECT id FROM nothing").Scan(&id))
	s.see("Err", s.db.QueryRow("SELECT id FROM nothing").Err())
	s.see("who", s.which(s.db))
}

func serverErrors(s *subject) {
	s.table("id INT PRIMARY KEY", "1")
	for _, q := range []string{
		"SELEC 1", "SELECT * FROM nothing", "INSERT INTO things VALUES (1)", "INSERT INTO things VALUES (NULL)",
		"INSERT INTO things VALUES (2)",
	} {
		_, err := s.db.Exec(q)
		s.see("Exec of "+q, err)
		rows, err := s.db.Query(strings.Replace(q, "(2)", "(3)", 1))
		s.rows("Query of "+q, rows, err)
		st, err := s.db.Prepare(q)
		s.see("Prepare of "+q, err)
		if err == nil {
			_, err := st.Exec()
			s.see("prepared "+q, err, st.Close())
		}
	}
	divided, err := s.db.Query("SELECT 1/(2-id) FROM (SELECT 1 AS id UNION SELECT 2) AS t")
	s.rows("an error among the rows", divided, err)
	s.see("who", s.which(s.db))
}

func resultSets(s *subject) {
	rows, err := s.db.Query("SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SELECT 4 AS d WHERE 1 = 0")
	s.rows("three", rows, err)
	rows, err = s.db.Query("SELECT 1; SELECT nothing")
	s.rows("the second fails", rows, err)
	rows, err = s.db.Query("SELECT 1; SELECT 2")
	if s.see("not read", err); err == nil {
		s.see("not read", rows.Next(), rows.Close())
		s.see("after the end", rows.NextResultSet(), rows.Err())
	}
	r, err := s.db.Exec("SELECT 1; SELECT 2")
	s.done("by Exec", r, err)
	s.see("who", s.which(s.db))
}

func columnTypes(s *subject) {
	s.table("a INT, b BIGINT NOT NULL, c VARCHAR(17), d TEXT, e NUMERIC(9,3), f DOUBLE PRECISION, g TIMESTAMP NULL, h DATE, i CHAR(3), j SMALLINT")
	show := func(label string, rows *sql.Rows, err error) {
		s.must(err)
		defer rows.Close()
		types, err := rows.ColumnTypes()
		s.see(label, err)
		for _, c := range types {
			length, hasLength := c.Length()
			null, hasNull := c.Nullable()
			precision, scale, hasPrecision := c.DecimalSize()
			s.see(label+" "+c.Name(), c.DatabaseTypeName(), c.ScanType(), length, hasLength, null, hasNull, precision, scale, hasPrecision)
		}
	}
	rows, err := s.db.Query("SELECT * FROM things")
	show("query", rows, err)
	rows, err = s.db.Query("SELECT * FROM things WHERE a = "+s.arg, 1)
	show("with an argument", rows, err)
	st, err := s.db.Prepare("SELECT * FROM things")
	s.must(err)
	defer st.Close()
	rows, err = st.Query()
	show("prepared", rows, err)
}

func unread(s *subject) {
	read := func(label string, rows *sql.Rows, err error) {
		s.must(err)
		for range 3 {
			var n int
			var filler string
			s.see(label, rows.Next(), rows.Scan(&n, &filler), n, len(filler))
		}
		s.see(label, rows.Close(), rows.Err())
		s.see(label+" closed", rows.Next(), rows.Close(), rows.Scan(new(int), new(string)))
	}
	rows, err := s.db.Query(s.many)
	read("DB", rows, err)
	s.see("who", s.which(s.db))
	st, err := s.db.Prepare(s.many)
	s.must(err)
	rows, err = st.Query()
	read("Stmt", rows, err)
	s.see("Stmt", st.Close())
	s.see("who", s.which(s.db))
	tx, err := s.db.Begin()
	s.must(err)
	rows, err = tx.Query(s.many)
	read("Tx", rows, err)
	s.see("in Tx", s.which(tx))
	s.see("Tx", tx.Commit())
	s.see("who", s.which(s.db))
}

// twoResults has a second query come while the first is being read, on connections of
// their own and on one.
func twoResults(s *subject) {
	first, err := s.db.Query(s.many)
	s.must(err)
	s.see("first", first.Next())
	s.see("second", s.which(s.db))
	s.see("first", first.Next(), first.Close())

	tx, err := s.db.Begin()
	s.must(err)
	first, err = tx.Query(s.many)
	s.must(err)
	s.see("first of a Tx", first.Next())
	_, err = tx.Exec("SELECT 1")
	s.see("second of a Tx", err)
	s.see("first of a Tx", first.Next(), first.Close())
	s.see("after it", s.which(tx) != nil)
	s.see("end", tx.Rollback())
	s.see("who", fmt.Sprintf("%T", s.which(s.db)))
}

func queriesByExec(s *subject) {
	r, err := s.db.Exec("SELECT 1")
	s.done("a SELECT", r, err)
	r, err = s.db.Exec("SELECT "+s.text, "x")
	s.done("with an argument", r, err)
	st, err := s.db.Prepare("SELECT " + s.text)
	s.must(err)
	r, err = st.Exec("x")
	s.done("prepared", r, err)
	s.see("end", st.Close())
	s.see("who", s.which(s.db))
}
