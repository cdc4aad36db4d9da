package httpx

import (
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/pool"
)

// tell returns what those who look at the ledger are told of the pools. It reports whether
// there may be something to tell later.
func (s *stock) tell() (pools []telemetry.Pool, alive bool) {
	for r, p := range s.group.Pools() {
		is := p.Stats()
		pools = append(pools, telemetry.Pool{
			Kind: "http", Name: r.String(), Address: r.leads(), Scheme: r.scheme,
			Idle: is.Idle, Active: is.Size - is.Idle - is.Asking - is.Connecting - is.Closing,
			Requests: is.InUse, Waiting: is.Waiting, OldestWait: is.OldestWait,
		})
	}
	return pools, !s.closed.Load()
}

// String names the route without what may be secret in it.
func (r route) String() string {
	switch {
	case r.proxy == "":
		return r.scheme + "://" + r.host
	case r.host == "":
		return r.scheme + "://*, by " + r.leads()
	}
	return r.scheme + "://" + r.host + ", by " + r.leads()
}

// leads is where connections on r go, as host:port; "" if nobody can say.
func (r route) leads() string {
	address, _ := r.dials()
	return address
}

// observe tells of those that waited, and how old connections became.
func (w *way) observe(e pool.Event) {
	switch e.Kind {
	case pool.Waited:
		w.name.Waited(e.Context, e.Took, e.Err)
		w.stock.scope.Wait(e.Context, "HTTP", w.leads(), e.Ahead, e.Took, e.Err)
		w.stock.dialer.Refused(w.leads(), e.Err)
	case pool.Closed:
		w.name.Aged(w.scheme, e.Took)
	}
}
