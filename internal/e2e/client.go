package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

// Whose pool a client has.
const (
	ours    = "ours"
	plain   = "database/sql"
	pgxPool = "pgxpool"
)

// A client is a pool of one driver's connections, with a destination of its own.
type client struct {
	who, driver string
	at          netip.AddrPort // the destination
	db          *sql.DB        // nil: it is a pgxpool
	pool        *pgxpool.Pool

	mu    sync.Mutex // guards flows
	flows []*net.TCPConn
}

// Terms are what a client is made with.
type terms struct {
	who, driver string
	address     int // which of the lab's
	conns       int // at most

	// Ours.
	path   netpath.Profile
	plan   keepalive.Plan
	config sqlx.Config

	// The peers'. Zero fields are Go's defaults, if it is enabled.
	keepAlive   net.KeepAliveConfig
	userTimeout time.Duration // zero: none
}

// goes is what a net.Dialer does without any settings: probes after 15 s.
var goes = net.KeepAliveConfig{Enable: true}

// join makes a client and adds it to the stage.
func (st *stage) join(t terms) (*client, error) {
	s := st.server(t.driver, t.address)
	c := &client{who: t.who, driver: t.driver, at: netip.MustParseAddrPort(s.Addr)}
	if err := st.Count(c.at); err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := st.Lab.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.remember(raw.(*net.TCPConn))
		return raw, nil
	}
	if err := c.open(s, t, dial); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", t.who, t.driver, err)
	}
	st.clients = append(st.clients, c)
	return c, nil
}

// open makes what the client has of connections.
func (c *client) open(s drivers.Server, t terms, dial drivers.Dial) error {
	if t.who == ours {
		d := &sqlx.Dialer{Dialer: &dialer.Dialer{Ledger: &dialer.Ledger{Path: t.path, Ramp: -1}, Plan: t.plan, Dial: dial}}
		inner, err := drivers.Connector(t.driver, s, d.DialContext)
		if err != nil {
			return err
		}
		t.config.Dialer, t.config.Max = d, t.conns
		c.db = sqlx.OpenDB(inner, t.config)
		return nil
	}
	probing := func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return raw, t.tune(raw.(*net.TCPConn))
	}
	if t.who == pgxPool {
		return c.openPool(s, t.conns, probing)
	}
	inner, err := drivers.Connector(t.driver, s, probing)
	if err != nil {
		return err
	}
	c.db = sql.OpenDB(inner)
	c.db.SetMaxOpenConns(t.conns)
	c.db.SetMaxIdleConns(t.conns)
	return nil
}

// tune is what a peer's dialer does. The lab has switched the probes off.
func (t terms) tune(c *net.TCPConn) error {
	if t.userTimeout > 0 {
		if err := (keepalive.Plan{Idle: -1, UserTimeout: t.userTimeout}).Apply(c); err != nil {
			return err
		}
	}
	if t.keepAlive.Enable {
		return c.SetKeepAliveConfig(t.keepAlive)
	}
	return nil
}

func (c *client) openPool(s drivers.Server, conns int, dial drivers.Dial) error {
	conn, err := drivers.PGXConfig(s, dial)
	if err != nil {
		return err
	}
	cfg, err := pgxpool.ParseConfig("")
	if err != nil {
		return err
	}
	cfg.ConnConfig, cfg.MaxConns = conn, int32(conns)
	c.pool, err = pgxpool.NewWithConfig(context.Background(), cfg)
	return err
}

// close closes the pool, and cuts what a driver is still busy with. That a peer's Close
// meets connections which have ended is no error.
func (c *client) close() (err error) {
	switch {
	case c.who == ours:
		err = c.db.Close()
	case c.db != nil:
		c.db.Close()
	default:
		c.pool.Close()
	}
	for _, flow := range c.connections() {
		flow.Close()
	}
	return err
}

// grace is for how long a context may have ended before who has it.
const grace = time.Second

// errDeaf says that a context's end has changed nothing: lib/pq waits for an answer for as
// long as its connection lives.
var errDeaf = errors.New("it went on after its context's end")

// heeding returns what f does, or errDeaf.
func heeding(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(ctx) }() // until client.close at the latest
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return errDeaf
	}
}

// fill opens as many connections as there may be: each is held until all are there.
func (c *client) fill(ctx context.Context, conns int) error {
	errs := make(chan error, conns)
	var there, all sync.WaitGroup
	there.Add(conns)
	for range conns {
		all.Go(func() {
			release, err := c.acquire(ctx)
			there.Done()
			there.Wait()
			if err == nil {
				release()
			}
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fmt.Errorf("%s, %s: not all of %d connections: %w", c.who, c.driver, conns, err)
		}
	}
	return nil
}

func (c *client) acquire(ctx context.Context) (release func(), err error) {
	if c.db == nil {
		conn, err := c.pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		return conn.Release, nil
	}
	conn, err := c.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return func() { conn.Close() }, nil
}

// ask has the server take some time and answer.
func (c *client) ask(ctx context.Context, takes time.Duration) error {
	query := sleeping("SELECT 1", c.driver, takes)
	return heeding(ctx, func(ctx context.Context) (err error) {
		var answer int
		if c.db != nil {
			err = c.db.QueryRowContext(ctx, query).Scan(&answer)
		} else {
			err = c.pool.QueryRow(ctx, query).Scan(&answer)
		}
		if err == nil && answer != 1 {
			err = fmt.Errorf("the answer is %d", answer)
		}
		return err
	})
}

// sleeping returns a statement that ends with the SELECT of a number, so that it takes the
// server some time.
func sleeping(selects, driver string, takes time.Duration) string {
	if driver == drivers.MySQL {
		return fmt.Sprintf("%s + 0 * SLEEP(%.3f)", selects, takes.Seconds())
	}
	return fmt.Sprintf("%s FROM pg_sleep(%.3f)", selects, takes.Seconds())
}

func (c *client) remember(flow *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows = append(slices.DeleteFunc(c.flows, closed), flow)
}

// connections are those that the client has not closed.
func (c *client) connections() []*net.TCPConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows = slices.DeleteFunc(c.flows, closed)
	return slices.Clone(c.flows)
}

// closed reports whether the client has closed c.
func closed(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	return err != nil || errors.Is(raw.Control(func(uintptr) {}), net.ErrClosed)
}

// opened is how many flows to the client's destination have begun, says the gateway.
func (st *stage) opened(c *client) (int, error) {
	counts, err := st.Counts()
	return counts.By[c.at].Admitted, err
}
