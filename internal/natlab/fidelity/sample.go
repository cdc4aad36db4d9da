package main

import (
	"net/netip"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
)

// tick is the coarseness of the gateway's clock.
const tick = 4 * time.Millisecond

// A pair is a flow's name: both of its addresses as the client sees them.
type pair struct{ local, remote netip.AddrPort }

// A sample is what both knew, the gateway a moment earlier.
type sample struct {
	gateway []natlab.Flow
	ledger  []dialer.Flow

	gatewayAt, ledgerAt time.Time
	took                time.Duration // from before the first reading to after the second
}

// look takes a sample. It reuses the gateway's slice.
func look(lab *natlab.Lab, ledger *dialer.Ledger, reuse []natlab.Flow) (s sample, err error) {
	begin := time.Now()
	s.gateway, err = lab.Flows(reuse[:0])
	s.gatewayAt = time.Now()
	s.ledger = ledger.Flows()
	s.ledgerAt = s.gatewayAt // it looks at the clock first
	s.took = time.Since(begin)
	return s, err
}

// missing returns the gateway's flows that the ledger does not know.
func (s sample) missing() []natlab.Flow {
	booked := make(map[pair]bool, len(s.ledger))
	nameless := make(map[netip.AddrPort]int)
	for _, f := range s.ledger {
		switch {
		case f.Local.IsValid():
			booked[pair{f.Local, f.Remote}] = true
		case f.State != dialer.Asked: // a SYN was sent
			nameless[f.Remote]++
		}
	}
	var missing []natlab.Flow
	for _, g := range s.gateway {
		switch {
		case booked[pair{g.Source, g.Dest}]:
		case g.Left <= s.took+tick: // may be over by now
		case nameless[g.Dest] > 0:
			nameless[g.Dest]--
		default:
			missing = append(missing, g)
		}
	}
	return missing
}

// most is the largest number of live flows to one destination.
func (s sample) most() int {
	n, most := make(map[netip.AddrPort]int), 0
	for _, g := range s.gateway {
		n[g.Dest]++
		most = max(most, n[g.Dest])
	}
	return most
}
