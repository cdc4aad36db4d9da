package keepalive_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A wire is a connection in memory, of which a test says when anything comes. Its
// retransmission timeout is the kernel's least, 200 ms.
type wire struct {
	mu             sync.Mutex
	unread, unsent int
	heard          time.Time
	gone           chan struct{}
	reset          bool
}

func newWire() *wire { return &wire{heard: time.Now(), gone: make(chan struct{})} }

func (w *wire) Queued() (unread, unsent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unread, w.unsent
}

func (w *wire) Heard() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.heard)
}

// hear says that something has come, and what of the bytes that are out is still not
// acknowledged by it.
func (w *wire) hear(unsent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard, w.unsent = time.Now(), unsent
}

func (w *wire) Write(b []byte) (int, error) {
	select {
	case <-w.gone:
		return 0, net.ErrClosed
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unsent += len(b)
	return len(b), nil
}

func (w *wire) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

func (w *wire) Read(b []byte) (int, error) {
	<-w.gone
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
}

func (w *wire) SetLinger(int) error              { w.reset = true; return nil }
func (w *wire) Close() error                     { close(w.gone); return nil }
func (w *wire) LocalAddr() net.Addr              { return nil }
func (w *wire) RemoteAddr() net.Addr             { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// An owner counts what a Detector tells, and lets no control connection pass
// unless its path is up.
type owner struct {
	mu       sync.Mutex
	up       bool
	tries    []time.Time
	suspects []time.Time
	trusted  []time.Time

	forgotten []time.Duration
}

func (o *owner) Try(ctx context.Context) error {
	o.mu.Lock()
	o.tries = append(o.tries, time.Now())
	up := o.up
	o.mu.Unlock()
	if up {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (o *owner) Suspected(suspect bool, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if suspect {
		o.suspects = append(o.suspects, time.Now())
	} else {
		o.trusted = append(o.trusted, time.Now())
	}
}

func (o *owner) Forgotten(silence time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgotten = append(o.forgotten, silence)
}

func (o *owner) Remembered(time.Duration) {}

// seen returns what has happened so far.
func (o *owner) seen() (tries, suspects, trusted []time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.tries), slices.Clone(o.suspects), slices.Clone(o.trusted)
}

func (o *owner) heal() { o.mu.Lock(); o.up = true; o.mu.Unlock() }

// A ward is one connection under a Detector's eyes.
type ward struct {
	*keepalive.Conn
	wire  *wire
	owner *owner
	told  ear
	wrote time.Time
}

var there = netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:443"), Network: "tcp"}

func newWard(d *keepalive.Detector, at netpath.Key) *ward {
	w := &ward{wire: newWire(), owner: new(owner), told: newEar()}
	w.Conn = keepalive.Watch(w.wire, keepalive.Plan{}, w.told.tell)
	d.Guard(w.Conn, at, w.owner)
	return w
}

// ask writes a request.
func (w *ward) ask() {
	w.wrote = time.Now()
	w.Write([]byte("x"))
}

// wantSuspect wants it to be suspect, and to have been so soon enough.
func (w *ward) wantSuspect(t *testing.T, least, most time.Duration) {
	t.Helper()
	_, suspects, _ := w.owner.seen()
	if len(suspects) == 0 {
		t.Error("it was never suspect")
		return
	}
	within(t, "suspect", suspects[len(suspects)-1].Sub(w.wrote), least, most)
}

func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s after %v, want %v to %v", what, got, least, most)
	}
}

func TestAnAnswerInTimeIsNoSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w := newWard(&d, there)
		for range 100 {
			w.ask()
			time.Sleep(500 * time.Millisecond)
			w.wire.hear(0)
			time.Sleep(time.Minute)
		}
		if tries, suspects, _ := w.owner.seen(); w.Suspect() || len(suspects) > 0 || len(tries) > 0 {
			t.Errorf("suspect %d times, %d control connections", len(suspects), len(tries))
		}
		w.Close()
	})
}

func TestSilenceIsSuspectAndAnAnswerEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w := newWard(&d, there)
		told := make(chan bool, 8)
		w.WhenSuspect(func(suspect bool) { told <- suspect })
		time.Sleep(time.Second)
		w.ask()
		time.Sleep(5 * time.Second)
		w.wantSuspect(t, 600*time.Millisecond, 700*time.Millisecond)
		if !w.Suspect() {
			t.Error("it is not suspect")
		}
		w.wire.hear(0)
		time.Sleep(2 * time.Second)
		if _, _, trusted := w.owner.seen(); w.Suspect() || len(trusted) != 1 {
			t.Errorf("suspect still: %t, trusted %d times", w.Suspect(), len(trusted))
		}
		if len(told) != 2 || !<-told || <-told {
			t.Error("told otherwise than first suspect, then not")
		}
		w.Close()
	})
}

func TestAControlConnectionThatWorksIsEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w := newWard(&d, there)
		w.owner.heal()
		w.ask()
		_, err := w.Read(make([]byte, 1))
		within(t, "dead", time.Since(w.wrote), 1400*time.Millisecond, 3*time.Second)
		var hole *keepalive.BlackholeError
		if !errors.Is(err, keepalive.ErrBlackhole) || !errors.As(err, &hole) || hole.Evidence != keepalive.Control {
			t.Errorf("Read: %v", err)
		}
		if op, ok := err.(*net.OpError); !ok || op.Timeout() {
			t.Errorf("%T, a timeout: %t", err, ok && op.Timeout())
		}
		if n, err := w.Write([]byte("x")); n != 0 || !errors.Is(err, keepalive.ErrBlackhole) {
			t.Errorf("Write: %d, %v", n, err)
		}
		w.told.want(t, keepalive.Ending{How: keepalive.TimedOut, Unsure: true, Err: keepalive.ErrBlackhole})
		if !w.wire.reset {
			t.Error("it was not ended by RST")
		}
		if tries, _, _ := w.owner.seen(); len(tries) != 1 {
			t.Errorf("%d control connections", len(tries))
		}
		if err := w.Close(); err != nil {
			t.Errorf("its user's Close: %v", err)
		}
		if err := w.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the second: %v", err)
		}
	})
}

func TestOthersThatLiveAreEvidenceAndNothingIsDialed(t *testing.T) {
	for name, live := range map[string]func(w *ward){
		"busy":    func(w *ward) { w.ask(); w.wire.hear(0) },
		"reading": func(w *ward) { w.wire.hear(0) }, // not in the wheel
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d keepalive.Detector
				w, other := newWard(&d, there), newWard(&d, there)
				go func() {
					for range 100 {
						live(other)
						time.Sleep(50 * time.Millisecond)
					}
				}()
				time.Sleep(time.Second)
				w.ask()
				end := w.told.ending(t)
				within(t, "dead", time.Since(w.wrote), 1400*time.Millisecond, 3*time.Second)
				var hole *keepalive.BlackholeError
				if !errors.As(end.Err, &hole) || hole.Evidence != keepalive.Others {
					t.Errorf("it ended with %v", end.Err)
				}
				if tries, _, _ := w.owner.seen(); len(tries) > 0 {
					t.Error("a control connection was dialed")
				}
				other.Close()
				time.Sleep(time.Minute)
			})
		})
	}
}

func TestWhereNothingWorksThePathIsDownAndTheConnectionKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		var wards []*ward
		for range 50 {
			w := newWard(&d, there)
			w.ask()
			wards = append(wards, w)
		}
		elsewhere := newWard(&d, netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:80"), Network: "tcp"}) // lives, and proves nothing
		for range 60 {
			time.Sleep(time.Second)
			elsewhere.ask()
			elsewhere.wire.hear(0)
		}
		tries := 0
		for _, w := range wards {
			tried, _, _ := w.owner.seen()
			tries += len(tried)
			w.told.silent(t, "while the path is down")
			w.owner.heal()
			w.wire.hear(0)
		}
		if tries < 3 || tries > 6 {
			t.Errorf("%d control connections in a minute", tries)
		}
		time.Sleep(time.Minute)
		for _, w := range wards {
			w.told.silent(t, "after the path has healed")
			if w.Suspect() {
				t.Error("it is suspect still")
			}
			w.Close()
		}
		elsewhere.Close()
	})
}

// When a path heals, some connection is the first to hear of it. The others are
// about to.
func TestAPathThatHealsKillsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w, first := newWard(&d, there), newWard(&d, there)
		w.ask()
		first.ask()
		time.Sleep(10*time.Second + time.Millisecond) // its kernel sends again after 12.6 s
		first.wire.hear(0)
		for range 24 {
			time.Sleep(100 * time.Millisecond)
			first.ask()
			first.wire.hear(0)
		}
		w.wire.hear(0)
		time.Sleep(time.Minute)
		w.told.silent(t, "although the path healed")
		w.Close()
		first.Close()
	})
}

func TestAWriterThatNeverRestsIsWatchedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w := newWard(&d, there)
		for range 200 { // acknowledged 10 ms later, each of them
			w.ask()
			time.Sleep(10 * time.Millisecond)
			w.wire.hear(0)
			w.Write([]byte("x")) // something is always out
		}
		w.wrote = time.Now()
		for range 30 {
			w.Write([]byte("x"))
			time.Sleep(100 * time.Millisecond)
		}
		w.wantSuspect(t, 500*time.Millisecond, time.Second)
		w.Close()
		time.Sleep(time.Minute)
	})
}

func TestWhatIsCopiedSlowlyIsWatchedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w := newWard(&d, there)
		from, to := io.Pipe()
		go func() {
			time.Sleep(time.Minute) // nothing is out: there is nothing to look for
			w.wrote = time.Now()
			to.Write([]byte("x"))
			time.Sleep(time.Second)
			to.Close()
		}()
		if n, err := w.ReadFrom(from); n != 1 || err != nil {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		w.wantSuspect(t, 600*time.Millisecond, time.Second)
		w.Close()
		time.Sleep(time.Minute)
	})
}

func TestWhatEndsWhileItIsSuspectIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w := newWard(&d, there)
		w.ask()
		time.Sleep(700 * time.Millisecond)
		w.Close()
		time.Sleep(time.Minute)
		if _, _, trusted := w.owner.seen(); len(trusted) > 0 {
			t.Error("it was trusted after its end")
		}
		again := newWard(&d, there) // in the same bubble: the timer still works
		again.ask()
		time.Sleep(time.Second)
		if !again.Suspect() {
			t.Error("the next one is not watched")
		}
		again.Close()
	})
}

func TestFaultsAreToldApart(t *testing.T) {
	timedOut := &net.OpError{Op: "read", Err: syscall.ETIMEDOUT}
	for _, c := range []struct {
		err  error
		want keepalive.Fault
	}{
		{nil, keepalive.NoFault},
		{errors.New("something else"), keepalive.NoFault},
		{timedOut, keepalive.Blackhole},
		{&keepalive.BlackholeError{}, keepalive.Blackhole},
		{keepalive.ErrStale, keepalive.Blackhole},
		{&net.OpError{Op: "read", Err: syscall.EHOSTUNREACH}, keepalive.Unreachable},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, keepalive.Reset},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, keepalive.Reset},
		{context.DeadlineExceeded, keepalive.Deadline},
		{io.ErrUnexpectedEOF, keepalive.Finished},
		{keepalive.ErrRetired, keepalive.Shut},
		{net.ErrClosed, keepalive.Shut},
	} {
		if got := keepalive.FaultOf(c.err); got != c.want {
			t.Errorf("FaultOf(%v) is %v, want %v", c.err, got, c.want)
		}
	}
	if !timedOut.Timeout() {
		t.Error("package net has changed its mind: FaultOf's comment is wrong")
	}
}

// Of what was sent while the path was down, nothing counts against a connection.
func TestOnePacketLostAfterAnOutageKillsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d keepalive.Detector
		w, first := newWard(&d, there), newWard(&d, there)
		w.ask()
		first.ask()
		time.Sleep(10 * time.Second)
		for range 150 { // its kernel sends again after 12.6 s, in vain, and after 25.4 s
			first.wire.hear(0)
			time.Sleep(100 * time.Millisecond)
			first.ask()
		}
		w.told.silent(t, "for one lost packet since the path is up")
		w.Close()
		first.Close()
		time.Sleep(time.Minute)
	})
}

// A dying connection answers a Read as a kernel does after its verdict.
type dying struct{ stub }

func (*dying) Read([]byte) (int, error) {
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ETIMEDOUT}
}

func TestOnlyTheFirstCloseIsItsUsers(t *testing.T) {
	c := keepalive.Watch(new(dying), keepalive.Plan{}, func(keepalive.Ending) {})
	_, err := c.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.Is(err, keepalive.ErrBlackhole) || !errors.Is(err, syscall.ETIMEDOUT) || !errors.As(err, &op) || op.Timeout() {
		t.Errorf("Read: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close: %v", err)
	}
}
