package sqlx_test

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

const here = "20.1.2.3:5432" // public: not exempt

// A stage is a database of few words in virtual time, behind a NAT, and a driver for it.
type stage struct {
	*testing.T
	net    memnet.Network
	nat    *fauxnat.NAT
	ledger *dialer.Ledger
	dialer *sqlx.Dialer
	path   netpath.Profile

	liar     bool                               // the driver says ErrBadConn whatever was sent, as lib/pq does
	promises bool                               // the driver says of errors that they are safe to retry
	mute     bool                               // the driver has no Validator
	hook     func(op string) error              // called first in each of the driver's methods
	seen     func(c net.Conn, line string) bool // the server's; it reports whether it has dealt with the line
	db       *sql.DB
	of       *sqlx.Connector

	mu    sync.Mutex // guards the fields below
	ran   map[string]int
	order []string
	fars  []net.Conn // the server's ends, in the order of the dials
}

// onStage runs f in virtual time, with n ports behind App Service's NAT. In the end the
// DB is closed, and every port must have come free.
func onStage(t *testing.T, n int, f func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path := netpath.AzureAppService()
		path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
		s := &stage{T: t, path: path, ran: make(map[string]int)}
		s.nat = &fauxnat.NAT{Path: path, Dial: s.net.DialContext}
		s.ledger = &dialer.Ledger{Path: path, Ramp: -1}
		s.dialer = &sqlx.Dialer{Dialer: &dialer.Dialer{Ledger: s.ledger, Dial: s.nat.DialContext}}
		s.listen()
		f(t, s)
		if s.db != nil {
			if err := s.db.Close(); err != nil {
				t.Errorf("the DB does not close: %v", err)
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, a := range s.ledger.Accounts() {
			t.Errorf("left behind: %v", a)
		}
		if stats := s.nat.Stats(); stats.Held > 0 {
			t.Errorf("the NAT holds %d ports in the end, of %d flows", stats.Held, stats.Opened)
		}
	})
}

// open makes the DB.
func (s *stage) open(cfg sqlx.Config) *sql.DB {
	if cfg.Dialer == nil {
		cfg.Dialer = s.dialer
	}
	s.of = sqlx.NewConnector(toy{s}, cfg)
	s.db = s.of.OpenDB()
	return s.db
}

// must fails the test if a statement fails.
func (s *stage) must(query string) {
	s.Helper()
	if _, err := s.db.Exec(query); err != nil {
		s.Errorf("%s: %v", query, err)
	}
}

// runs is how often the server has run a statement.
func (s *stage) runs(query string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ran[query]
}

// flows is how many connections were dialed.
func (s *stage) flows() int { return s.nat.Stats().Opened }

// far returns the server's end of the i-th connection.
func (s *stage) far(i int) net.Conn {
	s.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= len(s.fars) {
		s.Fatalf("there are %d connections", len(s.fars))
	}
	return s.fars[i]
}

func (s *stage) listen() net.Listener {
	ln, err := s.net.Listen(here)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.Cleanup(func() { c.Close() })
			s.mu.Lock()
			s.fars = append(s.fars, c)
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
	return ln
}

// serve is the server: it runs one line after the other.
func (s *stage) serve(c net.Conn) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		line := lines.Text()
		s.mu.Lock()
		s.ran[line]++
		s.order = append(s.order, line)
		s.mu.Unlock()
		if s.seen != nil && s.seen(c, line) {
			continue
		}
		var d time.Duration
		switch verb, rest, _ := strings.Cut(line, " "); verb {
		case "die":
			return
		case "hang":
			continue
		case "sleep":
			d, _ = time.ParseDuration(rest)
			time.Sleep(d)
		case "fail":
			fmt.Fprintf(c, "error %s\n", rest)
			continue
		}
		io.WriteString(c, "ok\n")
	}
}

// A toy is the driver's Connector.
type toy struct{ s *stage }

func (t toy) Driver() driver.Driver { return toyDriver{} }

type toyDriver struct{}

func (toyDriver) Open(string) (driver.Conn, error) { return nil, errors.New("not by name") }

func (t toy) Connect(ctx context.Context) (driver.Conn, error) {
	if err := t.s.call("connect"); err != nil {
		return nil, err
	}
	c, err := t.s.dialer.DialContext(ctx, "tcp", here)
	if err != nil {
		return nil, err
	}
	tc := &toyConn{s: t.s, net: c, in: bufio.NewReader(c)}
	if _, err := tc.ask(ctx, "hello"); err != nil {
		return nil, err
	}
	if t.s.mute {
		return struct {
			driver.Conn
			driver.ExecerContext
		}{tc, tc}, nil
	}
	return tc, nil
}

func (s *stage) call(op string) error {
	if s.hook != nil {
		return s.hook(op)
	}
	return nil
}

// A toyConn is a driver's connection with every optional interface.
type toyConn struct {
	s    *stage
	net  net.Conn
	in   *bufio.Reader
	dead bool
}

// A toyError is what the server says, with its SQLSTATE.
type toyError string

func (e toyError) Error() string    { return "toy: " + string(e) }
func (e toyError) SQLState() string { return string(e) }

type promise struct{ error }

func (promise) SafeToRetry() bool { return true }

// ask sends a line and waits for the answer.
func (c *toyConn) ask(ctx context.Context, line string) (n int, err error) {
	verb, _, _ := strings.Cut(line, " ")
	if err := c.s.call(verb); err != nil {
		return 0, err
	}
	if c.dead {
		return 0, driver.ErrBadConn
	}
	stop := context.AfterFunc(ctx, func() { c.net.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err = io.WriteString(c.net, line+"\n")
	if err != nil && n == 0 {
		c.dead = true
		return 0, driver.ErrBadConn
	}
	var answer string
	if err == nil {
		answer, err = c.in.ReadString('\n')
	}
	if err != nil {
		c.dead = true
		if ctx.Err() != nil && c.s.mute {
			return n, ctx.Err() // it is closed later
		}
		c.net.Close()
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		if c.s.liar {
			return n, driver.ErrBadConn
		}
		if c.s.promises {
			return n, promise{err}
		}
		return n, err
	}
	if state, bad := strings.CutPrefix(strings.TrimSpace(answer), "error "); bad {
		return n, toyError(state)
	}
	return n, nil
}

func (c *toyConn) Close() error {
	err := c.s.call("close")
	return errors.Join(err, c.net.Close())
}

func (c *toyConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	_, err := c.ask(ctx, query)
	return driver.ResultNoRows, err
}

func (c *toyConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	_, err := c.ask(ctx, "prepare "+query)
	if err != nil {
		return nil, err
	}
	return &toyStmt{c, query}, nil
}

func (c *toyConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *toyConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	_, err := c.ask(ctx, "begin")
	return toyTx{c}, err
}

func (c *toyConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *toyConn) Ping(ctx context.Context) error {
	_, err := c.ask(ctx, "ping")
	return err
}

func (c *toyConn) IsValid() bool { return !c.dead }

func (c *toyConn) ResetSession(context.Context) error {
	if c.dead {
		return driver.ErrBadConn
	}
	return c.s.call("reset")
}

type toyTx struct{ c *toyConn }

func (t toyTx) Commit() error {
	_, err := t.c.ask(context.Background(), "commit")
	return err
}

func (t toyTx) Rollback() error {
	_, err := t.c.ask(context.Background(), "rollback")
	return err
}

type toyStmt struct {
	c     *toyConn
	query string
}

func (s *toyStmt) Close() error                               { return s.c.s.call("close-stmt") }
func (s *toyStmt) NumInput() int                              { return 0 }
func (s *toyStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.ErrUnsupported }
func (s *toyStmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.ErrUnsupported }
func (s *toyStmt) ExecContext(ctx context.Context, _ []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.query, nil)
}
