package hidden

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

// patience is how long a test waits for what should come soon.
const patience = 10 * time.Second

// until asks again and again whether something is so.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for tooLong := time.After(patience); !done(); {
		select {
		case <-tooLong:
			t.Fatalf("after %v still not: %s", patience, what)
		case <-time.After(time.Millisecond):
		}
	}
}

// A witness is what a driver dials by: a Dialer, and notes of what came of each dial.
type witness struct {
	sqlx.Dialer

	mu    sync.Mutex // guards the fields below
	syns  map[sort]map[netip.AddrPort]int
	errs  map[sort][]error // of dials
	flows []*dialer.Conn
	ends  []keepalive.Ending
	open  int // side connections that the driver has not closed
	most  int // of them, at any time
}

// A sort of connection: one that the driver was asked for, or one of its own.
type sort bool

const (
	asked sort = true
	side  sort = false
)

// newWitness returns a witness behind the NAT of an App Service, which counts connections
// to loopback too.
func newWitness() *witness {
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	return newWitnessOf(path, new(net.Dialer).DialContext)
}

func newWitnessOf(path netpath.Profile, kernel drivers.Dial) *witness {
	w := &witness{syns: make(map[sort]map[netip.AddrPort]int), errs: make(map[sort][]error)}
	w.Dialer.Dialer = &dialer.Dialer{
		Ledger: &dialer.Ledger{Path: path, Ramp: -1},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			w.sends(sortOf(ctx), netip.MustParseAddrPort(address))
			return kernel(ctx, network, address)
		},
		Observe: w.observe,
	}
	return w
}

func (w *witness) sends(s sort, to netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.syns[s] == nil {
		w.syns[s] = make(map[netip.AddrPort]int)
	}
	w.syns[s][to]++
}

func (w *witness) observe(e dialer.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == dialer.Ended {
		w.ends = append(w.ends, e.Ending)
	}
}

// dial is what the driver is given.
func (w *witness) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := w.DialContext(ctx, network, address)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.errs[sortOf(ctx)] = append(w.errs[sortOf(ctx)], err)
		return nil, err
	}
	flow, _ := dialer.Unwrap(c)
	w.flows = append(w.flows, flow)
	if sortOf(ctx) == asked {
		return c, nil
	}
	w.open++
	w.most = max(w.most, w.open)
	return &counted{flow, w}, nil
}

// counted is a side connection.
type counted struct {
	*dialer.Conn
	by *witness
}

func (c *counted) NetConn() net.Conn { return c.Conn }

func (c *counted) Close() error {
	c.by.mu.Lock()
	c.by.open--
	c.by.mu.Unlock()
	return c.Conn.Close()
}

// A connector tells what it was asked for from what its driver does by itself. It does
// not let the Dialer know: that is what Marked and OpenDB are for.
type connector struct{ driver.Connector }

type askedKey struct{}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	return c.Connector.Connect(context.WithValue(ctx, askedKey{}, true))
}

func sortOf(ctx context.Context) sort { return ctx.Value(askedKey{}) != nil }

// sent is how many connects went to a place.
func (w *witness) sent(s sort, to netip.AddrPort) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.syns[s][to]
}

// refused returns the errors of dials.
func (w *witness) refused(s sort) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.errs[s])
}

// flow is the last one that was dialed.
func (w *witness) flow() *dialer.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flows[len(w.flows)-1]
}

// account is what is booked for a place.
func (w *witness) account(to netip.AddrPort) dialer.Account {
	for _, a := range w.Dialer.Dialer.Ledger.Accounts() {
		if a.Key.Dest == to {
			return a
		}
	}
	return dialer.Account{}
}

// cooling is how many of the account's ports are held by connections that have ended.
func cooling(a dialer.Account) (n int) {
	for _, ended := range a.Cooling {
		n += ended
	}
	return n
}

// A door is a way to a DB for a driver that dials by a Dialer.
type door struct {
	name string
	open func(c driver.Connector, d *sqlx.Dialer) *sql.DB
}

var (
	plain  = door{"plain", func(c driver.Connector, _ *sqlx.Dialer) *sql.DB { return sql.OpenDB(c) }}
	marked = door{"marked", func(c driver.Connector, _ *sqlx.Dialer) *sql.DB { return sql.OpenDB(sqlx.Marked(c)) }}
	ours   = door{"OpenDB", func(c driver.Connector, d *sqlx.Dialer) *sql.DB {
		return sqlx.OpenDB(c, sqlx.Config{Dialer: d})
	}}
	doors = []door{plain, marked, ours}
)

// start starts the server that a driver is for.
func start(t *testing.T, name string, config ...string) *servers.Server {
	if name == drivers.MySQL {
		return servers.MariaDB(t, config...)
	}
	return servers.Postgres(t, config...)
}

func login(addr string) drivers.Server {
	return drivers.Server{Addr: addr, User: servers.User, Password: servers.Password, Database: servers.Database}
}

// db returns a DB of a driver's that dials by w to an address, and is closed when the
// test ends.
func (w *witness) db(t *testing.T, name, addr string, by door) *sql.DB {
	t.Helper()
	c, err := drivers.Connector(name, login(addr), w.dial)
	if err != nil {
		t.Fatal(err)
	}
	db := by.open(connector{c}, &w.Dialer)
	t.Cleanup(func() { db.Close() })
	return db
}

func exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%q: %v", query, err)
	}
}

// A relay stands before a server, and ends connections in its name.
type relay struct {
	addr string
	to   string
	ln   net.Listener

	serving sync.WaitGroup
	mu      sync.Mutex // guards the field below
	conns   []*net.TCPConn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: ln.Addr().String(), to: to, ln: ln}
	r.serving.Go(r.serve)
	t.Cleanup(func() {
		ln.Close()
		r.endAll(finish)
		r.serving.Wait()
	})
	return r
}

func (r *relay) serve() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.to)
		if err != nil {
			c.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, c.(*net.TCPConn))
		r.mu.Unlock()
		r.serving.Go(func() { io.Copy(server, c); server.Close() })
		r.serving.Go(func() { io.Copy(c, server); c.Close() })
	}
}

// The ways in which a relay ends connections.
func finish(c *net.TCPConn) { c.Close() }
func reset(c *net.TCPConn)  { c.SetLinger(0); c.Close() }

// endAll ends all connections that there are.
func (r *relay) endAll(how func(*net.TCPConn)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		how(c)
	}
	r.conns = nil
}
