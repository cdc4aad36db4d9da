package httpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
	born   time.Time
	first  *first // nil: it is not

	user    atomic.Pointer[user] // who had it last
	served  atomic.Bool          // it was given an exchange
	lastOne atomic.Bool          // its exchange is to be the last: Request.Close
	answers atomic.Int64         // that it has brought
	streams atomic.Int64         // HTTP/2: room, when the pool was told last
	idleFor atomic.Int64         // for how long the server keeps it, as it says; 0: it does not
	given   atomic.Bool          // to a caller who has switched protocols: it is not ours any more
	missing atomic.Int32         // look-ups in a row in which its address was not in the record

	changed atomic.Pointer[func(error)] // the pool's; nil: it does not know the connection yet

	settled  chan struct{} // HTTP/2: closed when it is known how many streams the server wants
	settling sync.Once

	mu      sync.Mutex // guards the fields below
	active  int        // exchanges
	turn    keepalive.Turn
	tethers *tether // that hold no body
}

var (
	errSuspect = errors.New("httpx: what was sent on it is not acknowledged")
	errSpent   = errors.New("httpx: the server takes no more requests on it")
	errLast    = errors.New("httpx: a request wanted to be the last on it")
	errSilent  = errors.New("httpx: an answer was due and nothing came")
	errBroken  = errors.New("httpx: an exchange was not finished on it")
)

func newConn(cc *http.ClientConn, o *opening) *conn {
	c := &conn{cc: cc, flow: o.flow, shown: o.shown, shared: cc.Available() > 1, way: o.way, born: time.Now(), first: o.first}
	if t, ok := c.shown.(*tls.Conn); ok && o.way.proxy == "" {
		c.shared = t.ConnectionState().NegotiatedProtocol == "h2"
	}
	if c.shared {
		c.settled = make(chan struct{})
		if c.first != nil {
			c.first.conn = c
			close(c.first.opened)
		}
	} else {
		c.way.learn(1)
		c.way.learned(c.first)
	}
	c.flow.Park(c.flow.Turn())
	return c
}

// room is how many exchanges the connection can carry.
func (c *conn) room() int { return c.roomOf(c.limit()) }

// roomOf is room where the server wants so many streams: few of them while that is not
// known yet, and none beyond those that there are while what was sent is not acknowledged.
func (c *conn) roomOf(streams int) int {
	if streams == 0 || !c.shared {
		return streams
	}
	if last := c.lastOne.Load(); last || c.flow.Suspect() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if last {
			return c.active
		}
		return max(1, c.active)
	}
	if !c.isSettled() {
		// What is too much for a server that says less than last time, net/http holds back.
		streams = cmp.Or(c.way.stock.carried(c.way.route), streamsUnsettled)
	}
	return c.way.atOnce(streams, int(c.answers.Load()))
}

const (
	// streamsAtFirst is what net/http takes for a server's limit until that has told it.
	streamsAtFirst = 100

	// streamsUnsettled is how many are begun until then: those beyond the limit would
	// be refused.
	streamsUnsettled = 8
)

// limit is how many streams the server wants, as far as net/http knows; one on HTTP/1. Zero:
// no more, or the connection has ended.
func (c *conn) limit() int { return c.cc.Available() + c.cc.InFlight() }

// watch has changed be told when the room changes, and when the connection ends.
func (c *conn) watch(changed func(spent error)) {
	c.changed.Store(&changed)
	c.cc.SetStateHook(func(*http.ClientConn) { c.glance() })
	if c.shared {
		c.flow.WhenSuspect(func(bool) { c.look() })
	}
	c.look() // for what has happened before
}

// mayHaveEnded reports whether Err must be asked. net/http says of an HTTP/2 connection that
// has ended unused that it is available, so that whoever uses it learns why.
func (c *conn) mayHaveEnded(available int) bool { return available == 0 || !c.served.Load() }

// glance is look where an exchange may just have ended, which changes nothing.
func (c *conn) glance() {
	if c.shared && c.isSettled() && !c.lastOne.Load() && !c.way.capped.Load() && !c.mayHaveEnded(c.cc.Available()) {
		return
	}
	c.look()
}

// look tells the pool what has changed, if anything has.
func (c *conn) look() {
	streams := c.limit()
	if c.mayHaveEnded(streams) {
		if err := c.cc.Err(); err != nil {
			c.tell(fmt.Errorf("%w: %w", pool.Spent, err))
			return
		}
	}
	if !c.shared {
		return
	}
	if streams != streamsAtFirst {
		c.settle()
	}
	if n := int64(c.roomOf(streams)); c.streams.Swap(n) != n {
		c.tell(nil)
	}
	if c.isSettled() {
		c.way.learned(c.first) // the pool knows by now
	}
}

func (c *conn) tell(spent error) {
	if changed := c.changed.Load(); changed != nil {
		(*changed)(spent)
	}
}

// settle says that it is known how many streams the server wants: it has told, or it has
// answered, which it does not before.
func (c *conn) settle() {
	c.settling.Do(func() {
		if c.cc.Available() > 0 { // or it is ending, and would say too little
			c.way.learn(c.limit())
		}
		close(c.settled)
	})
}

func (c *conn) isSettled() bool {
	select {
	case <-c.settled:
		return true
	default:
		return false
	}
}

// answered notes that an answer has come.
func (c *conn) answered() {
	switch first := c.answers.Add(1) == 1; {
	case first:
		c.way.useful()
		if c.shared {
			c.settle()
			c.look()
		}
	case c.shared && c.way.capped.Load():
		c.look()
	}
}

// spent reports whether the server takes no more requests on the connection, of which an
// idle one tells nobody: GOAWAY.
func (c *conn) spent() bool { return c.shared && c.room() == 0 }

// awaitSettings waits until it is known how many streams the server wants, for some round
// trips at most: a server that wants as many as it was taken for is not noticed.
func (c *conn) awaitSettings(ctx context.Context) {
	if c.isSettled() {
		return
	}
	patience := leastPatience
	if info, err := c.flow.Info(); err == nil {
		patience = max(patience, 4*info.RTT)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.settled:
	case <-timer.C:
		c.settle()
		c.look()
	case <-ctx.Done():
	}
}

// leastPatience is how long a server's settings are waited for at least, however quick the
// path is: they are the first thing that it sends.
const leastPatience = 250 * time.Millisecond

// begin begins an exchange, unless the connection should carry none. It reports whether
// others were there before, and since when it was idle, if it was.
func (c *conn) begin(ctx context.Context, u *user) (reused bool, since time.Time, err error) {
	if c.mayHaveEnded(c.cc.Available()) {
		if err := c.cc.Err(); err != nil {
			return false, since, err
		}
		if c.spent() {
			return false, since, errSpent
		}
	}
	if c.flow.Suspect() {
		return false, since, errSuspect
	}
	if c.lastOne.Load() {
		return false, since, errLast
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reused = c.served.Swap(true)
	if c.active == 0 {
		if parked, ok := c.flow.Parked(); ok && reused {
			since = parked
		}
		if c.turn, err = c.flow.Unpark(); err != nil {
			return false, since, err
		}
	}
	c.active++
	c.user.Store(u)
	c.flow.Serve(ctx, since)
	if c.shared {
		c.flow.Share(1)
	}
	return reused, since, nil
}

// end ends an exchange. A connection that is free offers its port to whoever waits.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared {
		c.flow.Share(-1)
	}
	if c.active--; c.active == 0 {
		c.flow.Park(c.turn)
	}
}

func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active == 0
}

// free reports whether the exchange that has just ended has left the connection ready
// for the next one.
func (c *conn) free() bool { return c.shared || c.cc.Available() > 0 }

// close ends the connection, as its path likes it best where it is parked.
func (c *conn) close(cause error) {
	c.way.learned(c.first)
	if c.given.Load() {
		return
	}
	if lives := c.cc.Err() == nil; c.shared && c.answers.Load() == 0 && (c.served.Load() || lives) && !unwanted(cause) {
		c.way.useless(cause)
	}
	c.flow.Because(reasonOf(cause).String())
	if _, parked := c.flow.Parked(); parked {
		c.flow.EndSoonest()
	}
	c.cc.Close()
}

// unwanted reports whether cause, for which a connection is closed, is a wish of this side.
func unwanted(cause error) bool {
	r := reasonOf(cause)
	return r != pool.Discarded && r != pool.Failed && r != pool.Spent || errors.Is(cause, errLast)
}

// reasonOf is the pool's reason for which a connection is closed.
func reasonOf(cause error) pool.Reason {
	if errors.Is(cause, errNotNeeded) || errors.Is(cause, errMoved) || errors.Is(cause, errDoubtful) {
		return pool.Retired
	}
	r := pool.Discarded
	errors.As(cause, &r)
	return r
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
