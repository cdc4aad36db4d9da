package keepalive_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

const patience = 10 * time.Second // for what must happen, on a busy machine

// An ear is given to Watch and hears of the ending.
type ear chan keepalive.Ending

// Capacity two: a second call is a bug to be found, not to hang on.
func newEar() ear { return make(ear, 2) }

func (e ear) tell(end keepalive.Ending) { e <- end }

// ending waits for the ending.
func (e ear) ending(t *testing.T) keepalive.Ending {
	t.Helper()
	select {
	case end := <-e:
		return end
	case <-time.After(patience):
		t.Fatal("nobody told of the ending")
		panic("unreachable")
	}
}

// want waits for the ending and compares it; its error need only match.
func (e ear) want(t *testing.T, want keepalive.Ending) {
	t.Helper()
	got := e.ending(t)
	if errors.Is(got.Err, want.Err) {
		want.Err = got.Err
	}
	if got != want {
		t.Errorf("it ended as %v %+v, want %v %+v", got.How, got, want.How, want)
	}
}

// silent fails if there is an ending although there must be none yet.
func (e ear) silent(t *testing.T, why string) {
	t.Helper()
	select {
	case end := <-e:
		t.Fatalf("the ending %+v was told %s", end, why)
	case <-time.After(30 * time.Millisecond):
	}
}

// until asks again and again whether something is so.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tooLong := time.After(patience)
	for !done() {
		select {
		case <-tooLong:
			t.Fatalf("after %v still not: %s", patience, what)
		case <-time.After(time.Millisecond):
		}
	}
}

// loopback returns both ends of a TCP connection.
func loopback(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// watched is loopback with the near end watched.
func watched(t testing.TB, plan keepalive.Plan) (near *keepalive.Conn, far *net.TCPConn, told ear) {
	t.Helper()
	told = newEar()
	c, far := loopback(t)
	return keepalive.Watch(c, plan, told.tell), far, told
}

// inMemory is watched in a network for virtual time.
func inMemory(t *testing.T, plan keepalive.Plan) (near *keepalive.Conn, far net.Conn, told ear) {
	t.Helper()
	var n memnet.Network
	ln, err := n.Listen("20.1.2.3:443")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := n.DialContext(context.Background(), "tcp", "20.1.2.3:443")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); far.Close() })
	told = newEar()
	return keepalive.Watch(c, plan, told.tell), far, told
}

// A stub is a connection that costs nothing: every Read fills its buffer, every
// Write takes it.
type stub struct {
	mu     sync.Mutex // guards closed
	closed int
}

func (s *stub) Read(b []byte) (int, error)  { return len(b), nil }
func (s *stub) Write(b []byte) (int, error) { return len(b), nil }

func (s *stub) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func (s *stub) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stub) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stub) SetDeadline(time.Time) error      { return nil }
func (s *stub) SetReadDeadline(time.Time) error  { return nil }
func (s *stub) SetWriteDeadline(time.Time) error { return nil }
