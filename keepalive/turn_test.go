package keepalive_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
)

func TestALatePark(t *testing.T) {
	c := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
	defer c.Close()
	first := c.Turn()
	if !c.Park(first) {
		t.Fatal("the first turn cannot be parked")
	}
	if c.Park(first) {
		t.Error("the first turn was parked twice")
	}
	second, err := c.Unpark()
	if err != nil || second == first || second != c.Turn() {
		t.Fatalf("after turn %d comes %d, %v; the present one is %d", first, second, err, c.Turn())
	}
	if c.Park(first) {
		t.Error("a late Park ended somebody else's turn")
	}
	third, err := c.Unpark() // whoever lends it need not have parked it
	if err != nil || third == second {
		t.Fatalf("after turn %d comes %d, %v", second, third, err)
	}
	if c.Park(second) || !c.Park(third) {
		t.Error("the third turn is not the present one")
	}
}

func TestOnlyAParkedConnectionIsRetired(t *testing.T) {
	told := newEar()
	c := keepalive.Watch(new(stub), keepalive.Plan{}, told.tell)
	if _, ok := c.Parked(); ok || c.Closed() || c.Retire() {
		t.Error("a lent connection was parked, closed or retired")
	}
	c.Park(c.Turn())
	if _, ok := c.Parked(); !ok || !c.Retire() {
		t.Error("a parked connection was not retired")
	}
	if _, ok := c.Parked(); ok || !c.Closed() || c.Retire() || c.Park(c.Turn()) {
		t.Error("a retired connection was parked, not closed, or retired again")
	}
	if len(told) > 0 {
		t.Error("it has ended before anybody closed it")
	}
	c.Close()
	told.ending(t)
}

// Whoever retires a connection marks and closes it at once; its owner finds out
// later, and must not think that the request was sent.
func TestNothingIsWrittenOnARetiredConnection(t *testing.T) {
	type step struct {
		name string
		do   func(*keepalive.Conn)
	}
	for _, after := range []step{
		{"retired", func(c *keepalive.Conn) {}},
		{"marked", func(c *keepalive.Conn) { c.EndSoonest() }},
		{"closed", func(c *keepalive.Conn) { c.Close() }},
		{"marked and closed", func(c *keepalive.Conn) { c.EndSoonest(); c.Close() }},
	} {
		t.Run(after.name, func(t *testing.T) {
			c, _, _ := watched(t, keepalive.Plan{Linger: time.Second})
			defer c.Close()
			c.Park(c.Turn())
			c.Retire()
			after.do(c)
			n, err := c.Write([]byte("request"))
			if n != 0 || !errors.Is(err, keepalive.ErrRetired) {
				t.Errorf("Write: %d, %v", n, err)
			}
			if safe, ok := errors.AsType[interface {
				error
				SafeToRetry() bool
			}](err); !ok || !safe.SafeToRetry() {
				t.Errorf("%v does not say that nothing was sent", err)
			}
			if n, err := c.ReadFrom(&io.LimitedReader{R: new(stub), N: 9}); n != 0 || !errors.Is(err, keepalive.ErrRetired) {
				t.Errorf("ReadFrom: %d, %v", n, err)
			}
			if _, err := c.Unpark(); !errors.Is(err, keepalive.ErrRetired) {
				t.Errorf("Unpark: %v", err)
			}
		})
	}
}

func TestAClosedConnectionIsClosed(t *testing.T) {
	for _, name := range []string{"lent", "parked", "marked"} {
		t.Run(name, func(t *testing.T) {
			c, _, _ := watched(t, keepalive.Plan{})
			switch name {
			case "parked":
				c.Park(c.Turn())
			case "marked":
				c.EndSoonest()
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, ok := c.Parked(); ok || !c.Closed() || c.Retire() || c.Park(c.Turn()) {
				t.Error("it was parked, not closed, or retired")
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Close again: %v", err)
			}
			if _, err := c.Unpark(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Unpark: %v", err)
			}
			if n, err := c.Write([]byte("x")); n != 0 || !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write: %d, %v", n, err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
		})
	}
}

func TestEitherRetireOrUnparkWins(t *testing.T) {
	const rounds, each = 5000, 2
	var retired int32
	for range rounds {
		c := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
		turn := c.Turn()
		c.Park(turn)
		var start atomic.Bool
		var retires, unparks, parks atomic.Int32
		var wg sync.WaitGroup
		together := func(f func()) {
			wg.Go(func() {
				for !start.Load() { // a channel would wake them one by one
					runtime.Gosched()
				}
				f()
			})
		}
		for range each {
			together(func() {
				if c.Retire() {
					retires.Add(1)
					c.Close()
				}
			})
			together(func() {
				if _, err := c.Unpark(); err == nil {
					unparks.Add(1)
				} else if !errors.Is(err, keepalive.ErrRetired) {
					t.Error(err)
				}
			})
			together(func() {
				if c.Park(turn) {
					parks.Add(1)
				}
			})
		}
		start.Store(true)
		wg.Wait()
		if r, u := retires.Load(), unparks.Load(); !(r == 1 && u == 0 || r == 0 && u == each) {
			t.Fatalf("%d retired it and %d unparked it", r, u)
		}
		if parks.Load() > 0 {
			t.Fatal("a turn that was parked was parked again")
		}
		retired += retires.Load()
		c.Close()
	}
	t.Logf("Retire won %d of %d times", retired, rounds)
}

func TestTheEndingIsToldOnce(t *testing.T) {
	for range 500 {
		told := newEar()
		under := new(stub)
		c := keepalive.Watch(under, keepalive.Plan{}, told.tell)
		var closes atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if c.Close() == nil {
					closes.Add(1)
				}
			})
			wg.Go(func() {
				c.Park(c.Turn())
				if c.Retire() && c.Close() == nil {
					closes.Add(1)
				}
			})
			wg.Go(func() { c.Unpark() })
		}
		wg.Wait()
		if closes.Load() != 1 || under.closed != 1 || len(told) != 1 {
			t.Fatalf("closed %d times, the socket %d times, and told %d times", closes.Load(), under.closed, len(told))
		}
	}
}

// Whoever is told of the end may close it before the caller of Retire does.
func TestAConnectionThatIsRetiredSoonestIsEndedByRSTWhoeverClosesIt(t *testing.T) {
	for name, c := range map[string]struct {
		retire func(*keepalive.Conn) bool
		how    keepalive.How
	}{
		"retired":         {(*keepalive.Conn).Retire, keepalive.FINByUs},
		"retired soonest": {(*keepalive.Conn).RetireSoonest, keepalive.RSTByUs},
	} {
		t.Run(name, func(t *testing.T) {
			var w keepalive.Watcher
			told := newEar()
			conn := keepalive.Watch(&queue{Conn: new(stub)}, keepalive.Plan{}, told.tell)
			conn.Park(conn.Turn())
			w.Watch(conn, func() { conn.Close() })
			if !c.retire(conn) {
				t.Fatal("it was not parked")
			}
			if end := told.ending(t); end.How != c.how {
				t.Errorf("it was ended by %v, not %v", end.How, c.how)
			}
		})
	}
}

func TestADroppedConnectionIsFoundAndClosed(t *testing.T) {
	under, told := new(stub), newEar()
	drop := func() { keepalive.Watch(under, keepalive.Plan{}, told.tell).Write([]byte("x")) }
	drop()
	if end := collect(t, told); !end.Lost {
		t.Errorf("the ending is %+v", end)
	}
	under.mu.Lock()
	defer under.mu.Unlock()
	if under.closed != 1 {
		t.Errorf("the socket was closed %d times", under.closed)
	}
}

func TestAClosedConnectionIsNotFoundAgain(t *testing.T) {
	told := newEar()
	drop := func() { keepalive.Watch(new(stub), keepalive.Plan{}, told.tell).Close() }
	drop()
	if end := told.ending(t); end.Lost {
		t.Errorf("the ending is %+v", end)
	}
	collectAnother(t)
	if len(told) > 0 {
		t.Errorf("and then it was %+v", <-told)
	}
}

func TestABlockedReadIsNoDroppedConnection(t *testing.T) {
	near, far := loopback(t)
	told := newEar()
	reading, done := make(chan struct{}), make(chan error)
	go func(c *keepalive.Conn) {
		close(reading)
		_, err := c.Read(make([]byte, 1))
		done <- err
	}(keepalive.Watch(near, keepalive.Plan{}, told.tell))
	<-reading
	collectAnother(t)
	if len(told) > 0 {
		t.Fatal("it was closed while somebody read from it")
	}
	far.Write([]byte("x"))
	if err := <-done; err != nil {
		t.Errorf("Read: %v", err)
	}
	if end := collect(t, told); !end.Lost {
		t.Errorf("the ending is %+v", end)
	}
}

// collect runs the garbage collector until it has found a connection.
func collect(t *testing.T, told ear) keepalive.Ending {
	t.Helper()
	until(t, "found by the garbage collector", func() bool {
		runtime.GC()
		return len(told) > 0
	})
	return <-told
}

// collectAnother runs the garbage collector until it would have found a
// connection that was dropped before.
func collectAnother(t *testing.T) {
	t.Helper()
	for range 3 {
		told := newEar()
		drop := func() { keepalive.Watch(new(stub), keepalive.Plan{}, told.tell).Turn() }
		drop()
		collect(t, told)
	}
}

var forgetful = keepalive.Plan{Forgets: 240 * time.Second} // it may be silent for 230 s

func TestAConnectionSilentForTooLongIsNotLent(t *testing.T) {
	for _, test := range []struct {
		silence time.Duration
		want    error
	}{
		{0, nil},
		{230 * time.Second, nil},
		{230*time.Second + 1, keepalive.ErrStale},
		{24 * time.Hour, keepalive.ErrStale},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := inMemory(t, forgetful)
			defer c.Close()
			time.Sleep(time.Hour) // lent
			c.Write([]byte("x"))
			c.Park(c.Turn())
			parked := time.Now()
			time.Sleep(test.silence)
			if since, ok := c.Parked(); !ok || !since.Equal(parked) {
				t.Errorf("parked %v ago: %v", time.Since(since), ok)
			}
			if got := c.Silence(); got != test.silence {
				t.Errorf("after %v the silence is %v", test.silence, got)
			}
			turn, err := c.Unpark()
			if err != test.want || (err == nil) != (turn != 0) {
				t.Fatalf("after %v: turn %d, %v", test.silence, turn, err)
			}
			if err == nil {
				return
			}
			if n, err := c.Write([]byte("x")); n != 0 || !errors.Is(err, keepalive.ErrRetired) {
				t.Errorf("a write on it: %d, %v", n, err)
			}
			if !c.Closed() || c.Retire() {
				t.Error("it is not retired")
			}
		})
	}
}

func TestATurnWithoutABytePassesForSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := inMemory(t, forgetful)
		defer c.Close()
		c.Park(c.Turn())
		for range 23 {
			time.Sleep(10 * time.Second)
			turn, err := c.Unpark()
			if err != nil {
				t.Fatal(err)
			}
			c.Park(turn)
		}
		if since, _ := c.Parked(); time.Since(since) != 0 {
			t.Errorf("parked %v ago", time.Since(since))
		}
		time.Sleep(time.Second)
		if got := c.Silence(); got != 231*time.Second {
			t.Errorf("the silence is %v", got)
		}
		if _, err := c.Unpark(); err != keepalive.ErrStale {
			t.Errorf("after 231 s: %v", err)
		}
	})
}

func TestAPathThatNeverForgetsForgivesAnySilence(t *testing.T) {
	for _, forgets := range []time.Duration{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := inMemory(t, keepalive.Plan{Forgets: forgets})
			defer c.Close()
			c.Park(c.Turn())
			time.Sleep(365 * 24 * time.Hour)
			c.Freeze(time.Hour)
			if _, err := c.Unpark(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAFrozenProcessSeesItsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := inMemory(t, forgetful)
		defer c.Close()
		c.Park(c.Turn())
		time.Sleep(time.Minute)
		c.Freeze(170 * time.Second)
		if _, err := c.Unpark(); err != nil {
			t.Errorf("after 230 s: %v", err)
		}
		c.Park(c.Turn())
		c.Freeze(time.Second)
		if got := c.Silence(); got != 231*time.Second {
			t.Errorf("the silence is %v", got)
		}
		if _, err := c.Unpark(); err != keepalive.ErrStale {
			t.Errorf("after 231 s: %v", err)
		}
	})
}

func TestAClockThatWasSetBackHidesNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := inMemory(t, forgetful)
		defer c.Close()
		c.Park(c.Turn())
		c.Freeze(-time.Hour)
		time.Sleep(231 * time.Second)
		if got := c.Silence(); got != 231*time.Second {
			t.Errorf("the silence is %v", got)
		}
		if _, err := c.Unpark(); err != keepalive.ErrStale {
			t.Errorf("after 231 s: %v", err)
		}
	})
}

func TestBytesEndTheSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far, _ := inMemory(t, forgetful)
		defer c.Close()
		time.Sleep(time.Minute)
		if got := c.Silence(); got != time.Minute {
			t.Errorf("before the first byte, the silence is %v", got)
		}
		far.Write([]byte("x"))
		c.Read(make([]byte, 1))
		if got := c.Silence(); got != 0 {
			t.Errorf("after a byte, the silence is %v", got)
		}
	})
}

func TestATurnInWhichNobodyUsedItDoesNotMakeItFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
		defer c.Close()
		c.Park(c.Turn())
		since, _ := c.Parked()
		time.Sleep(time.Minute)
		turn, err := c.Unpark()
		if err != nil {
			t.Fatal(err)
		}
		if !c.ParkAgain(turn) || c.ParkAgain(turn) {
			t.Error("ParkAgain does not park once")
		}
		if again, ok := c.Parked(); !ok || !again.Equal(since) {
			t.Errorf("parked since %v, want %v", again, since)
		}
	})
}
