package keepalive

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrRetired says that a connection was ended while it was parked. Nothing of
// what was to be written has been sent.
var ErrRetired error = retired("keepalive: connection retired while parked")

// ErrStale says that a parked connection was silent for longer than its path
// remembers. Nothing of what was to be written has been sent.
var ErrStale error = retired("keepalive: connection silent for longer than its path remembers")

type retired string

func (e retired) Error() string     { return string(e) }
func (e retired) SafeToRetry() bool { return true }

// A Conn is a net.Conn that knows for how long it was silent, whether it is
// lent or parked, and how it ended. Watch makes one; the zero Conn is not
// usable. It may be used by many goroutines as any net.Conn. Whoever uses it
// closes it; one that is dropped without Close is closed when the garbage
// collector finds it.
//
// A Conn is born lent, in its first turn. Its owner parks it when the turn is
// over and unparks it for the next. A parked Conn may be retired by anyone:
// Park offers it, and of Unpark and Retire the first one wins.
type Conn struct {
	l *life // apart from Conn: the cleanup must not keep Conn alive
}

// life is a connection's state, which outlives its Conn.
type life struct {
	net.Conn
	plan  Plan
	born  time.Time
	ended func(Ending)

	state atomic.Uint64 // turn << 2 | active, parked, retired or closed
	marks atomic.Uint32 // what was seen or ordered: the mark constants

	read, written atomic.Int64

	// Since when nothing moved, by two clocks, and the bytes moved until then.
	// Written by whoever changes the state, before the change.
	sinceMono, sinceWall, sinceBytes atomic.Int64

	cleanup runtime.Cleanup
}

const (
	active = iota
	parked
	retiredState
	closed

	stateBits = 2
	stateMask = 1<<stateBits - 1
)

const (
	sawFIN    = 1 << iota // the peer's FIN: Read returned io.EOF
	sentFIN               // ours, by CloseWrite
	sawReset              // ECONNRESET or EPIPE
	sawDeath              // the kernel's own verdict
	answerDue             // a request is out and its answer is not here
	soonest               // end by RST if nothing is lost by it; drop what is still written
)

// A Turn is one loan of a connection, from Unpark to Park.
type Turn uint64

// Watch returns c as a Conn that follows plan. It calls ended exactly once,
// after the connection has ended and its socket is closed, whoever ended it;
// ended must not block and must not keep the Conn alive.
//
// A c that is no kernel socket may have a method Queued() (unread, unsent int),
// which tells how many bytes wait in it unread and unacknowledged.
func Watch(c net.Conn, plan Plan, ended func(Ending)) *Conn {
	l := &life{Conn: c, plan: plan, born: time.Now(), ended: ended}
	l.mark()
	w := &Conn{l}
	l.cleanup = runtime.AddCleanup(w, (*life).lost, l)
	return w
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)

// NetConn returns the connection underneath. Closing that one directly hides
// the ending from whoever counts it.
func (c *Conn) NetConn() net.Conn { return c.l.Conn }

// BytesRead and BytesWritten count what has passed since Watch.
func (c *Conn) BytesRead() int64    { return c.l.read.Load() }
func (c *Conn) BytesWritten() int64 { return c.l.written.Load() }

func (c *Conn) Read(b []byte) (int, error) {
	l := c.l
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.read.Add(int64(n))
	}
	if err != nil {
		err = l.note(err)
	}
	runtime.KeepAlive(c) // a blocked Read is not a dropped connection
	return n, err
}

// Write sends b. On a connection that was retired it returns 0 and ErrRetired;
// on one that EndSoonest marked it drops b, which is then a goodbye that the
// RST would overtake.
func (c *Conn) Write(b []byte) (int, error) {
	l := c.l
	if err := l.mute(); err != nil {
		return l.swallow(len(b), err)
	}
	n, err := l.Conn.Write(b)
	if n > 0 {
		l.written.Add(int64(n))
	}
	if err != nil {
		err = l.note(err)
	}
	runtime.KeepAlive(c)
	return n, err
}

// ReadFrom sends what r yields, by sendfile or splice where the connection
// underneath can.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	l := c.l
	if err := l.mute(); err != nil {
		if err == errGoodbye {
			return io.Copy(io.Discard, r)
		}
		return 0, err
	}
	var n int64
	var err error
	if rf, ok := l.Conn.(io.ReaderFrom); ok {
		n, err = rf.ReadFrom(r)
	} else {
		n, err = io.Copy(struct{ io.Writer }{l.Conn}, r) // hides our ReadFrom from io.Copy
	}
	l.written.Add(n)
	if err != nil {
		err = l.note(err)
	}
	runtime.KeepAlive(c)
	return n, err
}

// WriteTo passes what arrives on to w, by splice where both sides can.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	l := c.l
	var n int64
	var err error
	if wt, ok := l.Conn.(io.WriterTo); ok {
		n, err = wt.WriteTo(w)
	} else {
		n, err = io.Copy(w, struct{ io.Reader }{l.Conn})
	}
	l.read.Add(n)
	if err == nil {
		l.marks.Or(sawFIN)
	} else {
		err = l.note(err)
	}
	runtime.KeepAlive(c)
	return n, err
}

// CloseWrite sends a FIN and leaves the other direction open, where the
// connection underneath can.
func (c *Conn) CloseWrite() error {
	defer runtime.KeepAlive(c)
	cw, ok := c.l.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	c.l.marks.Or(sentFIN)
	return cw.CloseWrite()
}

// SyscallConn gives access to the socket, for options and for looking at it.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.l.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

func (c *Conn) LocalAddr() net.Addr                { return c.l.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr               { return c.l.RemoteAddr() }
func (c *Conn) SetDeadline(t time.Time) error      { return c.l.SetDeadline(t) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.l.SetReadDeadline(t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.l.SetWriteDeadline(t) }

// Close ends the connection. It does not block: where the plan's path holds
// ports, the socket stays open in the background until the peer's FIN has come,
// for at most the minute that Linux would keep it. The second Close returns
// net.ErrClosed.
func (c *Conn) Close() error {
	l := c.l
	for {
		was := l.state.Load()
		if was&stateMask == closed {
			return &net.OpError{Op: "close", Net: "tcp", Source: l.LocalAddr(), Addr: l.RemoteAddr(), Err: net.ErrClosed}
		}
		if l.state.CompareAndSwap(was, was|closed) {
			break
		}
	}
	l.cleanup.Stop()
	return l.end(false)
}

// EndSoonest marks the connection to be ended by RST when it is closed, if then
// nothing can be lost: nothing unread, nothing unacknowledged. Only an owner
// who knows that the connection is between two exchanges may call it. What is
// written from now on is dropped, since TLS and drivers write a goodbye that
// the RST would overtake.
func (c *Conn) EndSoonest() { c.l.marks.Or(soonest) }

// Asked says that a request was sent and its answer is due, Answered that it
// began to come. A connection closed in between ends by RST: the late answer
// would turn a FIN into one anyway.
func (c *Conn) Asked()    { c.l.marks.Or(answerDue) }
func (c *Conn) Answered() { c.l.marks.And(^uint32(answerDue)) }

// Turn returns the present turn.
func (c *Conn) Turn() Turn { return Turn(c.l.state.Load() >> stateBits) }

// Park ends turn t and offers the connection to be retired. It reports false,
// and changes nothing, where t is over: somebody else has the connection by
// now.
func (c *Conn) Park(t Turn) bool {
	l := c.l
	if l.state.Load() != uint64(t)<<stateBits|active {
		return false
	}
	l.mark()
	return l.state.CompareAndSwap(uint64(t)<<stateBits|active, uint64(t)<<stateBits|parked)
}

// Unpark begins a new turn, whether or not the last one was parked. It fails
// with ErrRetired if the connection was retired, with ErrStale if it was silent
// for too long, and with net.ErrClosed; then only Close is left to do.
func (c *Conn) Unpark() (Turn, error) {
	l := c.l
	for {
		was := l.state.Load()
		turn := was>>stateBits + 1
		next, failed := turn<<stateBits|active, error(nil)
		switch was & stateMask {
		case retiredState:
			return 0, ErrRetired
		case closed:
			return 0, net.ErrClosed
		case parked:
			if l.stale() {
				next, failed = was&^stateMask|retiredState, ErrStale
			}
		}
		if l.state.CompareAndSwap(was, next) {
			return Turn(turn), failed
		}
	}
}

// Retire ends the turn of a parked connection for good and reports whether it
// was parked: then the caller closes it, and every Write answers ErrRetired.
func (c *Conn) Retire() bool {
	was := c.l.state.Load()
	return was&stateMask == parked && c.l.state.CompareAndSwap(was, was&^stateMask|retiredState)
}

// Parked reports since when the connection is parked.
func (c *Conn) Parked() (since time.Time, ok bool) {
	l := c.l
	ok = l.state.Load()&stateMask == parked
	return l.born.Add(time.Duration(l.sinceMono.Load())), ok
}

// Closed reports whether Close was called, or the connection was retired.
func (c *Conn) Closed() bool { return c.l.state.Load()&stateMask >= retiredState }

// Silence returns for how long nothing is known to have crossed the path. It
// is the larger of what the monotonic and the wall clock say, so that a process
// that was frozen sees it. Where the kernel does not tell, the silence of a
// connection on which bytes have moved since its last turn began is zero.
func (c *Conn) Silence() time.Duration {
	defer runtime.KeepAlive(c)
	return c.l.silence()
}

var errGoodbye = errors.New("keepalive: goodbye dropped")

// mute returns why nothing must be written any more, nil in the usual case.
func (l *life) mute() error {
	if l.marks.Load()&soonest != 0 {
		return errGoodbye
	}
	if l.state.Load()&stateMask == retiredState {
		return ErrRetired
	}
	return nil
}

func (l *life) swallow(n int, why error) (int, error) {
	if why == errGoodbye {
		return n, nil
	}
	return 0, why
}

// note remembers what an error says about the flow.
func (l *life) note(err error) error {
	switch {
	case err == io.EOF:
		l.marks.Or(sawFIN)
	case errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE) && l.marks.Load()&sentFIN == 0:
		l.marks.Or(sawReset)
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		l.marks.Or(sawDeath)
	}
	return err
}

// mark notes that the connection was seen alive now.
func (l *life) mark() {
	now := time.Now()
	l.sinceMono.Store(int64(now.Sub(l.born)))
	l.sinceWall.Store(now.UnixNano())
	l.sinceBytes.Store(l.read.Load() + l.written.Load())
}

// marked returns how long ago that was, by each clock.
func (l *life) marked() (mono, wall time.Duration) {
	now := time.Now()
	mono = now.Sub(l.born) - time.Duration(l.sinceMono.Load())
	wall = time.Duration(now.UnixNano() - l.sinceWall.Load())
	return mono, wall
}

func (l *life) silence() time.Duration {
	mono, wall := l.marked()
	frozen := max(0, wall-mono)
	if heard, ok := lastHeard(l.Conn); ok {
		return heard + frozen
	}
	if l.read.Load()+l.written.Load() != l.sinceBytes.Load() {
		return 0
	}
	return mono + frozen
}

// stale reports whether the path may have forgotten a parked connection. Only
// one that was parked for that long makes it ask the kernel.
func (l *life) stale() bool {
	limit := l.plan.MaxSilence()
	if limit == 0 {
		return false
	}
	mono, wall := l.marked()
	return max(mono, wall) > limit && l.silence() > limit
}

// lost closes a connection that nobody holds any more.
func (l *life) lost() {
	if was := l.state.Load(); was&stateMask != closed && l.state.CompareAndSwap(was, was|closed) {
		l.end(true)
	}
}
