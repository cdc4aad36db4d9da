package sqlx

import (
	"cmp"

	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/pool"
)

func (n *Connector) scope() *telemetry.Scope { return n.dialer.base().Telemetry() }

// name is what telemetry calls the pool: without a Name where its first connection led, for
// ever. "": there was none yet.
func (n *Connector) name() string { return cmp.Or(n.cfg.Name, n.first()) }

func (n *Connector) first() string {
	if first := n.named.Load(); first != nil {
		return *first
	}
	last := n.last.Load()
	if last == nil {
		return ""
	}
	n.named.CompareAndSwap(nil, &last.address)
	return *n.named.Load()
}

func (n *Connector) address() string {
	if last := n.last.Load(); last != nil {
		return last.address
	}
	return ""
}

// database records what the conventions want of the pool.
func (n *Connector) database() *telemetry.Database {
	if d := n.told.Load(); d != nil {
		return d
	}
	name := n.name()
	d := n.scope().Database(name)
	if name != "" {
		n.told.Store(d)
	}
	return d
}

// tell returns what those who look at the ledger are told of the pool. It reports whether
// there may be something to tell later.
func (n *Connector) tell() (pools []telemetry.Pool, alive bool) {
	is := n.Stats()
	return []telemetry.Pool{{
		Kind: "sql", Name: n.name(), Address: n.address(),
		Idle: is.Idle, Active: is.InUse, Requests: is.InUse, Waiting: is.Waiting, OldestWait: is.OldestWait,
		DB: &telemetry.DB{Max: is.Max, MinIdle: is.MinIdle, Timeouts: is.Timeouts},
	}}, !n.closed.Load()
}

// tellWait tells of an operation that waited for a connection.
func (n *Connector) tellWait(e pool.Event) {
	n.database().Waited(e.Context, e.Took)
	if address := n.address(); address != "" {
		n.scope().Name(address).Waited(e.Context, e.Took, e.Err)
	}
	n.scope().Wait(e.Context, "DB", n.name(), e.Ahead, e.Took, e.Err)
	n.dialer.base().Refused(n.name(), e.Err)
}
