package conns

import (
	"context"
	"sync"

	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/pool"
)

// tell returns what those who look at the ledger are told of the pools. It reports whether
// there may be something to tell later.
func (p *Pool) tell() (pools []telemetry.Pool, alive bool) {
	for k, q := range p.group.Pools() {
		is := q.Stats()
		pools = append(pools, telemetry.Pool{
			Kind: "conns", Name: k.network + "://" + k.address, Address: k.address,
			Idle: is.Idle, Active: is.InUse, Requests: is.InUse, Waiting: is.Waiting, OldestWait: is.OldestWait,
		})
	}
	return pools, !p.closed.Load()
}

// observer tells of those that waited for a connection to k, and of what is out for long.
func (p *Pool) observer(k key) func(pool.Event) {
	name := sync.OnceValue(func() *telemetry.Name { return p.dialer.Telemetry().Name(k.address) })
	return func(e pool.Event) {
		switch e.Kind {
		case pool.Waited:
			name().Waited(e.Context, e.Took, e.Err)
			p.dialer.Telemetry().Wait(e.Context, "", k.address, e.Ahead, e.Took, e.Err)
			p.dialer.Refused(k.address, e.Err)
		case pool.Beaten:
			if p.cfg.Beat != nil { // else it was only looked at
				name().Beaten(e.Err)
			}
		case pool.Leaked:
			p.dialer.Telemetry().Warn("leak", k.address, "a connection was not put back for long", "address", k.address, "took", e.Place, "for", e.Took)
		}
		if p.cfg.Observe != nil {
			p.cfg.Observe(k.address, e)
		}
	}
}

// lent begins a lease of c for ctx.
func (c *conn) lent(ctx context.Context, l pool.Lease[*conn]) *Conn {
	c.flow.Serve(ctx, c.since)
	return &Conn{conn: c, lease: l}
}
