package dialer

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A host is what a dialer asks its own machine about.
type host struct {
	// strays counts the packets that came to this machine and claim to be its own: what a
	// balancer sends back to the backend that sent it. It says false where nobody counts.
	strays func() (uint64, bool)

	// listening returns the ports on which others may connect to this machine.
	listening func() []uint16

	see func(candidate) look // a test's, instead of Ledger.see
}

var thisHost = &host{strays: strays, listening: remembered(listening)}

// listenersFor is how long it is taken for granted who listens.
const listenersFor = 2 * time.Second

// remembered has f asked again only after a while.
func remembered(f func() []uint16) func() []uint16 {
	var mu sync.Mutex
	var last []uint16
	var at time.Time
	return func() []uint16 {
		mu.Lock()
		defer mu.Unlock()
		if at.IsZero() || time.Since(at) > listenersFor {
			last, at = f(), time.Now()
			slices.Sort(last)
			last = slices.Compact(last)
		}
		return last
	}
}

// mayHairpin reports whether an address can be a load balancer's that has this host for a
// backend.
func mayHairpin(a netip.Addr) bool { return a.IsPrivate() }

// synsIn is how many SYNs have been sent so long after the first.
func synsIn(d time.Duration) int {
	n, _ := syns(d)
	return n
}

// syns is that, and when the last of them was sent: the first few a second apart, then each
// after twice the time.
func syns(d time.Duration) (n int, last time.Duration) {
	n, next := 1, time.Second
	for linear := linearSYNs(); d >= next; n++ {
		last = next
		next += time.Second << max(0, n-linear)
	}
	return n, last
}
