package sqlx

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
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

	// Side is how many side connections there may be at a time. Zero: 2.
	// Negative: none.
	Side int

	marked atomic.Bool // a context was

	mu      sync.Mutex                  // guards the fields below
	dialing int                         // side connections
	open    []weak.Pointer[dialer.Conn] // side connections, some of them closed by now
}

// DefaultDialer is the Dialer of every Config that has none.
var DefaultDialer = new(Dialer)

const (
	defaultSide = 2

	// sideTimeout is what a side connection has to be dialed in: what it is for does
	// not matter for longer.
	sideTimeout = 5 * time.Second
)

// ErrSide says that a connection which a driver wanted for itself was not dialed.
var ErrSide = errors.New("sqlx: no side connection")

// DialContext dials for a driver, as dialer.Dialer.DialContext does. The error is a
// *dialer.DialError; of a side connection that is not dialed it matches ErrSide.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if o, ok := ctx.Value(openingKey{}).(*opening); ok {
		d.marked.Store(true)
		return o.dial(ctx, d, network, address)
	}
	if !d.marked.Load() || network == "unix" {
		return d.base().DialContext(ctx, network, address)
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
func (d *Dialer) aside(ctx context.Context, network, address string) (c net.Conn, err error) {
	refused := func(why error) error {
		return &dialer.DialError{Network: network, Address: address, Err: fmt.Errorf("%w: %w", ErrSide, why)}
	}
	if err := d.admit(); err != nil {
		return nil, refused(err)
	}
	defer func() { d.admitted(c) }()
	ctx, cancel := context.WithTimeout(dialer.WithControl(ctx), sideTimeout)
	defer cancel()
	if err := d.base().Trouble(ctx, network, address); err != nil {
		return nil, refused(err)
	}
	return d.base().DialContext(ctx, network, address)
}

// admit lets one more side connection be dialed.
func (d *Dialer) admit() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.open[:0]
	for _, w := range d.open {
		if c := w.Value(); c != nil && !c.Closed() {
			kept = append(kept, w)
		}
	}
	d.open = kept
	if n, most := len(d.open)+d.dialing, cmp.Or(d.Side, defaultSide); n >= most {
		return fmt.Errorf("there are %d, and %d may be (Dialer.Side)", n, max(0, most))
	}
	d.dialing++
	return nil
}

// admitted counts a side connection until it is closed, if there is one.
func (d *Dialer) admitted(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialing--
	if c == nil {
		return
	}
	if flow, ok := dialer.Unwrap(c); ok {
		d.open = append(d.open, weak.Make(flow))
	}
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

// An opening is one Connect of a driver's, which may dial several times: to each
// address of a name, or first with TLS and then without.
type opening struct {
	of *Connector // nil: Mark's

	mu       sync.Mutex          // guards the fields below
	reserved *dialer.Reservation // for where; nil: none, or it is used
	where    target
	dialed   []*wire
	over     bool
}

type openingKey struct{}

// A wire is what a driver's connection leads over.
type wire struct {
	*keepalive.Conn
	flow *dialer.Conn // nil: a unix socket, which nobody books
	to   target
}

// A target is what a driver has dialed.
type target struct{ network, address string }

// dial is DialContext for a Connect.
func (o *opening) dial(ctx context.Context, d *Dialer, network, address string) (net.Conn, error) {
	if o.of == nil {
		return d.base().DialContext(ctx, network, address)
	}
	if d != o.of.dialer {
		return nil, errOtherDialer
	}
	c, err := o.connect(ctx, d.base(), target{network, address})
	if err != nil {
		return nil, err
	}
	w := &wire{to: target{network, address}}
	if flow, ok := dialer.Unwrap(c); ok {
		w.Conn, w.flow = flow.Conn, flow
	} else {
		w.Conn = keepalive.Watch(c, keepalive.Plan{}, func(keepalive.Ending) {}) // it counts bytes
		c = w.Conn
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.dialed = append(o.dialed, w)
	}
	return c, nil
}

var errOtherDialer = errors.New("sqlx: the driver dials by another Dialer than Config.Dialer")

// connect dials by the port that was reserved, if it is for there.
func (o *opening) connect(ctx context.Context, d *dialer.Dialer, to target) (net.Conn, error) {
	o.mu.Lock()
	r := o.reserved
	if r != nil && o.where == to {
		o.reserved = nil
	} else {
		r = nil
	}
	o.mu.Unlock()
	if r != nil {
		return r.Dial(ctx)
	}
	return d.DialContext(dialer.WithOwner(ctx, o.of), to.network, to.address)
}

// end ends the opening, and closes what the driver has dialed and does not use: lib/pq
// leaves a connection open on which the server did not want TLS. It returns what the
// driver uses, nil if there is none: of those that are open, the last one on which it
// has said something.
func (o *opening) end(good bool) (used *wire) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	if o.reserved != nil {
		o.reserved.Release()
		o.reserved = nil
	}
	for _, w := range o.dialed {
		if good && !w.Closed() && (used == nil || w.BytesWritten() > 0) {
			used = w
		}
	}
	for _, w := range o.dialed {
		if w != used {
			w.Close()
		}
	}
	o.dialed = nil
	return used
}

// abort closes what was dialed so far: the driver has taken too long.
func (o *opening) abort() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.dialed {
		w.Close()
	}
}
