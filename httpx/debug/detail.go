package debug

import (
	"cmp"
	"slices"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A detail is what there is to say of one destination.
type detail struct {
	At int64 `json:"at_ms"`
	row
	Shared      []shared          `json:"shared"` // by engine; empty: the budget is this process's own
	Connections []connection      `json:"connections"`
	More        int               `json:"more_connections"`
	Closed      map[string]uint64 `json:"closed"`  // since the first, by reason
	History     history           `json:"history"` // empty beyond the 32 fullest destinations
}

// A connection is one flow and what is known of it.
type connection struct {
	Local     string   `json:"local"` // empty until it is connected
	Remote    string   `json:"remote"`
	Name      string   `json:"name"`
	State     string   `json:"state"`
	Ending    string   `json:"ending,omitempty"`       // of one that cools
	Free      *seconds `json:"free_seconds,omitempty"` // until it has cooled
	Age       *seconds `json:"age_seconds"`
	LastProof *seconds `json:"last_proof_seconds"` // since the far end has sent something
	RTT       *seconds `json:"rtt_seconds"`
	Unacked   *int     `json:"unacked_bytes"`
	Serves    int      `json:"in_flight"` // requests
	Uses      uint64   `json:"uses"`
	Trace     string   `json:"trace_id,omitempty"` // in which it was opened
}

const mostConnections = 256 // of a detail

// detail tells of a destination, as the list has it; nil: nothing is booked there.
func (p *Page) detail(s *sight, destination string) *detail {
	at := slices.IndexFunc(s.state.Destinations, func(r row) bool { return r.Destination == destination })
	if at < 0 {
		return nil
	}
	d := &detail{At: s.state.At, row: s.state.Destinations[at], Shared: s.sharedOf(s.state.Destinations[at].key), Connections: []connection{}, Closed: make(map[string]uint64)}
	flows := s.flowsOf(d.key)
	slices.SortFunc(flows, lasting)
	d.More = max(0, len(flows)-mostConnections)
	for _, f := range flows[:len(flows)-d.More] {
		d.Connections = append(d.Connections, connectionOf(f))
	}
	for at, c := range s.counts {
		if at == d.key.Dest || !d.key.Dest.IsValid() {
			for reason, n := range c.Closed {
				d.Closed[reason] += n
			}
		}
	}
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	if of := p.recorder.record.by[d.key]; of != nil {
		d.History = of.since(s.at.Add(-kept).UnixMilli())
	}
	return d
}

// sharedOf is how an account is shared.
func (s *sight) sharedOf(k netpath.Key) []shared {
	at := slices.IndexFunc(s.accounts, func(a dialer.Account) bool { return a.Key == k })
	return sharedOf(s.accounts[at].Shared)
}

// flowsOf returns the flows of an account.
func (s *sight) flowsOf(k netpath.Key) (flows []dialer.Flow) {
	for _, f := range s.flows {
		switch {
		case k.Dest.IsValid() && f.Remote != k.Dest:
		case k.Source.IsValid() && f.Local.Addr().Unmap() != k.Source:
		case k.Scope() == netpath.Sockets && f.State == dialer.Cooling:
		default:
			flows = append(flows, f)
		}
	}
	return flows
}

// lasting puts what lives first, the oldest before the others: in this order a connection keeps
// its place while it is lent and parked. What cools comes last, what is free first before the
// others.
func lasting(a, b dialer.Flow) int {
	rank := map[dialer.State]int{dialer.Dialing: 1, dialer.Asked: 1, dialer.Closing: 2, dialer.Cooling: 3}
	return cmp.Or(cmp.Compare(rank[a.State], rank[b.State]), cmp.Compare(a.Free, b.Free), cmp.Compare(b.Age, a.Age), a.Local.Compare(b.Local))
}

// connectionOf asks the kernel, which takes a microsecond.
func connectionOf(f dialer.Flow) connection {
	c := connection{Remote: f.Remote.String(), Name: f.Host, State: f.State.String(), Serves: f.Serves, Uses: f.Uses, Trace: f.Trace}
	if f.Local.IsValid() {
		c.Local = f.Local.String()
	}
	switch f.State {
	case dialer.Cooling:
		c.Ending, c.Free = f.How.String(), some(f.Free)
		return c
	case dialer.Asked, dialer.Dialing:
		return c
	}
	c.Age = some(f.Age)
	if i, err := f.Info(); err == nil {
		c.LastProof, c.Unacked = some(i.LastProof), &i.Unacked
		if i.RTT > 0 {
			c.RTT = some(i.RTT)
		}
	}
	return c
}
