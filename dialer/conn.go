package dialer

import (
	"net"

	"github.com/natwise/natwise/keepalive"
)

// A Conn is a connection whose port is booked. It is a keepalive.Conn that
// tells its ledger what becomes of it; DialContext returns it as a net.Conn,
// and Unwrap finds it again below TLS. It may be used by many goroutines as any
// net.Conn. Whoever uses it closes it; one that is dropped without Close is
// closed, and its port booked, when the garbage collector finds it.
type Conn struct {
	*keepalive.Conn
	ledger *Ledger
	flow   *flow
	keeper *keeper
}

// Unwrap returns the Conn below c, which may be a *tls.Conn or anything else
// with a method NetConn.
func Unwrap(c net.Conn) (*Conn, bool) {
	for {
		switch w := c.(type) {
		case *Conn:
			return w, true
		case interface{ NetConn() net.Conn }:
			c = w.NetConn()
		default:
			return nil, false
		}
	}
}

// Park ends turn t, as keepalive.Conn.Park does, and offers the port to whoever
// waits for one.
func (c *Conn) Park(t keepalive.Turn) bool { return c.offer(c.Conn.Park(t)) }

// ParkAgain is Park after a turn in which nobody has used the connection, as
// keepalive.Conn.ParkAgain is: as far as others want its port, it was idle.
func (c *Conn) ParkAgain(t keepalive.Turn) bool { return c.offer(c.Conn.ParkAgain(t)) }

func (c *Conn) offer(parked bool) bool {
	if parked {
		c.ledger.parked(c.flow)
	}
	return parked
}

// EndSoonest marks the connection to be closed in the way that frees its port
// soonest on this path, where ports are scarce: somebody waits for one, or four
// fifths are taken. Only an owner who knows that the connection is between two
// exchanges may call it. What is written from now on may be dropped, so that
// the goodbyes of TLS and drivers do not matter.
func (c *Conn) EndSoonest() {
	if c.ledger.resetIsSooner() && c.ledger.scarce(c.flow) {
		c.Conn.EndSoonest()
	}
}

// Scarce reports whether ports like the connection's are: somebody waits for one, or
// four fifths are taken.
func (c *Conn) Scarce() bool { return c.ledger.scarce(c.flow) }

func (l *Ledger) scarce(f *flow) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range f.debts() {
		if d.account.scarce() {
			return true
		}
	}
	return false
}
