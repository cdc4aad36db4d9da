package sqlx

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
)

// A Dialer is what a database driver dials by. It tells the connections that the
// driver was asked for from those that it opens by itself: the cancel request of a
// PostgreSQL driver, which pgx sends whenever a connection breaks, is a new
// connection to where connections break. Such side connections have few ports, and
// none while the destination is in trouble.
//
// What was asked for is known by the context that Connector, Marked or Mark have
// marked. Until the first of those has come, a Dialer knows no difference.
//
// The zero Dialer is ready to use, may be used by many goroutines, and must not be
// copied. Set its fields before the first dial. It needs no Close; its connections do.
type Dialer struct {
	// Dialer books and watches the connections. Nil: the zero dialer.Dialer.
	Dialer *dialer.Dialer

	// Side is how many side connections there may be at a time; others wait for them, for
	// 5 s at most. Zero: 2. Negative: none; then a lib/pq that gives up a query returns
	// when the server has finished it.
	Side int

	marked atomic.Bool // a context was

	once   sync.Once
	places chan struct{} // of side connections: one is put in for each
}

// DefaultDialer is the Dialer of every Config that has none.
var DefaultDialer = new(Dialer)

const (
	defaultSide = 2

	// sideTimeout is how long a side connection may take to be there: what it is for
	// does not matter for longer.
	sideTimeout = 5 * time.Second
)

// ErrSide says that a connection which a driver wanted for itself was not dialed.
var ErrSide = errors.New("sqlx: no side connection")

// DialContext dials for a driver, as dialer.Dialer.DialContext does. The error is a
// *dialer.DialError; of a side connection that is not dialed it matches ErrSide.
//
// The connection is looked at before the first write after an answer. If it has ended,
// the error is a *net.OpError with no byte written, which drivers take for safe to try
// again.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if o, ok := ctx.Value(openingKey{}).(*opening); ok {
		d.marked.Store(true)
		return o.dial(ctx, d, network, address)
	}
	if !d.marked.Load() || network == "unix" {
		return watchful(d.base().DialContext(ctx, network, address))
	}
	return d.aside(ctx, network, address)
}

// Dial is DialContext without a context, and DialTimeout with a timeout, for lib/pq.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d *Dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d *Dialer) base() *dialer.Dialer { return cmp.Or(d.Dialer, &theZero) }

var theZero dialer.Dialer

// aside dials what nobody but the driver has asked for.
func (d *Dialer) aside(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(dialer.WithControl(ctx), sideTimeout)
	defer cancel()
	release, err := d.admit(ctx, network, address)
	if err != nil {
		return nil, &dialer.DialError{Network: network, Address: address, Err: fmt.Errorf("%w: %w", ErrSide, err)}
	}
	c, err := watchful(d.base().DialContext(ctx, network, address))
	if err != nil {
		release()
		return nil, err
	}
	side := &side{c, release}
	runtime.AddCleanup(side, func(release func()) { release() }, release) // for one that nobody closes
	return side, nil
}

// admit waits for a place of a side connection, unless there is trouble where it leads.
func (d *Dialer) admit(ctx context.Context, network, address string) (release func(), err error) {
	if d.Side < 0 {
		return nil, fmt.Errorf("Dialer.Side is %d", d.Side)
	}
	d.once.Do(func() { d.places = make(chan struct{}, cmp.Or(d.Side, defaultSide)) })
	if err := d.base().Trouble(ctx, network, address); err != nil {
		return nil, err
	}
	select {
	case d.places <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%d are there, and no place came free: %w (those that you ask for have a context of Marked or Mark)", cap(d.places), context.Cause(ctx))
	}
	release = sync.OnceFunc(func() { <-d.places })
	if err := d.base().Trouble(ctx, network, address); err != nil { // meanwhile
		release()
		return nil, err
	}
	return release, nil
}

// A side is a side connection, which gives its place back when it is closed.
type side struct {
	net.Conn
	release func()
}

func (s *side) Close() error {
	defer s.release()
	return s.Conn.Close()
}

func (s *side) NetConn() net.Conn { return s.Conn }

// A wary connection is looked at before a write that begins something new.
type wary struct {
	*dialer.Conn
	spoken atomic.Bool // something was written since something was read
}

// watchful makes a connection wary that a dialer.Dialer has dialed.
func watchful(c net.Conn, err error) (net.Conn, error) {
	if flow, ok := c.(*dialer.Conn); ok {
		return &wary{Conn: flow}, err
	}
	return c, err
}

func (w *wary) NetConn() net.Conn { return w.Conn }

func (w *wary) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 && w.spoken.Load() {
		w.spoken.Store(false)
	}
	return n, err
}

// Write looks first, for a microsecond, since a FIN would let the kernel take it all the
// same.
func (w *wary) Write(b []byte) (int, error) {
	if !w.spoken.Load() {
		if _, err := w.Peek(); err != nil {
			return 0, &net.OpError{Op: "write", Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: err}
		}
		w.spoken.Store(true)
	}
	return w.Conn.Write(b)
}

// Mark marks a context as that of a connection which was asked for, for drivers that
// dial by a Dialer and are not behind Connector or Marked: with pgxpool, have a
// pgx.ConnectTracer return it from TraceConnectStart.
func Mark(ctx context.Context) context.Context {
	return context.WithValue(ctx, openingKey{}, new(opening))
}

// Marked returns c with every Connect's context marked. It is for those who keep the
// pool of database/sql: the connections are the driver's own.
func Marked(c driver.Connector) driver.Connector { return marked{c} }

type marked struct{ driver.Connector }

func (m marked) Connect(ctx context.Context) (driver.Conn, error) {
	return m.Connector.Connect(Mark(ctx))
}

// Close closes the driver's Connector, if it can be closed.
func (m marked) Close() error { return closeConnector(m.Connector) }
