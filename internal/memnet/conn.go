package memnet

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes may be on their way or unread at one end before the
// other end's Write blocks.
const window = 64 << 10

// A conn is one end of a connection. Its fields belong to net.mu.
type conn struct {
	net  *Network
	host *host // the end that listened, whichever this one is
	id   tuple
	peer *conn
	cond *sync.Cond // on net.mu; says that anything below, or the peer's room, has changed

	wire  []segment // on its way here, in order
	bytes int       // in wire
	in    bytes.Buffer
	eof   bool // the peer's FIN came
	reset bool // a RST came
	told  bool // a Write has told of it

	read, write deadline
	writing     bool // a Write is in progress; others wait, so that no two mix
	shut        bool // our FIN has left
	linger0     bool
	closed      bool
}

var _ net.Conn = (*conn)(nil)

// A segment is what one end sends to the other: data, or a FIN or RST.
type segment struct {
	at       time.Time // of arrival
	data     []byte
	fin, rst bool
}

type deadline struct {
	timer  *time.Timer
	passed bool
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.id.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.id.remote) }

func (c *conn) Read(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.fail("read", net.ErrClosed)
		case c.read.passed:
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case c.in.Len() > 0:
			c.peer.cond.Broadcast() // it may write more
			return c.in.Read(b)
		case c.eof:
			return 0, io.EOF
		case c.reset:
			return 0, c.fail("read", os.NewSyscallError("read", syscall.ECONNRESET))
		}
		c.cond.Wait()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if err := c.waitLocked(func() bool { return !c.writing }); err != nil {
		return 0, err
	}
	c.writing = true
	defer func() {
		c.writing = false
		c.cond.Broadcast()
	}()
	room := func() int { return window - c.peer.in.Len() - c.peer.bytes }
	n := 0
	for n < len(b) {
		if err := c.waitLocked(func() bool { return room() > 0 }); err != nil {
			return n, err
		}
		part := b[n:min(len(b), n+room())]
		c.sendLocked(segment{data: bytes.Clone(part)})
		n += len(part)
	}
	return n, nil
}

// waitLocked waits until a Write may go on, or may not.
func (c *conn) waitLocked(ready func() bool) error {
	for {
		switch {
		case c.closed:
			return c.fail("write", net.ErrClosed)
		case c.write.passed:
			return c.fail("write", os.ErrDeadlineExceeded)
		case c.reset && !c.eof && !c.told:
			c.told = true
			return c.fail("write", os.NewSyscallError("write", syscall.ECONNRESET))
		case c.reset || c.shut:
			return c.fail("write", os.NewSyscallError("write", syscall.EPIPE))
		case ready():
			return nil
		}
		c.cond.Wait()
	}
}

// sendLocked puts a segment on its way to the peer.
func (c *conn) sendLocked(s segment) {
	if s.rst && c.host.hole != nil {
		return // lost: nobody sends a RST twice
	}
	s.at = time.Now().Add(c.net.Latency)
	c.peer.wire = append(c.peer.wire, s)
	c.peer.bytes += len(s.data)
	if c.net.Latency <= 0 {
		c.peer.arriveLocked()
		return
	}
	time.AfterFunc(c.net.Latency, func() {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		c.peer.arriveLocked()
	})
}

// arriveLocked takes from the wire what is due, in order whichever timer runs.
func (c *conn) arriveLocked() {
	now := time.Now()
	for c.host.hole == nil && len(c.wire) > 0 && !c.wire[0].at.After(now) {
		s := c.wire[0]
		c.wire = c.wire[1:]
		c.bytes -= len(s.data)
		switch {
		case s.rst:
			c.reset = true
		case c.closed && len(s.data) > 0:
			c.sendLocked(segment{rst: true})
		case s.fin:
			c.eof = true
		case !c.closed:
			c.in.Write(s.data)
		}
	}
	c.cond.Broadcast()
	c.peer.cond.Broadcast()
}

// Close sends a FIN; or a RST after SetLinger(0), or while data is unread, as
// kernels do.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.closeLocked(c.linger0 || c.in.Len() > 0)
	return nil
}

func (c *conn) closeLocked(reset bool) {
	c.setLocked(&c.read, time.Time{})
	c.setLocked(&c.write, time.Time{})
	c.closed = true
	c.in = bytes.Buffer{}
	delete(c.net.open, c.id)
	switch {
	case c.reset:
	case reset:
		c.sendLocked(segment{rst: true})
	case !c.shut:
		c.sendLocked(segment{fin: true})
	}
	c.cond.Broadcast()
}

// CloseWrite sends a FIN; the other direction stays open.
func (c *conn) CloseWrite() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	if !c.shut && !c.reset {
		c.shut = true
		c.sendLocked(segment{fin: true})
	}
	c.cond.Broadcast()
	return nil
}

// SetLinger with 0 makes Close send a RST. Other values are the default.
func (c *conn) SetLinger(sec int) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	c.linger0 = sec == 0
	return nil
}

// Queued tells how many bytes wait here unread, and how many have not reached
// the other end.
func (c *conn) Queued() (unread, unsent int) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return c.in.Len(), c.peer.bytes
}

// Ended is io.EOF when the peer's FIN has come, another error when a RST or both
// FINs have, and nil before; whatever is unread.
func (c *conn) Ended() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	switch {
	case c.closed:
		return c.fail("read", net.ErrClosed)
	case c.reset && c.eof:
		return c.fail("read", os.NewSyscallError("read", syscall.EPIPE)) // as Linux has it
	case c.reset:
		return c.fail("read", os.NewSyscallError("read", syscall.ECONNRESET))
	case c.eof && c.peer.eof:
		return c.fail("read", os.NewSyscallError("read", syscall.ENOTCONN))
	case c.eof:
		return io.EOF
	}
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.set(t, &c.read) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(t, &c.write) }
func (c *conn) SetDeadline(t time.Time) error      { return c.set(t, &c.read, &c.write) }

func (c *conn) set(t time.Time, ds ...*deadline) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	for _, d := range ds {
		c.setLocked(d, t)
	}
	c.cond.Broadcast()
	return nil
}

func (c *conn) setLocked(d *deadline, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer, d.passed = nil, false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		c.net.mu.Lock() // held until d.timer is set below
		defer c.net.mu.Unlock()
		if d.timer == timer { // not stopped too late
			d.passed = true
			c.cond.Broadcast()
		}
	})
	d.timer = timer
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
