package sqlx

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
)

// An opening is one Connect of a driver's, which may dial several times: to each
// address of a name, or first with TLS and then without.
type opening struct {
	of    *Connector // nil: Mark's
	setup *telemetry.Setup

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
		return watchful(d.base().DialContext(ctx, network, address))
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
		c, _ = watchful(flow, nil)
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
	return d.DialContext(o.setup.With(dialer.WithOwner(ctx, o.of)), to.network, to.address)
}

// end ends the opening, and closes what the driver has dialed and does not use: lib/pq
// leaves a connection open on which the server did not want TLS. It returns what the
// driver uses, nil if there is none: of those that are open, the last one on which it
// has said something.
func (o *opening) end(good bool) (used *wire) {
	o.mu.Lock()
	o.over = true
	reserved, dialed := o.reserved, o.dialed
	o.reserved, o.dialed = nil, nil
	o.mu.Unlock()
	if reserved != nil {
		reserved.Release()
	}
	for _, w := range dialed {
		if good && !w.Closed() && (used == nil || w.BytesWritten() > 0) {
			used = w
		}
	}
	for _, w := range dialed {
		if w != used {
			w.Close()
		}
	}
	return used
}

// abort closes what was dialed so far: the driver has taken too long.
func (o *opening) abort() {
	o.mu.Lock()
	dialed := slices.Clone(o.dialed)
	o.mu.Unlock()
	for _, w := range dialed {
		w.Close()
	}
}
