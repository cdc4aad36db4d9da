package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A conn is a pooled connection: net/http's side of it, and the flow below.
//
// net/http's methods call its hook, which asks for the pool's lock: none of them is
// called under a lock.
type conn struct {
	cc     *http.ClientConn
	flow   *dialer.Conn
	shown  net.Conn // to httptrace: the flow, or TLS above it
	shared bool     // HTTP/2: it carries many exchanges at a time
	way    *way

	user    atomic.Pointer[user] // who had it last
	served  atomic.Bool          // it has carried an exchange
	streams atomic.Int64         // HTTP/2: room, when the pool was told last
	idleFor atomic.Int64         // for how long the server keeps it, as it says; 0: it does not
	given   atomic.Bool          // to a caller who has switched protocols: it is not ours any more
	missing atomic.Int32         // look-ups in a row in which its address was not in the record

	settled  chan struct{} // HTTP/2: closed when the server has told how many streams it wants
	settling sync.Once

	mu     sync.Mutex // guards the fields below
	active int        // exchanges
	turn   keepalive.Turn
}

var (
	errSuspect = errors.New("httpx: what was sent on it is not acknowledged")
	errSpent   = errors.New("httpx: the server takes no more requests on it")
	errSilent  = errors.New("httpx: an answer was due and nothing came")
	errBroken  = errors.New("httpx: an exchange was not finished on it")
)

func newConn(cc *http.ClientConn, o *opening) *conn {
	c := &conn{cc: cc, flow: o.flow, shown: o.shown, shared: cc.Available() > 1, way: o.way}
	if t, ok := c.shown.(*tls.Conn); ok && o.way.proxy == "" {
		c.shared = t.ConnectionState().NegotiatedProtocol == "h2"
	}
	if c.shared {
		c.settled = make(chan struct{})
	} else {
		o.way.learn(1)
	}
	c.flow.Park(c.flow.Turn())
	return c
}

// settle says that the server has told how many streams it wants.
func (c *conn) settle(streams int) {
	c.settling.Do(func() {
		c.way.learn(streams)
		close(c.settled)
	})
}

// room is how many exchanges the connection can carry. It takes none beyond those it
// has while what was sent is not acknowledged.
func (c *conn) room() int {
	switch {
	case c.cc.Err() != nil:
		return 0
	case !c.shared:
		return 1
	}
	streams := c.cc.Available() + c.cc.InFlight()
	if streams > 0 && c.flow.Suspect() {
		c.mu.Lock()
		defer c.mu.Unlock()
		return max(1, c.active)
	}
	return streams
}

// streamsAtFirst is what net/http takes for a server's limit until that has told it.
const streamsAtFirst = 100

// watch tells changed when the room changes, and when the connection ends.
func (c *conn) watch(changed func(spent error)) {
	look := func(*http.ClientConn) {
		if err := c.cc.Err(); err != nil {
			changed(err)
		} else if c.shared {
			n := int64(c.room())
			if n != streamsAtFirst {
				c.settle(int(n))
			}
			if c.streams.Swap(n) != n {
				changed(nil)
			}
		}
	}
	c.cc.SetStateHook(look)
	if c.shared {
		c.flow.WhenSuspect(func(bool) { look(nil) })
	}
	look(nil) // what has happened before
}

// spent reports whether the server takes no more requests on the connection, of which an
// idle one tells nobody: GOAWAY.
func (c *conn) spent() bool { return c.shared && c.room() == 0 }

// awaitSettings waits until it is known how many streams the server wants, for some round
// trips at most: a server that wants as many as it was taken for is not noticed.
func (c *conn) awaitSettings(ctx context.Context) {
	select {
	case <-c.settled:
		return
	default:
	}
	patience := 50 * time.Millisecond
	if info, err := c.flow.Info(); err == nil {
		patience = max(10*time.Millisecond, 4*info.RTT)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.settled:
	case <-timer.C:
		c.settle(streamsAtFirst)
	case <-ctx.Done():
	}
}

// begin begins an exchange, unless the connection should carry none. It reports whether
// others were there before, and for how long it has been idle.
func (c *conn) begin(u *user) (reused bool, idle time.Duration, err error) {
	switch {
	case c.cc.Err() != nil:
		return false, 0, c.cc.Err()
	case c.spent():
		return false, 0, errSpent
	case c.flow.Suspect():
		return false, 0, errSuspect
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == 0 {
		if since, ok := c.flow.Parked(); ok {
			idle = time.Since(since)
		}
		if c.turn, err = c.flow.Unpark(); err != nil {
			return false, 0, err
		}
	}
	c.active++
	c.user.Store(u)
	return c.served.Swap(true), idle, nil
}

// end ends an exchange. A connection that is free offers its port to whoever waits.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active--; c.active == 0 {
		c.flow.Park(c.turn)
	}
}

// free reports whether the exchange that has just ended has left the connection ready
// for the next one.
func (c *conn) free() bool { return c.shared || c.cc.Available() > 0 }

// close ends the connection, as its path likes it best where it is parked.
func (c *conn) close(error) {
	if c.given.Load() {
		return
	}
	if _, parked := c.flow.Parked(); parked {
		c.flow.EndSoonest()
	}
	c.cc.Close()
}

// heed notes for how long the server keeps an idle connection: "Keep-Alive: timeout=5".
func (c *conn) heed(h http.Header) {
	for _, v := range h["Keep-Alive"] {
		for p := range strings.SplitSeq(v, ",") {
			name, seconds, _ := strings.Cut(strings.TrimSpace(p), "=")
			if n, err := strconv.Atoi(seconds); err == nil && n > 0 && strings.EqualFold(name, "timeout") {
				c.idleFor.Store(int64(inTime(time.Duration(min(n, maxHint)) * time.Second)))
			}
		}
	}
}

const maxHint = 24 * 60 * 60 // seconds: no server keeps a connection for longer

// inTime is when to close a connection that the server will close after d: a request may
// be on its way when the FIN comes.
func inTime(d time.Duration) time.Duration { return d - min(time.Second, d/4) }

var _ pool.Permit[*conn] = (*opening)(nil)
