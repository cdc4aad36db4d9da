package natlab

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// ErrUnavailable says that this machine or this user cannot have a lab.
var ErrUnavailable = errors.New("natlab: no kernel lab here")

// Config says which NAT to build.
type Config struct {
	// Path is what the gateway imitates: the limit of scope Destination, Idle,
	// AtIdle (Drop or ResetNext) and Hold. Sharers is not asked: the gateway
	// has the ports of all of them.
	Path netpath.Profile

	// Room is how many flows a destination may really have. Zero: the limit of
	// Path. More than that: the gateway never refuses, and what was taken beyond
	// the limit is seen in Flows.
	Room int

	// Reuse gives the gateway no more port numbers than Room, from 10000 on, so
	// that they are used again. A flow that idles out leaves its server's socket
	// behind, and the next flow through its number meets that: the dial hangs, for
	// seconds where it meets one after the other. Reuse needs a limit, and an Idle
	// of whole seconds; the number of a flow with a hold that is not whole may come
	// free a second later than its port.
	Reuse bool

	// Servers is how many addresses the server has, at most 250. Zero: one.
	Servers int

	// Clients is how many addresses the client has, at most 16. Zero: one.
	Clients int

	// PerSource gives each address of the client ports of its own to a destination,
	// as many as the limit says: that of scope SourceDestination, if Path has one.
	// Otherwise they share them. It cannot be had with Reuse.
	PerSource bool
}

// A Flow is what the gateway knows of one connection.
type Flow struct {
	Source netip.AddrPort // the client's own, before translation
	Dest   netip.AddrPort
	State  State
	Left   time.Duration // until its port is free, if no packet comes
}

// A State is how far a flow has come, as the gateway sees it.
type State uint8

const (
	Open      State = iota // from its first SYN on
	Finished               // a FIN has passed
	Reset                  // a RST has passed, and no FIN before
	Forgotten              // silent for too long; only its port is still taken
)

func (s State) String() string {
	switch s {
	case Finished:
		return "finished"
	case Reset:
		return "reset"
	case Forgotten:
		return "forgotten"
	}
	return "open"
}

// A Tally is what the gateway did, in packets.
type Tally struct {
	Admitted  int // SYNs of new flows
	Refused   int // SYNs dropped because no port was left, retransmissions included
	Forgotten int // packets of unknown flows, dropped or answered with a RST
}

// Counts is what the gateway did for all destinations together, and for each.
type Counts struct {
	Tally
	By map[netip.AddrPort]Tally
}

// Need returns a lab that ends with the test. The test is skipped where there
// can be none, or fails if the environment says NATWISE_LAB=must.
func Need(t testing.TB, cfg Config) *Lab {
	t.Helper()
	l, err := New(cfg)
	switch {
	case errors.Is(err, ErrUnavailable) && os.Getenv("NATWISE_LAB") != "must":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Main runs the tests of a package that has labs, and returns their status. It
// enters a user namespace where the user is not root, and unless -parallel says
// otherwise it lets many tests run at a time, since a lab mostly waits.
func Main(m *testing.M) int {
	Enter()
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		p.Value.Set("16")
	}
	return m.Run()
}
