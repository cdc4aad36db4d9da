package sqlx

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/pool"
)

// Stats is what a Connector knows of its connections at one moment. It is a copy.
//
// OpenTelemetry calls these figures db.client.connection.count (state idle: Idle; used:
// InUse), idle.max and max (Max), idle.min (MinIdle), pending_requests (Waiting),
// timeouts (Timeouts), create_time (CreateTime of Opened), wait_time (WaitTime of Waited)
// and use_time (UseTime of Used).
type Stats struct {
	pool.Stats

	Max     int // Config.Max; zero: as many as there are ports for
	MinIdle int

	Timeouts   uint64        // operations whose time was over before they had a connection
	CreateTime time.Duration // of all connections that were opened
	Used       uint64        // times that a connection was given back
	UseTime    time.Duration // of all those
}

// Stats returns the figures now.
func (n *Connector) Stats() Stats {
	return Stats{
		Stats: n.pool.Stats(), Max: n.cfg.Max, MinIdle: n.cfg.MinIdle,
		Timeouts:   n.uses.timeouts.Load(),
		CreateTime: time.Duration(n.uses.createTime.Load()),
		Used:       n.uses.used.Load(),
		UseTime:    time.Duration(n.uses.useTime.Load()),
	}
}

// uses are what pool.Stats does not count.
type uses struct {
	timeouts, used      atomic.Uint64
	createTime, useTime atomic.Int64
}

// clock is half the price of time.Now, which reads two clocks.
func (n *Connector) clock() time.Duration { return time.Since(n.epoch) }

func (n *Connector) used(took time.Duration) {
	n.uses.used.Add(1)
	n.uses.useTime.Add(int64(took))
	n.database().Used(context.Background(), took)
}

func (n *Connector) observe(e pool.Event) {
	switch e.Kind {
	case pool.Opened:
		n.uses.createTime.Add(int64(e.Took))
		n.database().Created(context.Background(), e.Took)
	case pool.Waited:
		n.tellWait(e)
	case pool.Beaten:
		if address := n.address(); address != "" {
			n.scope().Name(address).Beaten(e.Err)
		}
	case pool.Leaked:
		n.scope().Warn("leak", n.name(), "a connection was not given back for long", "pool", n.name(), "took", e.Place, "for", e.Took)
	}
	if n.cfg.Observe != nil {
		n.cfg.Observe(e)
	}
}
