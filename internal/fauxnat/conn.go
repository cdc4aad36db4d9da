package fauxnat

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A conn is the client's end of a flow. Its fields belong to nat.mu.
type conn struct {
	inner net.Conn // used without nat.mu
	flow  *flow
	cond  *sync.Cond // on nat.mu; says that anything below, or the flow, has changed

	dead            error // what Read returns from now on: io.EOF or ECONNRESET
	lost            bool  // bytes of the server's are lost: never to be resumed
	sentFIN, gotFIN bool
	linger0         bool
	closed          bool
	readBy, writeBy time.Time

	astray   bool          // what it carries leads nowhere, and its client has not been told
	dark     bool          // its kernel hears nothing
	lied     bool          // to, by a middlebox
	patience time.Duration // of the liar, from the first byte on; 0: for ever, or it has begun
}

// deafLocked reports whether nothing can be heard: the flow is forgotten, or a liar
// speaks for the server.
func (c *conn) deafLocked() bool { return c.flow.forgotten || c.lied }

var _ net.Conn = (*conn)(nil)

func (c *conn) LocalAddr() net.Addr  { return c.inner.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.inner.RemoteAddr() }

// Read reads. On a forgotten flow it blocks, as if nothing ever came.
func (c *conn) Read(b []byte) (int, error) {
	if err := c.hear(); err != nil {
		return 0, err
	}
	got, err := c.inner.Read(b)

	n := c.flow.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.expireLocked()
	switch {
	case c.closed, errors.Is(err, os.ErrDeadlineExceeded) && c.dead == nil:
		return got, err
	case c.dead != nil || c.deafLocked():
		// What came now did not come through the NAT.
		if err := c.hearLocked(); err != nil {
			c.lost = true
			return 0, err
		}
		now = time.Now() // resumed
	}
	if got > 0 {
		c.flow.last, c.flow.asked = now, false
	}
	if err == io.EOF {
		c.gotFIN = true
		c.finLocked(now)
	} else if err != nil {
		c.brokenLocked(now, err)
	}
	return got, err
}

// hear waits while the conn is deaf.
func (c *conn) hear() error {
	c.flow.nat.mu.Lock()
	defer c.flow.nat.mu.Unlock()
	c.flow.nat.expireLocked()
	return c.hearLocked()
}

func (c *conn) hearLocked() error {
	for {
		err := c.overLocked()
		switch {
		case err != nil:
			return err
		case !c.deafLocked():
			return nil
		case passed(c.readBy):
			return c.fail("read", os.ErrDeadlineExceeded)
		case c.readBy.IsZero():
			c.cond.Wait()
		default:
			alarm := time.AfterFunc(time.Until(c.readBy), c.wake)
			c.cond.Wait()
			alarm.Stop()
		}
	}
}

// overLocked is what Read returns from now on, nil while there is hope.
func (c *conn) overLocked() error {
	switch {
	case c.closed:
		return c.fail("read", net.ErrClosed)
	case c.dead == io.EOF:
		return io.EOF
	case c.dead != nil:
		return c.fail("read", os.NewSyscallError("read", c.dead))
	}
	return nil
}

func (c *conn) wake() {
	c.flow.nat.mu.Lock()
	defer c.flow.nat.mu.Unlock()
	c.cond.Broadcast()
}

// Write writes. On a forgotten flow, or to a liar, it says so too, but delivers
// nothing.
func (c *conn) Write(b []byte) (int, error) {
	if through, err := c.send(&c.writeBy); err != nil {
		return 0, err
	} else if !through {
		return len(b), nil
	}
	sent, err := c.inner.Write(b)

	n := c.flow.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.expireLocked()
	if sent > 0 && !c.flow.forgotten {
		c.flow.last = now // the end of a long Write
	}
	if err != nil && !c.closed {
		c.brokenLocked(now, err)
		if c.dead != nil { // while we wrote
			err = c.fail("write", os.NewSyscallError("write", syscall.ECONNRESET))
		}
	}
	return sent, err
}

// send tells the NAT of a packet, and whether it goes through.
func (c *conn) send(by *time.Time) (through bool, err error) {
	n := c.flow.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.expireLocked()
	switch {
	case c.closed:
		return false, c.fail("write", net.ErrClosed)
	case c.dead == io.EOF:
		return false, c.fail("write", os.NewSyscallError("write", syscall.EPIPE))
	case c.dead != nil:
		return false, c.fail("write", os.NewSyscallError("write", c.dead))
	case !c.deafLocked():
		c.flow.last, c.flow.asked = now, true
		return true, nil
	case passed(*by):
		return false, c.fail("write", os.ErrDeadlineExceeded)
	case c.lied:
		c.swallowLocked(now)
		return false, nil
	case !c.lost && n.resumeLocked(c.flow):
		return true, nil
	case n.path.AtIdle == netpath.ResetNext:
		// This packet has left; the RST that it provokes is for the next call,
		// and for a Read that waits.
		c.dead = syscall.ECONNRESET
		c.strayLocked(false)
		c.cond.Broadcast()
		time.AfterFunc(0, c.interrupt) // not under the mutex
	}
	return false, nil
}

// Close ends the flow: by a FIN, or by a RST after SetLinger(0).
func (c *conn) Close() error {
	n := c.flow.nat
	n.mu.Lock()
	now := n.expireLocked()
	if c.closed {
		n.mu.Unlock()
		return c.fail("close", net.ErrClosed)
	}
	c.closed = true
	c.strayLocked(false)
	n.closeSocketLocked(c.flow)
	if c.linger0 {
		c.rstLocked(now)
	} else {
		n.endLocked(c.flow, now, n.path.Hold.FIN)
	}
	c.cond.Broadcast()
	dead := c.dead != nil
	n.mu.Unlock()

	err := c.inner.Close()
	if dead {
		return nil // it was closed already, though not by our client
	}
	return err
}

// CloseWrite sends a FIN, if the conn behind the NAT can.
func (c *conn) CloseWrite() error {
	inner, ok := c.inner.(interface{ CloseWrite() error })
	if !ok {
		return c.fail("close", errors.ErrUnsupported)
	}
	if through, err := c.send(new(time.Time)); err != nil || !through {
		return err
	}
	err := inner.CloseWrite()

	n := c.flow.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		c.sentFIN = true
		c.finLocked(n.expireLocked())
	}
	return err
}

// finLocked books a FIN, which ends the flow if it is the second.
func (c *conn) finLocked(now time.Time) {
	if c.sentFIN && c.gotFIN {
		c.flow.nat.endLocked(c.flow, now, c.flow.nat.path.Hold.FIN)
	}
}

// brokenLocked books the RST that an error tells of, if it does.
func (c *conn) brokenLocked(now time.Time, err error) {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) && !c.sentFIN {
		c.rstLocked(now)
	}
}

// rstLocked books a RST. After a FIN it shortens nothing.
func (c *conn) rstLocked(now time.Time) {
	hold := c.flow.nat.path.Hold
	if c.sentFIN || c.gotFIN {
		hold.RST = max(hold.RST, hold.FIN)
	}
	c.flow.nat.endLocked(c.flow, now, hold.RST)
}

// SetLinger with 0 makes Close a RST, if the conn behind the NAT can do that.
func (c *conn) SetLinger(sec int) error {
	inner, ok := c.inner.(interface{ SetLinger(int) error })
	if !ok {
		return c.fail("set", errors.ErrUnsupported)
	}
	if err := inner.SetLinger(sec); err != nil {
		return err
	}
	c.flow.nat.mu.Lock()
	defer c.flow.nat.mu.Unlock()
	c.linger0 = sec == 0
	return nil
}

// SetKeepAliveConfig lets probes break the flow's silence, where the path counts
// them and they come in time. It also sets them on the conn behind the NAT, if
// that can.
func (c *conn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	if inner, ok := c.inner.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		if err := inner.SetKeepAliveConfig(k); err != nil {
			return err
		}
	}
	first := k.Idle
	if first == 0 {
		first = 15 * time.Second // net.KeepAliveConfig
	} else if first < 0 {
		first = 2 * time.Hour // as the system has it, tcp_keepalive_time
	}
	n := c.flow.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.expireLocked()
	if c.flow.probed {
		c.flow.last = now
	}
	c.flow.probed = k.Enable && n.path.Counts == netpath.Segments && first < n.path.Idle
	return nil
}

// Queued tells what the inner conn does. Of one that does not tell, it says
// that something is on its way.
func (c *conn) Queued() (unread, unsent int) {
	if q, ok := c.inner.(interface{ Queued() (unread, unsent int) }); ok {
		return q.Queued()
	}
	return 0, 1
}

// Ended tells how the path ended the flow, or else what the inner conn tells.
// Nothing is heard through a forgotten flow, or from behind a liar.
func (c *conn) Ended() error {
	c.flow.nat.mu.Lock()
	c.flow.nat.expireLocked()
	err, deaf := c.overLocked(), c.deafLocked()
	c.flow.nat.mu.Unlock()
	if e, ok := c.inner.(interface{ Ended() error }); ok && err == nil && !deaf {
		return e.Ended()
	}
	return err
}

func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadline(t, c.inner.SetDeadline, &c.readBy, &c.writeBy)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(t, c.inner.SetReadDeadline, &c.readBy)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(t, c.inner.SetWriteDeadline, &c.writeBy)
}

func (c *conn) setDeadline(t time.Time, inner func(time.Time) error, by ...*time.Time) error {
	err := inner(t)
	c.flow.nat.mu.Lock()
	for _, by := range by {
		*by = t
	}
	c.cond.Broadcast()
	dead := c.dead != nil && !c.closed
	c.flow.nat.mu.Unlock()
	if dead {
		c.interrupt() // again: t may have undone it
		return nil
	}
	return err
}

// interrupt makes a Read that waits behind the NAT return.
func (c *conn) interrupt() { c.inner.SetReadDeadline(time.Unix(1, 0)) }

// kill ends the flow at both ends, on the path's behalf.
func (c *conn) kill(reset bool) {
	if l, ok := c.inner.(interface{ SetLinger(int) error }); ok && reset {
		l.SetLinger(0)
	}
	c.inner.Close()
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
