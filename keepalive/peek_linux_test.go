package keepalive_test

import (
	"io"
	"sync"
	"testing"

	"github.com/natwise/natwise/keepalive"
)

func TestPeekAtASocket(t *testing.T) {
	testFinds(t, func(t *testing.T) (*keepalive.Conn, tcp, ear) {
		c, far, told := watched(t, lingering)
		return c, far, told
	}, func(t *testing.T, f func(*testing.T)) { f(t) })
}

func TestPeekAtASocketNeedsNoDeadline(t *testing.T) {
	c, far, _ := watched(t, keepalive.Plan{})
	testPastDeadline(t, c, far)
}

// A server may send them after the handshake, to a client that keeps sessions.
func TestSessionTicketsAreUnread(t *testing.T) {
	c, far, _ := watched(t, keepalive.Plan{})
	defer c.Close()
	client, server := withTLS(t, c, far)
	until(t, "tickets here", func() bool {
		unread, err := c.Peek()
		return unread > 100 && err == nil
	})
	talk(t, client, server)
	wantPeek(t, c, 0, nil)
	server.Close()
	const goodbye = 5 + 2 + 1 + 16 // a record with an alert, its type and the tag
	wantPeek(t, c, goodbye, io.EOF)
}

func TestPeekMeetsAReaderAndAClose(t *testing.T) {
	c, far, _ := watched(t, keepalive.Plan{})
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, c) })
	for range 4 {
		wg.Go(func() {
			for !c.Closed() {
				c.Peek()
			}
		})
	}
	far.Write(make([]byte, 1<<20))
	c.Close()
	wg.Wait()
}

func TestPeekDoesNotAllocate(t *testing.T) {
	c, _, _ := watched(t, keepalive.Plan{})
	defer c.Close()
	if n := testing.AllocsPerRun(100, func() { c.Peek() }); n != 0 {
		t.Errorf("Peek allocates %v times", n)
	}
}

func BenchmarkPeek(b *testing.B) {
	c, _, _ := watched(b, keepalive.Plan{})
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		c.Peek()
	}
}
