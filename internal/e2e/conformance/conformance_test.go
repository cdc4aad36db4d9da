package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/sqlx"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// A scenario is what is done to both, in the same order.
type scenario struct {
	name string
	run  func(s *subject)
	only string // the driver that it is about; empty: all
	not  string // the driver that does otherwise each time; empty: none

	// races is the driver that races with its own cancellation here, and keeps the connection
	// or not, with natwise or without: what differs counts if it does so each of a few times.
	races string

	// doubt: a connection is lost on the way, so that natwise asks the idle ones, and may
	// open one that is needed meanwhile.
	doubt bool
}

func (c scenario) applies(name string) bool {
	return (c.only == "" || c.only == name) && c.not != name
}

// tries is how often a scenario is played before what differs counts.
func (c scenario) tries(name string) int {
	if c.races == name {
		return 3
	}
	return 1
}

var scenarios = slices.Concat(queries, arguments, statements, transactions, connections, cancellations, endings)

func TestADBOverNatwiseBehavesAsThatOfTheDriverAlone(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) {
		s := login(servers.Postgres(t))
		t.Run(drivers.PGX, func(t *testing.T) { conform(t, drivers.PGX, s) })
		t.Run(drivers.PQ, func(t *testing.T) { conform(t, drivers.PQ, s) })
	})
	t.Run("MariaDB", func(t *testing.T) {
		s := login(servers.MariaDB(t))
		t.Run(drivers.MySQL, func(t *testing.T) { conform(t, drivers.MySQL, s) })
	})
}

func login(s *servers.Server) drivers.Server {
	return drivers.Server{Addr: s.Addr(), User: servers.User, Password: servers.Password, Database: servers.Database}
}

func conform(t *testing.T, name string, at drivers.Server) {
	for _, c := range scenarios {
		if c.applies(name) {
			t.Run(c.name, func(t *testing.T) {
				var wrong []string
				for range c.tries(name) {
					plain := observe(t, c, name, at, false)
					ours := observe(t, c, name, at, true)
					if wrong = compare(name, c.name, plain, ours); len(wrong) == 0 {
						return
					}
				}
				for _, what := range wrong {
					t.Error(what)
				}
			})
		}
	}
}

// compare says if something was seen on one side only, and if a difference that is listed
// is none, or another one. Where the two have gone different ways, it says so once.
func compare(name, of string, plain, ours []string) (wrong []string) {
	for k := range differences {
		if k.driver == name && k.scenario == of && !slices.ContainsFunc(plain, func(line string) bool { return labelOf(line) == k.label }) {
			wrong = append(wrong, fmt.Sprintf("a difference is listed of %q, of which nothing is said", k.label))
		}
	}
	for i := range max(len(plain), len(ours)) {
		a, b := line(plain, i), line(ours, i)
		label := labelOf(a)
		d, meant := differences[key{name, of, label}]
		switch {
		case meant && (!strings.Contains(a, d.plain) || !strings.Contains(b, d.ours) || a == b):
			wrong = append(wrong, fmt.Sprintf("a difference is listed, %q and %q, but\n  plain   %s\n  natwise %s", d.plain, d.ours, a, b))
		case !meant && a != b:
			wrong = append(wrong, fmt.Sprintf("\n  plain   %s\n  natwise %s", a, b))
		}
		if label != labelOf(b) {
			break
		}
	}
	return wrong
}

func labelOf(line string) string {
	label, _, _ := strings.Cut(line, ": ")
	return label
}

func line(of []string, i int) string {
	if i < len(of) {
		return of[i]
	}
	return "(nothing more)"
}

// A subject is one of the two DBs, and what was seen of it.
type subject struct {
	*testing.T
	dialect
	db     *sql.DB
	raw    func(*sql.Conn, func(any) error) error // how the driver's own connection is reached
	at     drivers.Server
	opened *atomic.Int64

	connector driver.Connector // the driver's own
	natwise   *sqlx.Connector  // nil: plain

	seen []string
	ids  []int64 // of connections, by when they were first seen
}

// most is how many connections a DB may have.
const most = 4

// observe runs a scenario and returns what was seen.
func observe(t *testing.T, c scenario, name string, at drivers.Server, over bool) (seen []string) {
	side := "plain"
	if over {
		side = "natwise"
	}
	t.Run(side, func(t *testing.T) {
		s := newSubject(t, name, at, over)
		c.run(s)
		if !c.doubt {
			s.see("connections opened", s.opened.Load())
		}
		seen = s.seen
	})
	return seen
}

func newSubject(t *testing.T, name string, at drivers.Server, over bool) *subject {
	s := &subject{T: t, dialect: dialects[name], at: at, opened: new(atomic.Int64)}
	if !over {
		c := open(t, name, at, new(net.Dialer).DialContext)
		s.connector, s.raw = c, (*sql.Conn).Raw
		s.db = sql.OpenDB(counted{c, s.opened})
		s.db.SetMaxOpenConns(most)
		s.db.SetMaxIdleConns(most)
	} else {
		d := &sqlx.Dialer{Dialer: &dialer.Dialer{Ledger: new(dialer.Ledger)}}
		c := open(t, name, at, d.DialContext)
		s.connector, s.raw = c, sqlx.Raw
		s.natwise = sqlx.NewConnector(counted{c, s.opened}, sqlx.Config{Dialer: d, Max: most, Drain: -1})
		s.db = s.natwise.OpenDB()
	}
	t.Cleanup(func() { s.db.Close() })
	return s
}

// open returns the driver's own connector, with everything allowed that a scenario needs.
func open(t *testing.T, name string, at drivers.Server, dial drivers.Dial) driver.Connector {
	t.Helper()
	c, err := drivers.Connector(name, at, dial)
	if name == drivers.MySQL {
		cfg := mysql.NewConfig()
		cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = at.User, at.Password, "tcp", at.Addr, at.Database
		cfg.DialFunc, cfg.MultiStatements, cfg.ParseTime = dial, true, true
		cfg.Logger = &mysql.NopLogger{}
		c, err = mysql.NewConnector(cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// counted counts the connections that a driver is asked for. The driver's further ones,
// by which it has queries canceled, are not among them.
type counted struct {
	driver.Connector
	n *atomic.Int64
}

func (c counted) Connect(ctx context.Context) (driver.Conn, error) {
	c.n.Add(1)
	return c.Connector.Connect(ctx)
}

// see notes something that must be the same on both sides. Errors are told by all that a
// program could ask them.
func (s *subject) see(label string, what ...any) {
	s.Helper()
	said := make([]string, len(what))
	for i, w := range what {
		if err, ok := w.(error); ok {
			said[i] = tell(err)
		} else {
			said[i] = accidental.ReplaceAllString(fmt.Sprintf("%+v", w), "ADDRESS")
		}
	}
	s.seen = append(s.seen, label+": "+strings.Join(said, " "))
	s.Log(s.seen[len(s.seen)-1])
}

// must ends a scenario that has become pointless.
func (s *subject) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("not to be compared: %v", err)
	}
}

// sentinels are the errors that programs ask for.
var sentinels = []error{
	driver.ErrBadConn, driver.ErrSkip, sql.ErrConnDone, sql.ErrTxDone, sql.ErrNoRows,
	context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, mysql.ErrInvalidConn,
}

// accidental is what is another one each time: the client's port, and addresses.
var accidental = regexp.MustCompile(`127\.0\.0\.1:\d+|0x[0-9a-f]{6,}`)

func tell(err error) string {
	said := accidental.ReplaceAllString(fmt.Sprintf("%q", err), "ADDRESS")
	for _, is := range sentinels {
		if errors.Is(err, is) {
			said += fmt.Sprintf(", is %v", is)
		}
	}
	for _, as := range []any{new(*pgconn.PgError), new(*pq.Error), new(*mysql.MySQLError), new(net.Error)} {
		if errors.As(err, as) {
			said += fmt.Sprintf(", as %T", as)
		}
	}
	return said
}

// A querier is whatever has a method QueryRowContext: a DB, a Conn, a Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// which tells the server's connection behind q by the order in which they were first
// seen: 1, 2 and so on. Without one it returns what went wrong.
func (s *subject) which(q querier) any {
	var id int64
	if err := q.QueryRowContext(s.Context(), s.self).Scan(&id); err != nil {
		return err
	}
	if !slices.Contains(s.ids, id) {
		s.ids = append(s.ids, id)
	}
	return fmt.Sprintf("connection %d", 1+slices.Index(s.ids, id))
}

// conn returns a connection that the scenario keeps.
func (s *subject) conn() *sql.Conn {
	s.Helper()
	c, err := s.db.Conn(s.Context())
	s.must(err)
	s.Cleanup(func() { c.Close() })
	return c
}

// admin does something on a connection that nobody sees, of a DB without natwise.
func (s *subject) admin(statements ...string) {
	s.Helper()
	c := open(s.T, s.driver, s.at, new(net.Dialer).DialContext)
	db := sql.OpenDB(c)
	defer db.Close()
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			s.Fatalf("%s: %v", q, err)
		}
	}
}

// table makes the table things, with the columns told and some rows, until the scenario
// has ended.
func (s *subject) table(columns string, rows ...string) {
	s.Helper()
	s.admin("DROP TABLE IF EXISTS things", "CREATE TABLE things ("+columns+")")
	for _, r := range rows {
		s.admin("INSERT INTO things VALUES (" + r + ")")
	}
}

// quiet waits until database/sql has given back all connections: it does so by itself,
// and in time of its own, where a context has ended.
func (s *subject) quiet() {
	s.Helper()
	for deadline := time.Now().Add(5 * time.Second); s.db.Stats().InUse > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("in use for 5 s after the end: %+v", s.db.Stats())
		}
	}
}

// rows reads all rows of all result sets, as the driver hands them out.
func (s *subject) rows(label string, rows *sql.Rows, err error) {
	s.Helper()
	if err != nil {
		s.see(label, err)
		return
	}
	defer rows.Close()
	var seen []any
	for {
		columns, err := rows.Columns()
		seen = append(seen, columns, err)
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			seen = append(seen, rows.Scan(values...), contents(values))
		}
		seen = append(seen, "ended with", rows.Err())
		if !rows.NextResultSet() {
			break
		}
	}
	s.see(label, append(seen, rows.Err(), rows.Close())...)
}

// contents tells values by type too.
func contents(pointers []any) string {
	var said []string
	for _, p := range pointers {
		v := *p.(*any)
		said = append(said, fmt.Sprintf("%T(%v)", v, v))
	}
	return strings.Join(said, ", ")
}

// A dialect is how a driver and its server want things said.
type dialect struct {
	driver string
	self   string // a query for the id of the connection
	sleep  string // a query of a minute
	many   string // a query of very many rows
	arg    string // the first argument's place
	arg2   string
	text   string // the first argument's place, where a text is meant
	kill   string // a statement that ends the connection of the id told
}

var dialects = map[string]dialect{
	drivers.PGX:   postgres(drivers.PGX),
	drivers.PQ:    postgres(drivers.PQ),
	drivers.MySQL: {drivers.MySQL, "SELECT connection_id()", "SELECT sleep(60)", "SELECT seq, repeat('x', 100) FROM seq_1_to_200000", "?", "?", "?", "KILL %d"},
}

func postgres(name string) dialect {
	return dialect{name, "SELECT pg_backend_pid()", "SELECT pg_sleep(60)", "SELECT n, repeat('x', 100) FROM generate_series(1, 200000) n", "$1", "$2", "$1::text", "SELECT pg_terminate_backend(%d)"}
}

// is reports whether the subject's driver is one of those.
func (d dialect) is(names ...string) bool { return slices.Contains(names, d.driver) }
