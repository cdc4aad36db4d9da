package main

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

// An end is when a port comes free, as each of the two foretold it in the last
// sample in which it knew the flow.
type end struct {
	gateway, ledger time.Time
	how             keepalive.How
	unsure          bool // the ledger holds the port for longer than such an ending costs
}

// sure is the longest that the ledger holds a port after an ending of which it
// knows that the gateway has seen it, with some leeway for its margin.
func sure(how keepalive.How) time.Duration {
	hold := work.Path().Hold
	d := hold.FIN
	switch how {
	case keepalive.RSTByUs, keepalive.RSTByPeer, keepalive.Refused:
		d = hold.RST
	case keepalive.Unanswered:
		d = hold.SYN
	}
	return d + 100*time.Millisecond
}

// A follower follows flows until their ports are free.
type follower struct{ ends map[pair]*end }

func newFollower() *follower { return &follower{make(map[pair]*end)} }

func (w *follower) end(p pair) *end {
	e := w.ends[p]
	if e == nil {
		e = new(end)
		w.ends[p] = e
	}
	return e
}

func (w *follower) add(s sample) {
	for _, g := range s.gateway {
		w.end(pair{g.Source, g.Dest}).gateway = s.gatewayAt.Add(g.Left)
	}
	for _, f := range s.ledger {
		if f.State == dialer.Cooling {
			e := w.end(pair{f.Local, f.Remote})
			e.ledger, e.how = s.ledgerAt.Add(f.Free), f.How
			e.unsure = e.unsure || f.Free > sure(f.How)
		}
	}
}

// nameFailed gives failed dials, of which the ledger does not know the local
// address, that of the gateway's one flow to the same destination, where there
// is no other.
func (w *follower) nameFailed() {
	flows := make(map[netip.AddrPort][]*end)
	for p, e := range w.ends {
		if p.local.IsValid() {
			flows[p.remote] = append(flows[p.remote], e)
		}
	}
	for p, e := range w.ends {
		if to := flows[p.remote]; !p.local.IsValid() && len(to) == 1 && to[0].ledger.IsZero() {
			to[0].ledger, to[0].how, to[0].unsure = e.ledger, e.how, e.unsure
		}
	}
}

// A Lateness is how much later than the gateway the ledger freed the ports of
// flows that ended in one way.
type Lateness struct {
	How   string  `json:"how"`
	Flows int     `json:"flows"`
	Min   float64 `json:"min_ms"`
	P50   float64 `json:"p50_ms"`
	Max   float64 `json:"max_ms"`
}

// lateness tells it of all flows that both knew.
func (w *follower) lateness() []Lateness {
	w.nameFailed()
	late := make(map[string][]time.Duration)
	for _, e := range w.ends {
		if e.gateway.IsZero() || e.ledger.IsZero() {
			continue
		}
		how := e.how.String()
		if e.unsure {
			how += ", unsure"
		}
		late[how] = append(late[how], e.ledger.Sub(e.gateway))
	}
	var all []Lateness
	for _, how := range slices.Sorted(maps.Keys(late)) {
		ds := late[how]
		all = append(all, Lateness{
			How: how, Flows: len(ds),
			Min: milliseconds(slices.Min(ds)),
			P50: milliseconds(work.Percentile(ds, 0.5)),
			Max: milliseconds(slices.Max(ds)),
		})
	}
	return all
}

// ended is how many flows the gateway has forgotten or will have.
func (w *follower) ended() int {
	n := 0
	for _, e := range w.ends {
		if !e.gateway.IsZero() {
			n++
		}
	}
	return n
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
