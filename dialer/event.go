package dialer

import (
	"net/netip"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// An Event is one change in the life of a flow, told to Dialer.Observe after
// it has happened.
type Event struct {
	Kind    EventKind
	Host    string         // as it was asked for, with its port
	Local   netip.AddrPort // where known
	Remote  netip.AddrPort // where known
	Took    time.Duration  // Waited: in the queue. Opened, Failed: in the connect. Ended: the flow's age. Suspected: silence
	Err     error          // Failed; Opened: a socket option that the kernel refused; Ended: a *keepalive.BlackholeError
	Ending  keepalive.Ending
	Retired bool // Ended: by the ledger, for somebody who waited

	Verdict  Verdict // Failed, and Waited in vain: what that means
	Evidence string  // for the verdict, in words
	Tries    int     // Opened, Failed: from how many source ports
	Stale    bool    // Opened: an old socket of the far end answered first, which a flow that idled out has left
}

// EventKind is what an Event tells.
type EventKind uint8

const (
	Waited    EventKind = iota // for a port, and got one or gave up (Err)
	Opened                     // the connection is there
	Failed                     // it is not
	Ended                      // and now it is closed
	Suspected                  // bytes are unacknowledged, and nothing has come for three retransmission timeouts
	Trusted                    // it was acknowledged after all
)

var kinds = [...]string{"waited", "opened", "failed", "ended", "suspected", "trusted"}

// String returns the kind as telemetry names it: "opened".
func (k EventKind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return "unknown"
}
