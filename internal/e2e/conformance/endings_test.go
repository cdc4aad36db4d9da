package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

var endings = []scenario{
	{name: "a DB closed while it is in use", run: closed},
	{name: "a DB closed twice, and unused", run: closedUnused},
	{name: "a login that is refused", run: refusedLogin},
	{name: notThere, run: noServer},
	{name: "a connection that the server has ended", run: killedIdle},
	{name: "a connection that the server ends during a query", run: killedInUse},
	{name: "a transaction whose connection the server ends", run: killedTx},
}

func closed(s *subject) {
	c := s.conn()
	s.see("conn", s.which(c))
	tx, err := s.db.Begin()
	s.must(err)
	rows, err := s.db.Query("SELECT 1")
	s.must(err)
	st, err := s.db.Prepare("SELECT 1")
	s.must(err)
	s.see("close", s.db.Close())
	s.see("DB", s.which(s.db))
	s.see("DB", s.db.Ping())
	s.see("Stmt", one(st.QueryRow()), st.Close())
	s.see("conn", s.which(c))
	_, err = tx.Exec("SELECT 1")
	s.see("Tx", err, tx.Commit())
	s.see("Rows", rows.Next(), rows.Err(), rows.Close())
	s.see("close", s.db.Close())
	s.see("conn closed", c.Close())
	s.see("in use", s.db.Stats().InUse)
}

func closedUnused(s *subject) {
	s.see("close", s.db.Close(), s.db.Close())
	_, err := s.db.Conn(s.Context())
	s.see("DB", err)
}

// elsewhere is another subject, which logs in otherwise.
func (s *subject) elsewhere(change func(*drivers.Server)) *subject {
	at := s.at
	change(&at)
	return newSubject(s.T, s.driver, at, s.natwise != nil)
}

func refusedLogin(s *subject) {
	for _, change := range []func(*drivers.Server){
		func(at *drivers.Server) { at.Password = "wrong" },
		func(at *drivers.Server) { at.Database = "nothing" },
	} {
		other := s.elsewhere(change)
		s.see("ping", other.db.Ping())
		_, err := other.db.Exec("SELECT 1")
		s.see("Exec", err)
		s.see("tries", other.opened.Load())
	}
}

func noServer(s *subject) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	l.Close()
	other := s.elsewhere(func(at *drivers.Server) { at.Addr = l.Addr().String() })
	err = other.db.Ping()
	s.see("refused", errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded))
	s.see("text", err)
	s.see("tries", other.opened.Load())
}

// end has the server end the connection behind q, and waits until that has come here.
func (s *subject) end(q querier) {
	s.Helper()
	var id int64
	s.must(q.QueryRowContext(s.Context(), s.self).Scan(&id))
	s.endID(id)
}

func (s *subject) endID(id int64) {
	s.Helper()
	before := s.established()
	s.admin(fmt.Sprintf(s.kill, id))
	for s.established() >= before {
		time.Sleep(time.Millisecond) // the kernel tells nobody who does not have the socket
	}
}

// established counts the connections of this process to the server, as the kernel does:
// those that the server has ended are in another state.
func (s *subject) established() int {
	_, port, err := net.SplitHostPort(s.at.Addr)
	s.must(err)
	n, err := strconv.Atoi(port)
	s.must(err)
	table, err := os.ReadFile("/proc/self/net/tcp")
	s.must(err)
	const state = "01"
	return strings.Count(string(table), fmt.Sprintf(" 0100007F:%04X %s ", n, state))
}

func killedIdle(s *subject) {
	s.see("before", s.which(s.db))
	for _, use := range []struct {
		label string
		f     func() error
	}{
		{"Ping", s.db.Ping},
		{"Exec", func() error { _, err := s.db.Exec("SELECT 1"); return err }},
		{"Exec with an argument", func() error { _, err := s.db.Exec("SELECT "+s.text, "x"); return err }},
		{"Query", func() error { return s.db.QueryRow("SELECT 1").Scan(new(int)) }},
		{"Prepare", func() error {
			st, err := s.db.Prepare("SELECT 1")
			if err == nil {
				err = st.Close()
			}
			return err
		}},
		{"Begin", func() error {
			tx, err := s.db.Begin()
			if err == nil {
				err = tx.Commit()
			}
			return err
		}},
	} {
		s.end(s.db)
		s.see(use.label, use.f())
		s.see("again", use.f())
	}
}

func killedInUse(s *subject) {
	c := s.conn()
	var id int64
	s.must(c.QueryRowContext(s.Context(), s.self).Scan(&id))
	done := make(chan error, 1)
	go func() {
		_, err := c.ExecContext(s.Context(), s.sleep)
		done <- err
	}()
	s.running(id)
	s.endID(id)
	s.see("Exec", <-done)
	s.see("close", c.Close())
	_, err := s.db.Exec("SELECT 1")
	s.see("next", err)
}

// running waits until a connection is busy.
func (s *subject) running(id int64) {
	busy := fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND query = '%s' AND state = 'active'", id, s.sleep)
	if s.is(drivers.MySQL) {
		busy = fmt.Sprintf("SELECT count(*) FROM information_schema.processlist WHERE id = %d AND info = '%s'", id, s.sleep)
	}
	db := sql.OpenDB(open(s.T, s.driver, s.at, new(net.Dialer).DialContext))
	defer db.Close()
	for n := 0; n == 0; {
		s.must(db.QueryRow(busy).Scan(&n))
	}
}

func killedTx(s *subject) {
	s.table("id INT")
	tx, err := s.db.Begin()
	s.must(err)
	_, err = tx.Exec("INSERT INTO things VALUES (1)")
	s.see("insert", err)
	s.end(tx)
	_, err = tx.Exec("INSERT INTO things VALUES (2)")
	s.see("after the end", err)
	s.see("commit", tx.Commit())
	s.see("roll back", tx.Rollback())
	s.see("rows", one(s.db.QueryRow("SELECT count(*) FROM things")))
}
