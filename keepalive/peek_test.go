package keepalive_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// wantPeek asks until that is the answer: a kernel needs time.
func wantPeek(t *testing.T, c *keepalive.Conn, unread int, want error) {
	t.Helper()
	var got int
	var err error
	defer func() {
		if got != unread || err != want {
			t.Logf("Peek: %d, %v, want %d, %v", got, err, unread, want)
		}
	}()
	until(t, "what a Peek was to find", func() bool {
		got, err = c.Peek()
		return got == unread && err == want
	})
}

// tcp is what both a kernel's and a memnet's connection can do.
type tcp interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// finds are what may be found on a connection. In memory and in the kernel of
// Linux it is the same.
var finds = []struct {
	name   string
	come   func(c *keepalive.Conn, far tcp)
	unread int
	want   error
	read   error // the first Read's, once nothing is unread
	ending keepalive.Ending
}{
	{"nothing", func(*keepalive.Conn, tcp) {},
		0, nil, os.ErrDeadlineExceeded, keepalive.Ending{How: keepalive.FINByUs}},
	{"data", func(_ *keepalive.Conn, far tcp) { far.Write([]byte("hello")) },
		5, nil, os.ErrDeadlineExceeded, keepalive.Ending{How: keepalive.RSTByUs}},
	{"FIN", func(_ *keepalive.Conn, far tcp) { far.Close() },
		0, io.EOF, io.EOF, keepalive.Ending{How: keepalive.FINByPeer}},
	{"data, FIN", func(_ *keepalive.Conn, far tcp) { far.Write([]byte("hello")); far.Close() },
		5, io.EOF, io.EOF, keepalive.Ending{How: keepalive.RSTByUs, Unsure: true}},
	{"RST", func(_ *keepalive.Conn, far tcp) { far.SetLinger(0); far.Close() },
		0, keepalive.ErrEnded, syscall.ECONNRESET, keepalive.Ending{How: keepalive.RSTByPeer}},
	{"data, RST", func(_ *keepalive.Conn, far tcp) { far.Write([]byte("hello")); far.SetLinger(0); far.Close() },
		5, keepalive.ErrEnded, syscall.ECONNRESET, keepalive.Ending{How: keepalive.RSTByPeer}},
	{"FIN, RST", func(c *keepalive.Conn, far tcp) { far.Close(); c.Write([]byte("too late")) },
		0, keepalive.ErrEnded, io.EOF, keepalive.Ending{How: keepalive.RSTByPeer, Unsure: true}},
	{"FIN to our FIN", func(c *keepalive.Conn, far tcp) { c.CloseWrite(); io.Copy(io.Discard, far); far.Close() },
		0, keepalive.ErrEnded, io.EOF, keepalive.Ending{How: keepalive.FINByUs}},
}

// testFinds peeks twice. Then either the ending is judged at once, which needs
// all the evidence, or everything that was there is read.
func testFinds(t *testing.T, pair func(*testing.T) (*keepalive.Conn, tcp, ear), run func(*testing.T, func(*testing.T))) {
	for _, test := range finds {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(t *testing.T) {
				c, far, told := pair(t)
				test.come(c, far)
				wantPeek(t, c, test.unread, test.want)
				wantPeek(t, c, test.unread, test.want)
				c.Close()
				far.Close()
				told.want(t, test.ending)
			})
			run(t, func(t *testing.T) {
				c, far, _ := pair(t)
				defer c.Close()
				test.come(c, far)
				wantPeek(t, c, test.unread, test.want)
				if n, err := io.ReadFull(c, make([]byte, test.unread)); n != test.unread || err != nil {
					t.Errorf("of %d unread bytes came %d, %v", test.unread, n, err)
				}
				c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, test.read) {
					t.Errorf("Read: %v, want %v", err, test.read)
				}
				wantPeek(t, c, 0, test.want)
			})
		})
	}
}

func TestPeekInMemory(t *testing.T) {
	testFinds(t, func(t *testing.T) (*keepalive.Conn, tcp, ear) {
		c, far, told := inMemory(t, keepalive.Plan{})
		return c, far.(tcp), told
	}, synctest.Test)
}

func TestPeekNeedsNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far, _ := inMemory(t, keepalive.Plan{})
		testPastDeadline(t, c, far)
	})
}

func testPastDeadline(t *testing.T, c *keepalive.Conn, far net.Conn) {
	defer c.Close()
	c.SetReadDeadline(time.Unix(1, 0))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	wantPeek(t, c, 0, nil)
	far.Write([]byte("x"))
	wantPeek(t, c, 1, nil)
	far.Close()
	wantPeek(t, c, 1, io.EOF)
}

func TestWhoIsRetiredOrClosedIsNotLent(t *testing.T) {
	dialed, far, _ := watched(t, keepalive.Plan{})
	far.Close() // which is less to know
	stubbed := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
	for _, c := range []*keepalive.Conn{dialed, stubbed} {
		c.Park(c.Turn())
		c.Retire()
		wantPeek(t, c, 0, keepalive.ErrRetired)
		c.Close()
		wantPeek(t, c, 0, keepalive.ErrRetired)
	}

	dialed, _, _ = watched(t, keepalive.Plan{})
	dialed.Close()
	wantPeek(t, dialed, 0, net.ErrClosed)

	dialed, _, _ = watched(t, keepalive.Plan{})
	remembered, _, _ := inMemory(t, keepalive.Plan{})
	for _, c := range []*keepalive.Conn{dialed, remembered} {
		c.NetConn().Close() // behind its back
		wantPeek(t, c, 0, net.ErrClosed)
		c.Close()
	}
}

func TestWhatHasEndedIsSafeToRetry(t *testing.T) {
	for _, err := range []error{keepalive.ErrRetired, keepalive.ErrStale, keepalive.ErrEnded} {
		if safe, ok := err.(interface{ SafeToRetry() bool }); !ok || !safe.SafeToRetry() {
			t.Errorf("%v does not say that nothing was sent", err)
		}
	}
}

func TestWhereNobodyCanLookPeekSaysWhatReadMet(t *testing.T) {
	near, far := loopback(t)
	c := keepalive.Watch(plain{near}, keepalive.Plan{}, func(keepalive.Ending) {})
	defer c.Close()
	far.Write([]byte("x"))
	far.Close()
	wantPeek(t, c, 0, nil)
	io.Copy(io.Discard, plain{c})
	wantPeek(t, c, 0, io.EOF)
}

func TestPeekSaysWhyAConnectionThatIsClosedWasGivenUp(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := keepalive.Watch(near, keepalive.Plan{}, func(keepalive.Ending) {})
	c.GiveUp(&keepalive.BlackholeError{Evidence: keepalive.Others})
	c.Close()
	var hole *keepalive.BlackholeError
	if _, err := c.Peek(); !errors.Is(err, net.ErrClosed) || !errors.As(err, &hole) || hole.Evidence != keepalive.Others {
		t.Errorf("got %v", err)
	}
}
