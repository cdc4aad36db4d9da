package keepalive_test

import (
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// guarded is a connection that a test watches and, at its end, closes.
func guarded(t *testing.T, plan keepalive.Plan) (near *keepalive.Conn, far *net.TCPConn) {
	near, far, _ = watched(t, plan)
	t.Cleanup(func() { near.Close() })
	return near, far
}

// news counts what a Watcher tells.
type news struct {
	n    atomic.Int32
	came chan struct{}
}

func newNews() *news { return &news{came: make(chan struct{}, 8)} }

func (n *news) tell() {
	n.n.Add(1)
	n.came <- struct{}{}
}

func (n *news) wait(t *testing.T) {
	t.Helper()
	select {
	case <-n.came:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told")
	}
}

func TestTheEndOfAnIdleConnectionIsToldAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(far *net.TCPConn)
		want error
	}{
		{"FIN", func(far *net.TCPConn) { far.Close() }, io.EOF},
		{"half a FIN", func(far *net.TCPConn) { far.CloseWrite() }, io.EOF},
		{"data and FIN", func(far *net.TCPConn) { far.Write([]byte("bye")); far.Close() }, io.EOF},
		{"RST", func(far *net.TCPConn) { far.SetLinger(0); far.Close() }, keepalive.ErrEnded},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w keepalive.Watcher
			near, far := guarded(t, keepalive.Plan{})
			n := newNews()
			if !w.Watch(near, n.tell) {
				t.Fatal("it is not watched")
			}
			c.end(far)
			n.wait(t)
			if _, err := near.Peek(); err != c.want {
				t.Errorf("peek says %v, want %v", err, c.want)
			}
			near.Close()
			if n.n.Load() != 1 {
				t.Errorf("told %d times", n.n.Load())
			}
		})
	}
}

func TestDataIsNoNews(t *testing.T) {
	var w keepalive.Watcher
	near, far := guarded(t, keepalive.Plan{})
	n := newNews()
	w.Watch(near, n.tell)
	for range 100 {
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(near, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n.n.Load() != 0 {
		t.Error("data was told as an end")
	}
	far.Close()
	n.wait(t)
}

func TestWhatHasEndedBeforeItWasWatchedIsTold(t *testing.T) {
	var w keepalive.Watcher
	near, far := guarded(t, keepalive.Plan{})
	far.Close()
	until(t, "the FIN is here", func() bool { _, err := near.Peek(); return err == io.EOF })
	n := newNews()
	w.Watch(near, n.tell)
	n.wait(t)
}

func TestNothingIsToldOfWhatItsUserClosed(t *testing.T) {
	var w keepalive.Watcher
	other, otherFar := guarded(t, keepalive.Plan{})
	last := newNews()
	w.Watch(other, last.tell)
	for range 50 {
		near, far := guarded(t, keepalive.Plan{Linger: time.Minute}) // a duplicate of the socket lives on
		n := newNews()
		w.Watch(near, n.tell)
		near.Close()
		far.Close()
		if n.n.Load() != 0 {
			t.Error("the end of a closed connection was told")
		}
		if w.Watch(near, n.tell) {
			t.Error("a closed connection is watched")
		}
	}
	otherFar.Close() // told after all that the kernel had to say before
	last.wait(t)
}

func TestASlotsNewConnectionDoesNotHearOfTheOldOne(t *testing.T) {
	var w keepalive.Watcher
	keep, _ := guarded(t, keepalive.Plan{})
	w.Watch(keep, func() {})
	for range 200 {
		old, oldFar := guarded(t, keepalive.Plan{Linger: time.Minute})
		w.Watch(old, func() {})
		old.Close()
		young, youngFar := guarded(t, keepalive.Plan{})
		n := newNews()
		w.Watch(young, n.tell)
		oldFar.Close()
		if n.n.Load() != 0 {
			t.Fatal("it heard of another one's end")
		}
		youngFar.Close()
		n.wait(t)
		young.Close()
	}
}

func TestAWatchersGoroutineEndsWithTheLastConnection(t *testing.T) {
	var w keepalive.Watcher
	for range 3 { // TestMain finds what is left
		near, _ := guarded(t, keepalive.Plan{})
		if !w.Watch(near, func() {}) {
			t.Fatal("it is not watched")
		}
		near.Close()
	}
}

func TestAWatchedConnectionThatIsDroppedIsCollected(t *testing.T) {
	var w keepalive.Watcher
	near, _, told := watched(t, keepalive.Plan{})
	held := near
	w.Watch(near, func() { runtime.KeepAlive(held) }) // as a pool's entry would
	near, held = nil, nil
	deadline := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case e := <-told:
			if !e.Lost {
				t.Errorf("it ended by %+v", e)
			}
			return
		case <-deadline:
			t.Fatal("it was never collected")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestWatchingMeetsClosing(t *testing.T) {
	var w keepalive.Watcher
	for range 200 {
		near, far := guarded(t, keepalive.Plan{})
		var all sync.WaitGroup
		all.Go(func() { w.Watch(near, func() {}) })
		all.Go(func() { near.Close() })
		all.Go(func() { far.Close() })
		all.Wait()
	}
}

func TestWhatIsNoSocketIsNotWatched(t *testing.T) {
	var w keepalive.Watcher
	near := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
	defer near.Close()
	n := newNews()
	if w.Watch(near, n.tell) {
		t.Error("it is watched")
	}
	if near.Park(near.Turn()); !near.Retire() || n.n.Load() != 1 {
		t.Errorf("its retirement was told %d times", n.n.Load())
	}
}

func TestARetirementIsToldOnce(t *testing.T) {
	var w keepalive.Watcher
	near, far := guarded(t, keepalive.Plan{})
	n := newNews()
	w.Watch(near, n.tell)
	if near.Park(near.Turn()); !near.Retire() || n.n.Load() != 1 {
		t.Errorf("told %d times", n.n.Load())
	}
	far.Close()
	near.Close()
	if near.Retire() || n.n.Load() != 1 {
		t.Errorf("told %d times", n.n.Load())
	}
}

// A watched connection costs at most 64 bytes of Go's heap, and no goroutine.
func TestManyConnectionsAreWatchedByOneGoroutine(t *testing.T) {
	const many = 2000
	raise(t, 2*many+100)
	var w keepalive.Watcher
	conns := make([]*keepalive.Conn, many)
	far := make([]*net.TCPConn, many)
	for i := range conns {
		conns[i], far[i] = guarded(t, keepalive.Plan{})
	}
	told := make(chan struct{}, many)
	gone := func() { told <- struct{}{} }
	goroutines, heap := runtime.NumGoroutine(), inUse()
	for _, c := range conns {
		if !w.Watch(c, gone) {
			t.Fatal("it is not watched")
		}
	}
	if n := runtime.NumGoroutine() - goroutines; n != 1 {
		t.Errorf("%d goroutines", n)
	}
	if bytes := float64(inUse()-heap) / many; bytes > 64 {
		t.Errorf("%.1f bytes a connection", bytes)
	} else {
		t.Logf("%.1f bytes a connection", bytes)
	}
	for _, c := range far {
		c.Close()
	}
	for range many {
		<-told
	}
	runtime.KeepAlive(conns)
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// raise lets this process have n descriptors.
func raise(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= n {
		return
	}
	limit.Cur = min(n, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < n {
		t.Skipf("%d descriptors are allowed, %d needed", limit.Cur, n)
	}
}

func BenchmarkWatch(b *testing.B) {
	var w keepalive.Watcher
	near, _ := loopback(b)
	keep := keepalive.Watch(near, keepalive.Plan{}, func(keepalive.Ending) {})
	defer keep.Close()
	w.Watch(keep, func() {})
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		near, far := loopback(b)
		c := keepalive.Watch(near, keepalive.Plan{}, func(keepalive.Ending) {})
		b.StartTimer()
		w.Watch(c, func() {})
		b.StopTimer()
		c.Close()
		far.Close()
		b.StartTimer()
	}
}
