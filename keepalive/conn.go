package keepalive

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrRetired says that a connection was ended while it was parked. Nothing of
// what was to be written has been sent.
var ErrRetired error = unsent("keepalive: connection retired while parked")

// ErrStale says that a parked connection was silent for longer than its path
// remembers. Nothing of what was to be written has been sent.
var ErrStale error = unsent("keepalive: connection silent for longer than its path remembers")

// ErrEnded says that a connection is over, by a RST or because the kernel gave
// it up. Nothing of what was to be written has been sent.
var ErrEnded error = unsent("keepalive: connection ended while nobody used it")

// unsent is an error of a connection to which nothing was written.
type unsent string

func (e unsent) Error() string     { return string(e) }
func (e unsent) SafeToRetry() bool { return true }

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
	l    *life                  // apart from Conn: the cleanup must not keep Conn alive
	gone atomic.Pointer[func()] // Watcher's, which may: not in life

	doubted atomic.Pointer[func(suspect bool)] // WhenSuspect's, for the same reason
}

// life is a connection's state, which outlives its Conn.
type life struct {
	net.Conn
	raw   syscall.RawConn // nil: no socket
	plan  atomic.Pointer[Plan]
	born  time.Time
	ended func(Ending)
	vigil *vigil // a Detector's; nil: none watches

	state atomic.Uint64 // turn << stateBits | the state constants
	marks atomic.Uint32 // what was seen or ordered: the mark constants

	read, written atomic.Int64

	// Since when nothing moved, by two clocks, and the bytes moved until then.
	// Whoever ends a turn writes them, in this order, before the turn is over. A
	// reader goes the other way about the clocks, and so sees too short a
	// silence of the wall clock rather than too long a one.
	sinceWall, sinceMono, sinceBytes atomic.Int64

	parkedAt atomic.Int64 // after born; set before the state says parked

	looking sync.Mutex       // guards seen, during a look
	seen    sight            // here, and see made once, so that a look allocates nothing
	see     func(fd uintptr) // asks the kernel

	watch atomic.Pointer[watch] // by a Watcher, or nil

	survived func(gap time.Duration) // WhenSurvived's; nil: nobody asks
	segments atomic.Uint64           // in and out, at the last Park
	gap      atomic.Int64            // certified when the turn began, and no answer yet

	dead   atomic.Pointer[BlackholeError] // by whatever evidence; nil: it is not
	proved atomic.Int64                   // after born: when a Read had something, where the kernel does not tell

	cleanup runtime.Cleanup
}

const (
	parked  = 1 << iota // offered to be retired
	retired             // Unpark must fail
	closed              // besides the others: what was retired stays so

	stateBits = iota
	stateMask = 1<<stateBits - 1
	active    = 0
)

const (
	sawFIN    = 1 << iota // the peer's FIN: Read returned io.EOF
	sentFIN               // ours, by CloseWrite
	sawReset              // ECONNRESET or EPIPE
	sawDeath              // the kernel's own verdict
	answerDue             // a request is out and its answer is not here
	soonest               // end by RST if nothing is lost by it; drop what is still written
	suspect               // a Detector's suspicion
	left                  // its user has closed it, whoever did before
)

// A Turn is one loan of a connection, from Unpark to Park. The first is 0.
type Turn uint64

// Watch returns c as a Conn that follows plan. It calls ended exactly once,
// after the connection has ended and its socket is closed, whoever ended it;
// ended must not block and must not keep the Conn alive.
//
// A c that is no kernel socket may have methods that answer for the kernel:
// Queued() (unread, unsent int) tells how many bytes wait in it unread and
// unacknowledged; Ended() error is io.EOF when the peer's FIN has come, another
// error when the connection is over, and nil before.
func Watch(c net.Conn, plan Plan, ended func(Ending)) *Conn {
	l := &life{Conn: c, born: time.Now(), ended: ended}
	l.plan.Store(&plan)
	l.see = l.ask
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			l.raw = raw
		}
	}
	l.mark(0)
	w := &Conn{l: l}
	l.cleanup = runtime.AddCleanup(w, (*life).lost, l)
	return w
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)

// Follow has the connection follow p from now on, and sets its socket options, as
// Plan.Apply does: the path was found to remember for longer or shorter. What is no
// socket is asked for a method SetKeepAliveConfig.
func (c *Conn) Follow(p Plan) error {
	defer runtime.KeepAlive(c)
	c.l.plan.Store(&p)
	if _, kernel := c.l.Conn.(*net.TCPConn); !kernel {
		if k, ok := c.l.Conn.(interface {
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); ok {
			if err := k.SetKeepAliveConfig(p.KeepAlive()); err != nil {
				return err
			}
		}
	}
	if c.l.raw == nil {
		return nil
	}
	if v := c.l.vigil; v != nil {
		defer v.switchTimeout()
		v.setting.Lock()
		defer v.setting.Unlock()
		v.timeout = true
	}
	return p.Apply(c)
}

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
		l.prove()
	}
	if err != nil {
		err = l.fault(err)
	}
	runtime.KeepAlive(c) // a blocked Read is not a dropped connection
	return n, err
}

// Write sends b. On a connection that was retired it returns 0 and ErrRetired;
// on one that EndSoonest marked it drops b, which is then a goodbye that the
// RST would overtake.
func (c *Conn) Write(b []byte) (int, error) {
	l := c.l
	if dropped, err := l.mute(); dropped {
		return len(b), nil
	} else if err != nil {
		return 0, err
	}
	l.writing() // before: it may block
	n, err := l.Conn.Write(b)
	if n > 0 {
		l.written.Add(int64(n))
		l.writing() // and after: it may have taken its time until now
	}
	if err != nil {
		err = l.fault(err)
	}
	runtime.KeepAlive(c)
	return n, err
}

// ReadFrom sends what r yields, by sendfile or splice where the connection
// underneath can. BytesWritten counts it at the end.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	l := c.l
	rf, ok := l.Conn.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r) // hides this method
	}
	if dropped, err := l.mute(); dropped {
		return io.Copy(io.Discard, r)
	} else if err != nil {
		return 0, err
	}
	done := l.copying()
	n, err := rf.ReadFrom(r)
	l.written.Add(n)
	done()
	if err != nil {
		err = l.faultOfEither(err)
	}
	runtime.KeepAlive(c)
	return n, err
}

// WriteTo passes what arrives on to w, by splice where both sides can.
// BytesRead counts it at the end.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	l := c.l
	wt, ok := l.Conn.(io.WriterTo)
	if !ok {
		return io.Copy(w, struct{ io.Reader }{c})
	}
	n, err := wt.WriteTo(w)
	l.read.Add(n)
	if n > 0 {
		l.prove()
	}
	if err != nil {
		err = l.faultOfEither(err)
	} else {
		l.marks.Or(sawFIN)
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
	c.l.writing()
	return cw.CloseWrite()
}

// SyscallConn gives access to the socket, for options and for looking at it. It
// hides that there is a *net.TCPConn below: os.File.WriteTo would send to that
// one directly, past BytesWritten and past ErrRetired. By ReadFrom it is
// sendfile all the same.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.l.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	return struct{ syscall.RawConn }{raw}, nil
}

func (c *Conn) LocalAddr() net.Addr                { return c.l.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr               { return c.l.RemoteAddr() }
func (c *Conn) SetDeadline(t time.Time) error      { return c.l.SetDeadline(t) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.l.SetReadDeadline(t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.l.SetWriteDeadline(t) }

// Close ends the connection. It does not block: where the plan says Linger, the
// socket stays open in the background until the peer's FIN has come, so that
// the moment is known from which the path holds the port. The second Close
// returns net.ErrClosed.
func (c *Conn) Close() error {
	l := c.l
	first := l.marks.Or(left)&left == 0
	if !l.shut() {
		if first && l.dead.Load() != nil {
			return nil // a Detector was faster
		}
		return &net.OpError{Op: "close", Net: "tcp", Source: l.LocalAddr(), Addr: l.RemoteAddr(), Err: net.ErrClosed}
	}
	l.cleanup.Stop()
	return l.end(false)
}

// EndSoonest marks the connection to be ended by RST when it is closed, if then
// nothing can be lost: nothing unread, nothing unacknowledged. Only an owner
// who knows that the connection is between two exchanges may call it. What is
// written from now on is dropped, since TLS and drivers write a goodbye that
// the RST would overtake. Where nobody can tell what is unacknowledged, it does
// nothing.
func (c *Conn) EndSoonest() {
	if c.l.look().known {
		c.l.marks.Or(soonest)
	}
	runtime.KeepAlive(c)
}

// Asked says that a request was sent and its answer is due, Answered that it
// began to come. A connection closed in between ends by RST: the late answer
// would turn a FIN into one anyway.
func (c *Conn) Asked()    { c.l.marks.Or(answerDue) }
func (c *Conn) Answered() { c.l.marks.And(^uint32(answerDue)) }

// Turn returns the present turn.
func (c *Conn) Turn() Turn { return Turn(c.l.state.Load() >> stateBits) }

// Park ends turn t and offers the connection to be retired. It reports false,
// and changes nothing, where t is over: somebody else has the connection by
// now, or it is closed.
func (c *Conn) Park(t Turn) bool { return c.l.park(t, true) }

// ParkAgain is Park after a turn in which nobody has used the connection: it was
// only asked whether it is alive, and is parked since it was parked before.
func (c *Conn) ParkAgain(t Turn) bool { return c.l.park(t, false) }

func (l *life) park(t Turn, used bool) bool {
	was := uint64(t)<<stateBits | active
	if l.state.Load() != was {
		return false
	}
	l.rest()
	l.beginGap()
	if used {
		l.parkedAt.Store(int64(time.Since(l.born)))
	}
	return l.state.CompareAndSwap(was, was|parked)
}

// Unpark begins a new turn, whether or not the last one was parked. It fails
// with ErrRetired if the connection was retired, with ErrStale if it was silent
// for too long, and with net.ErrClosed; then only Close is left to do.
func (c *Conn) Unpark() (Turn, error) {
	l := c.l
	for {
		was := l.state.Load()
		switch {
		case was&retired != 0:
			return 0, ErrRetired
		case was&closed != 0:
			return 0, net.ErrClosed
		case was&parked != 0 && l.stale():
			if l.state.CompareAndSwap(was, was|retired) {
				return 0, ErrStale
			}
			continue
		}
		turn := was>>stateBits + 1
		if l.state.CompareAndSwap(was, turn<<stateBits|active) {
			l.endGap()
			return Turn(turn), nil
		}
	}
}

// Peek looks at what has come while nobody read, and takes nothing away. A pool
// asks it before it lends c; an error says that c must not be lent, and nil that
// nothing is known against it.
//
// It returns io.EOF if the peer's FIN has come, with what is unread before it;
// ErrEnded after a RST or a verdict of the kernel's; ErrRetired; or net.ErrClosed.
// With ErrEnded and net.ErrClosed comes the *BlackholeError by which the connection was
// given up, if it was. What is unread on a parked connection was not asked for, but
// need not be a fault: below TLS 1.3 it may be session tickets. What TLS has read
// ahead is not unread here. Deadlines do not matter.
//
// On the BSDs and darwin a FIN hides behind unread bytes, and an error is told
// to Peek instead of to the next Read. On Windows and elsewhere nobody can look:
// Peek says what Read and Write have met.
func (c *Conn) Peek() (unread int, err error) {
	l := c.l
	s := l.peek()
	runtime.KeepAlive(c)
	state, marks := l.state.Load(), l.marks.Load()
	switch {
	case state&retired != 0:
		return 0, ErrRetired
	case state&closed != 0 || s.closed:
		if dead := l.dead.Load(); dead != nil {
			return 0, errors.Join(net.ErrClosed, dead)
		}
		return 0, net.ErrClosed
	case s.ended || marks&(sawReset|sawDeath) != 0:
		if dead := l.dead.Load(); dead != nil {
			return s.unread, errors.Join(ErrEnded, dead)
		}
		return s.unread, ErrEnded
	case s.gotFIN || marks&sawFIN != 0:
		return s.unread, io.EOF
	}
	return s.unread, nil
}

// Retire ends the turn of a parked connection for good and reports whether it
// was parked: then the caller closes it, and every Write answers ErrRetired.
// Whoever watches it by a Watcher is told.
func (c *Conn) Retire() bool { return c.retire(false) }

// RetireSoonest is Retire, and EndSoonest before anybody is told, who may close it too.
func (c *Conn) RetireSoonest() bool { return c.retire(true) }

func (c *Conn) retire(soonest bool) bool {
	was := c.l.state.Load()
	if was&stateMask != parked || !c.l.state.CompareAndSwap(was, was|retired) {
		return false
	}
	if soonest {
		c.EndSoonest()
	}
	c.tell()
	return true
}

// tell calls what a Watcher was given for c, once.
func (c *Conn) tell() {
	if gone := c.gone.Swap(nil); gone != nil {
		(*gone)()
	}
}

// Parked reports whether the connection is parked, and since when.
func (c *Conn) Parked() (since time.Time, ok bool) {
	l := c.l
	ok = l.state.Load()&stateMask == parked
	return l.born.Add(time.Duration(l.parkedAt.Load())), ok
}

// Closed reports whether Close was called, or the connection was retired.
func (c *Conn) Closed() bool { return c.l.state.Load()&(retired|closed) != 0 }

// Silence returns for how long nothing is known to have crossed the path. It
// is the larger of what the monotonic and the wall clock say, so that a process
// that was frozen sees it. Where the kernel does not tell, the silence of a
// connection on which bytes have moved since it was last parked is zero.
func (c *Conn) Silence() time.Duration {
	defer runtime.KeepAlive(c)
	return c.l.silence()
}

// mute says why nothing must be written any more: it is to be dropped without a
// word, or refused. Neither is the usual case.
func (l *life) mute() (dropped bool, err error) {
	state := l.state.Load()
	if state&retired != 0 {
		return false, ErrRetired
	}
	return l.marks.Load()&soonest != 0 && state&closed == 0, nil
}

// shut makes the connection closed, and reports false if it was.
func (l *life) shut() bool { return l.state.Or(closed)&closed == 0 }

// note remembers what an error of the connection says about the flow.
func (l *life) note(err error) {
	switch {
	case err == io.EOF:
		l.marks.Or(sawFIN)
	case isReset(err):
		l.marks.Or(sawReset)
	case errors.Is(err, syscall.EPIPE):
		// Ours, after CloseWrite; or the second error after a RST; or the first,
		// and the peer's FIN came before its RST (Linux: tcp_reset).
		if l.marks.Load()&(sentFIN|sawReset) == 0 {
			l.marks.Or(sawReset | sawFIN)
		}
	case isTimedOut(err):
		var errno syscall.Errno
		errors.As(err, &errno)
		l.dead.CompareAndSwap(nil, &BlackholeError{Err: errno})
		l.marks.Or(sawDeath)
	case isUnreachable(err):
		l.marks.Or(sawDeath)
	}
}

// faultOfEither is fault for an error of the connection or of what it was copied
// from or to.
func (l *life) faultOfEither(err error) error {
	if s := l.look(); s.ended || s.closed {
		return l.fault(err)
	}
	return err
}

// rest notes at the end of a turn since when the connection is silent. A turn
// in which nothing moved is silence too. When in a turn the last byte moved,
// only the kernel knows: it is asked where the margin below Forgets is shorter.
func (l *life) rest() {
	if l.moved() == l.sinceBytes.Load() {
		return
	}
	var silent time.Duration
	if l.olderThan(l.plan.Load().Forgets - l.plan.Load().MaxSilence()) {
		silent = l.silence()
	}
	l.mark(silent)
}

func (l *life) moved() int64 { return l.read.Load() + l.written.Load() }

// mark notes for how long the connection is silent now.
func (l *life) mark(silent time.Duration) {
	since := time.Now().Add(-silent)
	l.sinceWall.Store(since.UnixNano())
	l.sinceMono.Store(int64(since.Sub(l.born)))
	l.sinceBytes.Store(l.moved())
}

// marked returns how long ago the silence began, by each clock.
func (l *life) marked() (mono, wall time.Duration) {
	now := time.Now()
	mono = now.Sub(l.born) - time.Duration(l.sinceMono.Load())
	wall = time.Duration(now.UnixNano() - l.sinceWall.Load())
	return mono, wall
}

func (l *life) silence() time.Duration {
	mono, wall := l.marked()
	frozen := max(0, wall-mono)
	if heard, ok := lastHeard(l.raw); ok {
		return heard + frozen
	}
	if l.moved() != l.sinceBytes.Load() {
		return 0
	}
	return mono + frozen
}

// stale reports whether the path may have forgotten a parked connection. Only
// one that was parked for that long makes it ask the kernel.
func (l *life) stale() bool {
	limit := l.plan.Load().MaxSilence()
	return l.olderThan(limit) && l.silence() > limit
}

// olderThan reports whether the mark is older than d. Without a limit to the
// silence nothing is.
func (l *life) olderThan(d time.Duration) bool {
	mono, wall := l.marked()
	return l.plan.Load().Forgets > 0 && max(mono, wall) > d
}

// lost closes a connection that nobody holds any more.
func (l *life) lost() {
	if l.shut() {
		l.end(true)
	}
}
