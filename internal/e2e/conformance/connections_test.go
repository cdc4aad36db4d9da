package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/natwise/natwise/internal/e2e/drivers"
)

var connections = []scenario{
	{name: "a Conn is one connection", run: conn},
	{name: "what a session remembers", run: session},
	{name: "Raw hands out the driver's own connection", run: raw},
	{name: "Raw says that the connection is broken", run: rawBroken},
	{name: "Raw panics", run: rawPanics},
	{name: "pgx's COPY by Raw", run: rawCopy, only: drivers.PGX},
	{name: "idle connections are used again, the last one first", run: reuse},
	{name: "a DB with one connection, whose second user waits", run: waits},
	{name: "Stats", run: stats},
	{name: "Driver", run: driverItself},
}

func conn(s *subject) {
	c := s.conn()
	for range 3 {
		s.see("conn", s.which(c))
	}
	s.see("other", s.which(s.db))
	s.see("ping", c.PingContext(s.Context()))
	s.see("close", c.Close(), c.Close())
	s.see("afterwards", s.which(c))
	s.see("afterwards", c.PingContext(s.Context()), c.Raw(func(any) error { return nil }))
	_, err := c.ExecContext(s.Context(), "SELECT 1")
	s.see("afterwards", err)
	_, err = c.PrepareContext(s.Context(), "SELECT 1")
	s.see("afterwards", err)
	_, err = c.BeginTx(s.Context(), nil)
	s.see("afterwards", err)
	ended, cancel := context.WithCancel(s.Context())
	cancel()
	_, err = s.db.Conn(ended)
	s.see("ended", err)
}

func session(s *subject) {
	set, get := "SET application_name = 'mine'", "SHOW application_name"
	if s.is(drivers.MySQL) {
		set, get = "SET @mine = 'mine'", "SELECT @mine"
	}
	c := s.conn()
	_, err := c.ExecContext(s.Context(), set)
	s.see("set", err)
	_, err = c.ExecContext(s.Context(), "CREATE TEMPORARY TABLE passing (id INT)")
	s.see("temporary table", err)
	s.see("get", one(c.QueryRowContext(s.Context(), get)))
	s.see("of another", one(s.db.QueryRow(get)))
	s.see("close", c.Close())

	// The pool keeps sessions as they are.
	c = s.conn()
	s.see("again", s.which(c), one(c.QueryRowContext(s.Context(), get)))
	_, err = c.ExecContext(s.Context(), "INSERT INTO passing VALUES (1)")
	s.see("insert", err)
}

func raw(s *subject) {
	c := s.conn()
	s.see("before", s.which(c))
	s.see("raw", s.raw(c, func(dc any) error {
		s.see("type", fmt.Sprintf("%T", dc))
		return nil
	}))
	s.see("error", s.raw(c, func(dc any) error { return errors.New("of its own") }))
	s.see("after", s.which(c), c.Close())
	s.see("afterwards", s.which(s.db))
}

func rawBroken(s *subject) {
	c := s.conn()
	s.see("before", s.which(c))
	s.see("broken", s.raw(c, func(any) error { return driver.ErrBadConn }))
	s.see("afterwards", s.which(c))
	s.see("close", c.Close())
	s.see("next", s.which(s.db))
	c = s.conn()
	s.see("wrapped", s.raw(c, func(any) error { return fmt.Errorf("broken: %w", driver.ErrBadConn) }))
	s.see("close", c.Close())
	s.see("next", s.which(s.db))
}

func rawPanics(s *subject) {
	c := s.conn()
	s.see("before", s.which(c))
	func() {
		defer func() { s.see("panic", recover()) }()
		s.raw(c, func(any) error { panic("of its own") })
	}()
	s.see("close", c.Close())
	s.see("next", s.which(s.db))
}

func rawCopy(s *subject) {
	s.table("id INT")
	c := s.conn()
	s.see("raw", s.raw(c, func(dc any) error {
		n, err := dc.(*stdlib.Conn).Conn().CopyFrom(s.Context(), pgx.Identifier{"things"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}, {2}}))
		s.see("copied", n, err)
		return err
	}))
	s.see("close", c.Close())
	s.see("rows", one(s.db.QueryRow("SELECT count(*) FROM things")))
	s.see("next", s.which(s.db))
}

func reuse(s *subject) {
	var conns []*sql.Conn
	for range 3 {
		c := s.conn()
		s.see("conn", s.which(c))
		conns = append(conns, c)
	}
	for _, i := range []int{1, 2, 0} {
		s.see("close", conns[i].Close())
	}
	for range 3 {
		s.see("again", s.which(s.conn()))
	}
}

func waits(s *subject) {
	var held []*sql.Conn
	for range most {
		held = append(held, s.conn())
	}
	ctx, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	_, err := s.db.ExecContext(ctx, "SELECT 1")
	s.see("none is free", errors.Is(err, context.DeadlineExceeded))
	got := make(chan error, 1)
	go func() {
		_, err := s.db.Exec("SELECT 1")
		got <- err
	}()
	s.see("close", held[0].Close())
	s.see("one is", <-got)
}

func stats(s *subject) {
	show := func(label string) {
		st := s.db.Stats()
		s.see(label, st.InUse)
		open := st.OpenConnections
		if s.natwise != nil {
			of := s.natwise.Stats()
			open = of.Idle + of.InUse
		}
		s.see(label+", open", open)
	}
	show("new")
	a, b := s.conn(), s.conn()
	show("two")
	s.must(a.Close())
	show("one")
	s.must(b.Close())
	show("none")
}

func driverItself(s *subject) {
	s.see("type", fmt.Sprintf("%T", s.db.Driver()), s.db.Driver() == s.connector.Driver())
}
