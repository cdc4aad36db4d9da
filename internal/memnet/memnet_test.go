package memnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"golang.org/x/net/nettest"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

const server = "20.1.2.3:443"

func TestAConnIsANetConn(t *testing.T) {
	for _, latency := range []time.Duration{0, 100 * time.Microsecond} {
		t.Run(latency.String(), func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				near, far := dialed(t, &memnet.Network{Latency: latency})
				return near, far, func() { near.Close(); far.Close() }, nil
			})
		})
	}
}

func TestADialTakesARoundTripAndASegmentHalfOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &memnet.Network{Latency: 40 * time.Millisecond}
		start := time.Now()
		near, far := dialed(t, n)
		if took := time.Since(start); took != 80*time.Millisecond {
			t.Errorf("the dial took %v", took)
		}
		start = time.Now()
		near.Write([]byte("hel"))
		near.Write([]byte("lo"))
		near.Close()
		if got, err := io.ReadAll(far); string(got) != "hello" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if took := time.Since(start); took != 40*time.Millisecond {
			t.Errorf("the FIN took %v", took)
		}
		far.Close()
	})
}

func TestADialWhereNobodyListensIsRefused(t *testing.T) {
	var n memnet.Network
	_, err := n.DialContext(t.Context(), "tcp", server)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the dial ended with %v", err)
	}
	if got, want := err.Error(), "dial tcp 20.1.2.3:443: connect: connection refused"; got != want {
		t.Errorf("the error reads %q, want %q", got, want)
	}
}

func TestPortsDoNotRepeatWhileInUse(t *testing.T) {
	var n memnet.Network
	l := listen(t, &n)
	defer l.Close()
	seen := make(map[string]bool)
	for range 60999 - 32768 + 1 {
		c, err := n.DialContext(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if seen[c.LocalAddr().String()] {
			t.Fatalf("%v was given twice", c.LocalAddr())
		}
		seen[c.LocalAddr().String()] = true
	}
	if _, err := n.DialContext(t.Context(), "tcp", server); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("without a port left the dial ended with %v", err)
	}
}

func TestADialIntoABlackHoleHangsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		defer listen(t, &n).Close()
		n.BlackHole(server)
		tooSlow := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, tooSlow)
		defer cancel()

		start := time.Now()
		_, err := n.DialContext(ctx, "tcp", server)
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("it hung for %v", took)
		}
		if !errors.Is(err, tooSlow) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it ended with %v", err)
		}
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
	})
}

func TestAHealedBlackHoleDeliversWhatWasSentMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		near, far := dialed(t, &n)
		defer near.Close()
		defer far.Close()
		n.BlackHole(server)
		for _, c := range []net.Conn{near, far} {
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Errorf("a write into the hole: %v", err)
			}
			c.SetReadDeadline(time.Now().Add(time.Hour))
		}
		for _, c := range []net.Conn{near, far} {
			if _, err := c.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a read from the hole: %v", err)
			}
			c.SetReadDeadline(time.Time{})
		}
		n.Heal(server)
		for _, c := range []net.Conn{near, far} {
			b := make([]byte, 9)
			if got, err := c.Read(b); string(b[:got]) != "hello" || err != nil {
				t.Errorf("healed, read %q, %v", b[:got], err)
			}
		}
	})
}

func TestABlackHoleLosesARST(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		near, far := dialed(t, &n)
		defer far.Close()
		n.BlackHole(server)
		near.(interface{ SetLinger(int) error }).SetLinger(0)
		near.Close()
		n.Heal(server)
		far.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
	})
}

func TestWhatWasWrittenIntoABlackHoleMayFindNobodyOnceItHeals(t *testing.T) {
	var n memnet.Network
	near, far := dialed(t, &n)
	defer far.Close()
	n.BlackHole(server)
	far.Write([]byte("is anybody there?"))
	near.(interface{ SetLinger(int) error }).SetLinger(0)
	near.Close()
	n.Heal(server)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read: %v", err)
	}
}

func TestTwoWritesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := dialed(t, new(memnet.Network))
		defer far.Close()
		const size = 100 << 10 // more than one Write can put on its way at once
		var writers sync.WaitGroup
		for _, letter := range []string{"a", "b", "c"} {
			writers.Go(func() { near.Write(bytes.Repeat([]byte(letter), size)) })
		}
		go func() {
			writers.Wait()
			near.Close()
		}()
		synctest.Wait()
		got, err := io.ReadAll(far)
		if err != nil || len(got) != 3*size {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		for i := 0; i < len(got); i += size {
			if n := bytes.Count(got[i:i+size], got[i:i+1]); n != size {
				t.Errorf("of %d bytes only %d are %q", size, n, got[i])
			}
		}
	})
}

func TestAWriterWaitsForAPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := dialed(t, new(memnet.Network))
		defer near.Close()
		near.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := near.Write(make([]byte, 1<<20))
		if n != 64<<10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		near.SetWriteDeadline(time.Time{})
		go func() {
			near.Write(make([]byte, 1<<20))
			near.Close()
		}()
		if n, err := io.Copy(io.Discard, far); n != 64<<10+1<<20 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		far.Close()
	})
}

func TestEndings(t *testing.T) {
	type linger interface{ SetLinger(int) error }
	tests := []struct {
		name        string
		end         func(near, far net.Conn)
		ended, read error // what far is told, and its Read gets
		write, next error // and its first two Writes
	}{
		{"a FIN ends reading, and what is written after it comes back as a RST",
			func(near, far net.Conn) { near.Close() }, io.EOF, io.EOF, nil, syscall.EPIPE},
		{"after CloseWrite the other direction stays open",
			func(near, far net.Conn) { near.(interface{ CloseWrite() error }).CloseWrite() }, io.EOF, io.EOF, nil, nil},
		{"SetLinger(0) and Close is a RST",
			func(near, far net.Conn) { near.(linger).SetLinger(0); near.Close() }, syscall.ECONNRESET, syscall.ECONNRESET, syscall.ECONNRESET, syscall.EPIPE},
		{"Close with unread data is a RST",
			func(near, far net.Conn) { far.Write([]byte("unread")); near.Close() }, syscall.ECONNRESET, syscall.ECONNRESET, syscall.ECONNRESET, syscall.EPIPE},
		{"a RST after a FIN breaks writing only",
			func(near, far net.Conn) { near.Close(); far.Write([]byte("late")) }, syscall.EPIPE, io.EOF, syscall.EPIPE, syscall.EPIPE},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			near, far := dialed(t, new(memnet.Network))
			defer near.Close()
			defer far.Close()
			ended := far.(interface{ Ended() error }).Ended
			if err := ended(); err != nil {
				t.Errorf("ended before its end: %v", err)
			}
			test.end(near, far)
			if err := ended(); !errors.Is(err, test.ended) {
				t.Errorf("ended: %v, want %v", err, test.ended)
			}
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, test.read) {
				t.Errorf("Read: %v, want %v", err, test.read)
			}
			for _, want := range []error{test.write, test.next} {
				if _, err := far.Write([]byte("x")); !errors.Is(err, want) {
					t.Errorf("Write: %v, want %v", err, want)
				}
			}
		})
	}
}

func TestAClosedListenerResetsWhatNobodyAccepted(t *testing.T) {
	var n memnet.Network
	l := listen(t, &n)
	c, err := n.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	listen(t, &n).Close() // the address is free again
}

func listen(t *testing.T, n *memnet.Network) net.Listener {
	t.Helper()
	l, err := n.Listen(server)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dialed returns both ends of a new connection.
func dialed(t *testing.T, n *memnet.Network) (near, far net.Conn) {
	t.Helper()
	l := listen(t, n)
	defer l.Close()
	near, err := n.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}
