package conns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

var (
	// errSpoke says that a server said something that nobody had asked for.
	errSpoke = errors.New("conns: the server spoke unasked")

	// errSuspect says that nothing comes back from the far end, not even an ACK.
	errSuspect = errors.New("conns: what was sent on it is not acknowledged")
)

// A conn is a pooled connection: what is used, and the flow below it.
type conn struct {
	net.Conn
	flow  *dialer.Conn
	turn  keepalive.Turn // while it is not parked
	since time.Time      // when it was, before this turn
}

// park ends the turn, if there is one, and offers the port to the ledger.
func (c *conn) park() error { return c.offer((*dialer.Conn).Park) }

// parkAgain is park after a turn in which the connection was only asked.
func (c *conn) parkAgain() error { return c.offer((*dialer.Conn).ParkAgain) }

func (c *conn) offer(park func(*dialer.Conn, keepalive.Turn) bool) error {
	if _, parked := c.flow.Parked(); !parked && !park(c.flow, c.turn) {
		return net.ErrClosed
	}
	return nil
}

// unpark begins a turn, if look or check has not.
func (c *conn) unpark() (err error) {
	if since, parked := c.flow.Parked(); parked || c.flow.Closed() {
		c.since = since
		c.turn, err = c.flow.Unpark()
	}
	return err
}

// check begins a turn of a connection that is in order as far as can be seen.
func (c *conn) check() error {
	if err := c.look(); err != nil {
		return err
	}
	return c.unpark()
}

// look says what has come while nobody read.
func (c *conn) look() error {
	unread, err := c.flow.Peek()
	switch {
	case err != nil:
		return c.verdict(err)
	case c.flow.Suspect():
		return errSuspect
	case c.Conn != net.Conn(c.flow):
		return c.listen(unread > 0)
	case unread > 0:
		return errSpoke
	}
	return nil
}

// verdict says why the connection has ended, if more can be known of that than err,
// which Peek said. To ask takes away what is known: a connection that is lent is
// asked by its user, unless it is closed.
func (c *conn) verdict(err error) error {
	if !errors.Is(err, keepalive.ErrEnded) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	if _, why := c.flow.Read(make([]byte, 1)); fatal(why) {
		return why
	}
	return err
}

// fatal reports whether err says that packets of a connection vanish, which those
// of others may do too.
func fatal(err error) bool {
	f := keepalive.FaultOf(err)
	return f == keepalive.Blackhole || f == keepalive.Unreachable
}

// ended says why the connection has ended, which was seen while nobody looked.
func (c *conn) ended() error {
	_, err := c.flow.Peek()
	if _, parked := c.flow.Parked(); parked || c.flow.Closed() {
		err = c.verdict(err)
	}
	if err == nil || fatal(err) {
		return err
	}
	return fmt.Errorf("%w: %w", pool.Spent, err) // which says nothing of the others
}

// listen is look through TLS, which may have read ahead what the server said, and
// has things of its own to say, such as session tickets. Only reading tells.
func (c *conn) listen(unread bool) error {
	by := past // for what was read ahead
	if unread {
		// In a turn: what is read outside of one hides the silence that was.
		if err := c.unpark(); err != nil {
			return err
		}
		by = time.Now().Add(time.Millisecond)
	}
	c.flow.SetReadDeadline(by)
	n, err := c.Conn.Read(make([]byte, 1))
	switch {
	case n > 0:
		return errSpoke
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return c.flow.SetReadDeadline(time.Time{})
}

// close ends the connection, as its path likes it best where it is parked.
func (c *conn) close() {
	if _, parked := c.flow.Parked(); parked {
		c.flow.EndSoonest()
	}
	c.Conn.Close()
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// A Conn is a connection that its user has until Put or Close. It is a net.Conn,
// and as such may be used by several goroutines; all of them must have returned
// from it before Put.
type Conn struct {
	conn  *conn
	lease pool.Lease[*conn]

	done  atomic.Bool
	busy  atomic.Int32          // Reads and Writes under way
	fault atomic.Pointer[error] // the first one, after which it cannot go back
	dated atomic.Bool           // it has a deadline

	due       atomic.Bool // something was written since something was read
	calledOff atomic.Bool // nobody waits for the answer any more
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)

var (
	errUsed      = errors.New("conns: put back while it was being read or written")
	errHalf      = errors.New("conns: put back after CloseWrite")
	errAbandoned = errors.New("conns: closed by its user")
)

// Put gives the connection back for the next exchange. Only its user knows that
// this one is over: nothing half sent, nothing still to come. A connection that
// has failed, or is being used, is closed instead. After Close, or a first Put,
// it does nothing; what is read or written after it fails with net.ErrClosed.
func (c *Conn) Put() {
	if c.done.Swap(true) {
		return
	}
	if err := c.clean(); err != nil {
		c.discard(err)
		return
	}
	c.lease.Put()
}

// clean makes the connection as it was before, or says why it cannot be.
func (c *Conn) clean() error {
	if fault := c.fault.Load(); fault != nil {
		return *fault
	}
	if c.busy.Load() > 0 {
		return errUsed
	}
	if c.dated.Load() {
		if err := c.conn.SetDeadline(time.Time{}); err != nil {
			return err
		}
	}
	return c.conn.park()
}

// Close ends the connection, unless it was put back. If its deadline has passed
// while an answer was due, although all that was written is acknowledged, or if it
// has died on the way, the idle ones are doubted too: Config.Beat asks those that
// have proved nothing since.
func (c *Conn) Close() error { return c.close(errAbandoned) }

// close is Close for a cause, unless there was a fault before.
func (c *Conn) close(cause error) error {
	if c.done.Swap(true) {
		return net.ErrClosed
	}
	if fault := c.fault.Load(); fault != nil {
		cause = *fault
	}
	c.discard(cause)
	return nil
}

func (c *Conn) discard(cause error) {
	switch {
	case c.unanswered(cause):
		c.lease.Doubt()
	case c.calledOff.Load() && c.due.Load():
		c.conn.flow.Asked()
	}
	c.lease.Discard(cause)
}

// unanswered reports whether a cause to end the connection is evidence against
// others. That a deadline has passed is none if the kernel still waits for an ACK,
// which is its own affair, or has an answer that only came late.
func (c *Conn) unanswered(cause error) bool {
	if fatal(cause) {
		return true
	}
	if keepalive.FaultOf(cause) != keepalive.Deadline || !c.due.Load() || c.calledOff.Load() {
		return false
	}
	info, err := c.conn.flow.Info()
	return err == nil && info.Unacked == 0 && info.Unread == 0
}

// use reports whether the connection is still its user's. If so, who asked says
// used when done.
func (c *Conn) use() bool {
	c.busy.Add(1)
	if c.done.Load() {
		c.busy.Add(-1)
		return false
	}
	return true
}

func (c *Conn) used(err error) {
	if err != nil {
		c.fault.CompareAndSwap(nil, &err)
	}
	c.busy.Add(-1)
}

// expect notes whether an answer is due, if something has moved.
func (c *Conn) expect(moved, due bool) {
	if moved && c.due.Load() != due {
		c.due.Store(due)
	}
}

func (c *Conn) Read(b []byte) (n int, err error) {
	if !c.use() {
		return 0, c.gone("read")
	}
	n, err = c.conn.Read(b)
	c.expect(n > 0, false)
	c.used(err)
	return n, err
}

func (c *Conn) Write(b []byte) (n int, err error) {
	if !c.use() {
		return 0, c.gone("write")
	}
	n, err = c.conn.Write(b)
	c.expect(n > 0, true)
	c.used(err)
	return n, err
}

// ReadFrom sends what r yields, by sendfile or splice where the connection can.
// After an error of r's, too, the connection cannot go back.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	if !c.use() {
		return 0, c.gone("write")
	}
	n, err = io.Copy(c.conn.Conn, r)
	c.expect(n > 0, true)
	c.used(err)
	return n, err
}

// WriteTo passes on what comes until the far end has sent its FIN, after which
// the connection cannot go back.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	if !c.use() {
		return 0, c.gone("read")
	}
	n, err = io.Copy(w, c.conn.Conn)
	c.expect(n > 0, false)
	over := err
	if over == nil {
		over = io.EOF
	}
	c.used(over)
	return n, err
}

// CloseWrite sends a FIN, or TLS's goodbye, after which the connection cannot go
// back.
func (c *Conn) CloseWrite() error {
	w, ok := c.conn.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	if !c.use() {
		return c.gone("close")
	}
	err := w.CloseWrite()
	c.used(errHalf)
	return err
}

func (c *Conn) SetDeadline(t time.Time) error      { return c.date(t, c.conn.SetDeadline) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.date(t, c.conn.SetReadDeadline) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.date(t, c.conn.SetWriteDeadline) }

func (c *Conn) date(t time.Time, set func(time.Time) error) error {
	if !c.use() {
		return c.gone("set")
	}
	c.dated.Store(true)
	err := set(t)
	c.used(err)
	return err
}

func (c *Conn) gone(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}
}

func (c *Conn) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// NetConn returns the connection underneath, for looking at it: a *tls.Conn has
// a ConnectionState, and dialer.Unwrap finds the flow. It is not to be kept.
func (c *Conn) NetConn() net.Conn { return c.conn.Conn }

// SyscallConn gives access to the socket, where nothing such as TLS is above it.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.conn.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	if !c.use() {
		return nil, c.gone("raw")
	}
	defer c.used(nil)
	return sc.SyscallConn()
}
