package sqlx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A Connector is a driver.Connector whose connections come from a pool of its own, and
// go back there when database/sql closes them. NewConnector makes one. It may be used
// by many goroutines. Close closes it; a DB does so.
type Connector struct {
	inner   driver.Connector
	cfg     Config
	dialer  *Dialer
	pool    *pool.Pool[*conn]
	watcher keepalive.Watcher
	last    atomic.Pointer[target] // what was dialed last with success
	misses  atomic.Int64           // heartbeats that got no answer, since one has
	uses    uses
	shaken  atomic.Bool   // a connection was lost, and none was opened since
	trial   chan struct{} // has room for one opening, while shaken
	epoch   time.Time     // clock counts from here
	joined  sync.Once     // those of whom the ledger tells
	told    atomic.Pointer[telemetry.Database]
	named   atomic.Pointer[string] // where the first connection led
	closed  atomic.Bool
}

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// OpenDB returns a DB on a Connector for c. It connects to nothing before it is used.
// The limits of its own pool (SetMaxOpenConns and the like) are to be left alone:
// Config has them. It panics if cfg.Validate finds something wrong.
func OpenDB(c driver.Connector, cfg Config) *sql.DB { return NewConnector(c, cfg).OpenDB() }

// NewConnector returns a Connector for c, for those who want its Stats. It panics if
// cfg.Validate finds something wrong.
func NewConnector(c driver.Connector, cfg Config) *Connector {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	n := &Connector{inner: c, cfg: cfg, dialer: cfg.Dialer, trial: make(chan struct{}, 1), epoch: time.Now()}
	if n.dialer == nil {
		n.dialer = DefaultDialer
	}
	n.pool = pool.New(n.config())
	return n
}

// OpenDB returns a DB on the Connector, which the DB's Close closes.
func (n *Connector) OpenDB() *sql.DB {
	db := sql.OpenDB(n)
	db.SetMaxIdleConns(-1) // they are idle with us
	return db
}

// config is that of the pool.
func (n *Connector) config() pool.Config[*conn] {
	base := n.dialer.base()
	cfg := pool.Config[*conn]{
		Ask:          n.ask,
		Obstacle:     func() error { return base.Obstacle(n) },
		Close:        (*conn).end,
		Watch:        n.watch,
		Max:          n.cfg.Max,
		MinIdle:      n.cfg.MinIdle,
		MaxIdle:      n.cfg.MaxIdle,
		MaxLife:      or(n.cfg.MaxLife, defaultMaxLife),
		MaxWait:      or(n.cfg.MaxWait, defaultMaxWait),
		OpenTimeout:  n.cfg.OpenTimeout,
		ProbeTimeout: pingTimeout,
		Patience:     n.cfg.Patience,
		LeakAfter:    n.cfg.LeakAfter,
		Observe:      n.observe,
	}
	every := n.cfg.heartbeat(base.Path())
	if cfg.Beat, cfg.BeatEvery = n.beat, every; every == 0 {
		cfg.BeatEvery = never // only those that are doubted are asked
	}
	if !n.cfg.Unbooked {
		cfg.MaxIdle = base.MaxIdleBeaten(cfg.MaxIdle, every)
	}
	return cfg
}

// Connect returns a connection that is in order as far as can be seen: an idle one, or
// whatever comes first after those who have waited longer. The error is that of
// pool.Pool.Get, or why the driver could not connect; it never matches
// driver.ErrBadConn, and nothing of the caller's was sent.
func (n *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	for {
		l, err := n.pool.Get(ctx)
		if err != nil {
			if errors.Is(err, pool.ErrWait) {
				n.uses.timeouts.Add(1)
			}
			return nil, err
		}
		if c, err := n.lend(ctx, l); err == nil {
			return c, nil
		}
	}
}

// lend begins a lease. One that the driver calls bad is closed before another comes, as
// database/sql does it; nobody waits for the Close of one that has ended.
func (n *Connector) lend(ctx context.Context, l pool.Lease[*conn]) (driver.Conn, error) {
	c, err := l.Value(), errPanicked
	defer func() {
		switch {
		case err == nil:
		case errors.Is(err, driver.ErrBadConn):
			n.shake(err)
			l.Discard(err)
		default:
			n.shake(err)
			go l.Discard(err)
		}
	}()
	if err = c.lend(ctx, l); err != nil {
		return nil, err
	}
	return c.seenBySQL(), nil
}

// Driver returns the driver itself: what is above looks there for its dialect.
func (n *Connector) Driver() driver.Driver { return n.inner.Driver() }

// Close closes the connections: the idle ones now, the others when they are given
// back, for which it waits as Config.Drain says; and then the driver's Connector.
func (n *Connector) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), or(n.cfg.Drain, defaultDrain))
	defer cancel()
	err := n.pool.Close(ctx)
	n.closed.Store(err == nil)
	if n.cfg.Drain < 0 {
		err = nil
	}
	return errors.Join(err, closeConnector(n.inner))
}

func closeConnector(c driver.Connector) error {
	if closer, ok := c.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// Reset closes all connections: the idle ones now, the others when they are given back.
// It is for a server that is known to have gone. Those who wait get an error that
// matches pool.ErrReset and cause.
func (n *Connector) Reset(cause error) { n.pool.Reset(cause) }

// Reclaim closes the connection that was idle for longest, for somebody who needs its
// port. It reports false if there is none.
func (n *Connector) Reclaim() bool { return n.pool.Reclaim() }

// A permit is the permission to open one connection, with a port for it if it is known
// where the driver dials.
type permit struct {
	of       *Connector
	trial    bool // none else is opened meanwhile
	setup    *telemetry.Setup
	reserved *dialer.Reservation
	where    target
}

// ask waits until one more connection may be opened: for the one that shows that the
// server is still there, where others were lost, and for a port.
func (n *Connector) ask(ctx context.Context) (pool.Permit[*conn], error) {
	n.joined.Do(func() { telemetry.Join(n.scope(), n, (*Connector).tell) })
	p := permit{of: n, setup: n.scope().Setup(ctx, "DB", n.name())}
	if p.trial = n.shaken.Load(); p.trial {
		select {
		case n.trial <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err := p.reserve(p.setup.With(ctx)); err != nil {
		if ctx.Err() == nil { // else nobody needs it any more
			p.setup.End(err)
		}
		p.Release()
		return nil, err
	}
	return p, nil
}

// reserve waits for a port to where the driver has dialed last. Where that fails, the
// driver may know another host.
func (p *permit) reserve(ctx context.Context) error {
	n := p.of
	last := n.last.Load()
	if last == nil || p.trial { // the driver may find the server elsewhere by now
		return nil
	}
	base := n.dialer.base()
	if base.Trouble(ctx, last.network, last.address) != nil {
		return nil
	}
	r, err := base.Reserve(dialer.WithOwner(dialer.WithoutMaxWait(ctx), n), last.network, last.address)
	switch {
	case err == nil:
		p.reserved, p.where = r, *last
	case ctx.Err() != nil || errors.Is(err, dialer.ErrBudget):
		return err
	}
	return nil
}

// Release gives up the port.
func (p permit) Release() {
	if p.reserved != nil {
		p.reserved.Release()
	}
	p.over()
}

func (p permit) over() {
	if p.trial {
		<-p.of.trial
	}
}

// Open has the driver connect.
func (p permit) Open(ctx context.Context) (c *conn, err error) {
	defer func() {
		p.setup.Named(p.of.name())
		p.setup.End(err)
	}()
	over := sync.OnceFunc(p.over)
	defer over()
	o := &opening{of: p.of, setup: p.setup, reserved: p.reserved, where: p.where}
	stop := context.AfterFunc(ctx, func() { // the driver may not look at ctx
		o.abort()
		over()
	})
	inner, err := p.of.connect(context.WithValue(ctx, openingKey{}, o))
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	w := o.end(err == nil)
	switch {
	case err == nil && w == nil && !p.of.cfg.Unbooked:
		err = errUnbooked
	case err == nil:
		c = newConn(p.of, inner, w)
		err = c.park()
	}
	if err != nil {
		if w != nil {
			w.Close()
		}
		if inner != nil {
			guarded("Close", inner.Close)
		}
		return nil, err
	}
	if w != nil && w.flow != nil {
		to := w.to // without the rest
		p.of.last.Store(&to)
	}
	p.of.shaken.Store(false)
	return c, nil
}

// connect is the driver's Connect.
func (n *Connector) connect(ctx context.Context) (c driver.Conn, err error) {
	err = guarded("Connect", func() (err error) {
		c, err = n.inner.Connect(ctx)
		return err
	})
	switch {
	case errors.Is(err, driver.ErrBadConn):
		err = &connectError{err}
	case err == nil && c == nil:
		err = errors.New("sqlx: the driver's Connect returned neither a connection nor an error")
	}
	return c, err
}

// guarded calls the driver in a goroutine of ours, where a panic would end the process.
func guarded(op string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w in %s: %v\n%s", errPanicked, op, v, debug.Stack())
		}
	}()
	return f()
}

// watch tells of an idle connection that has ended.
func (n *Connector) watch(c *conn, ended func(error)) {
	if c.wire == nil || c.wire.flow == nil {
		return
	}
	n.watcher.Watch(c.wire.Conn, func() {
		err := c.ended()
		n.shake(err)
		ended(err)
	})
}

// shake notes that an idle connection was lost, unless it was given up for another
// reason: from then on one is opened before the others.
func (n *Connector) shake(err error) {
	if err != nil && !errors.Is(err, keepalive.ErrRetired) && !errors.Is(err, keepalive.ErrStale) {
		n.shaken.Store(true)
	}
}

// purgeAfter is how many heartbeats in a row go without answer before all connections
// that have proved nothing since the first of them are closed.
const purgeAfter = 2

// beat asks an idle connection whether its server is there.
func (n *Connector) beat(ctx context.Context, c *conn) error {
	begun := time.Now()
	err := c.beat(ctx)
	switch {
	case err == nil:
		n.misses.Store(0)
	case ctx.Err() == context.DeadlineExceeded && n.misses.Add(1) >= purgeAfter:
		n.pool.Retire(err, func(c *conn) bool { return c.wire != nil && c.wire.silentSince(begun) })
	}
	return err
}
