package keepalive_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
	"golang.org/x/net/nettest"
)

func TestAConnIsANetConn(t *testing.T) {
	for name, plan := range map[string]keepalive.Plan{
		"closing at once": {},
		"lingering":       {Linger: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				near, far := loopback(t)
				told := [2]ear{newEar(), newEar()}
				c1 = keepalive.Watch(near, plan, told[0].tell)
				c2 = keepalive.Watch(far, plan, told[1].tell)
				return c1, c2, func() {
					c1.Close()
					c2.Close()
					told[0].ending(t)
					told[1].ending(t)
				}, nil
			})
		})
	}
}

// A pipe is a connection that remembers what it was asked for, and in which way
// its bytes came.
type pipe struct {
	stub
	asked []string
	from  io.Reader // what ReadFrom got
	to    io.Writer // what WriteTo got
}

func (p *pipe) ask(what string) error {
	p.asked = append(p.asked, what)
	return errors.New(what)
}

func (p *pipe) CloseWrite() error                { return p.ask("CloseWrite") }
func (p *pipe) SetDeadline(time.Time) error      { return p.ask("SetDeadline") }
func (p *pipe) SetReadDeadline(time.Time) error  { return p.ask("SetReadDeadline") }
func (p *pipe) SetWriteDeadline(time.Time) error { return p.ask("SetWriteDeadline") }

func (p *pipe) ReadFrom(r io.Reader) (int64, error) {
	p.from = r
	return io.Copy(io.Discard, r)
}

func (p *pipe) WriteTo(w io.Writer) (int64, error) {
	p.to = w
	n, err := io.WriteString(w, "hello")
	return int64(n), err
}

func TestWhatAConnCannotDoItPassesOn(t *testing.T) {
	under := new(pipe)
	c := keepalive.Watch(under, keepalive.Plan{}, func(keepalive.Ending) {})
	defer c.Close()
	now := time.Now()
	for _, err := range []error{c.CloseWrite(), c.SetDeadline(now), c.SetReadDeadline(now), c.SetWriteDeadline(now)} {
		if got := under.asked[0]; err == nil || got != err.Error() {
			t.Errorf("%q was answered with %v", got, err)
		}
		under.asked = under.asked[1:]
	}
	if c.NetConn() != net.Conn(under) {
		t.Error("NetConn is another connection")
	}
}

func TestWhatNobodyCanDoIsUnsupported(t *testing.T) {
	c := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
	defer c.Close()
	if err := c.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite: %v", err)
	}
	if _, err := c.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SyscallConn: %v", err)
	}
}

func TestTheConnectionUnderneathGetsTheFileItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	under := new(pipe)
	c := keepalive.Watch(under, keepalive.Plan{}, func(keepalive.Ending) {})
	defer c.Close()
	if n, err := c.ReadFrom(f); n != 5 || err != nil || c.BytesWritten() != 5 {
		t.Errorf("sent %d, %v, and counted %d", n, err, c.BytesWritten())
	}
	if under.from != io.Reader(f) {
		t.Errorf("it got a %T", under.from)
	}
	var b bytes.Buffer
	if n, err := c.WriteTo(&b); n != 5 || err != nil || c.BytesRead() != 5 || b.String() != "hello" {
		t.Errorf("received %d, %v, %q, and counted %d", n, err, b.String(), c.BytesRead())
	}
	if under.to != io.Writer(&b) {
		t.Errorf("it got a %T", under.to)
	}
}

// A plain connection knows neither ReadFrom nor WriteTo.
type plain struct{ net.Conn }

func TestCopyingCountsWhatPassed(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"kernel": func(c net.Conn) net.Conn { return c },
		"plain":  func(c net.Conn) net.Conn { return plain{c} },
	} {
		t.Run(name, func(t *testing.T) {
			const size = 1<<20 + 7
			a, b := loopback(t)
			c, d := loopback(t)
			in := keepalive.Watch(wrap(b), keepalive.Plan{}, func(keepalive.Ending) {})
			out := keepalive.Watch(wrap(c), keepalive.Plan{}, func(keepalive.Ending) {})
			defer in.Close()
			go func() {
				a.Write(make([]byte, size))
				a.CloseWrite()
			}()
			go func() {
				io.Copy(out, in)
				out.Close()
			}()
			if n, err := io.Copy(io.Discard, d); n != size || err != nil {
				t.Errorf("%d bytes passed, %v", n, err)
			}
			if in.BytesRead() != size || in.BytesWritten() != 0 || out.BytesRead() != 0 || out.BytesWritten() != size {
				t.Errorf("counted %d and %d in, %d and %d out", in.BytesRead(), in.BytesWritten(), out.BytesRead(), out.BytesWritten())
			}
		})
	}
}

func TestGoodbyesAreDropped(t *testing.T) {
	c, far, told := watched(t, keepalive.Plan{})
	c.EndSoonest()
	if runtime.GOOS != "linux" {
		t.Skip("nobody can tell what is unacknowledged")
	}
	if n, err := c.Write([]byte("bye")); n != 3 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if n, err := io.Copy(c, strings.NewReader("bye")); n != 3 || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	c.Close()
	told.ending(t)
	if n, err := far.Read(make([]byte, 9)); n != 0 {
		t.Errorf("the peer got %d bytes, %v", n, err)
	}
	if c.BytesWritten() != 0 {
		t.Errorf("%d bytes were counted", c.BytesWritten())
	}
}

// Nobody knows whether anything would be lost: the goodbye must pass.
func TestWhereNobodyKnowsTheGoodbyeIsSent(t *testing.T) {
	near, far := loopback(t)
	told := newEar()
	c := keepalive.Watch(plain{near}, keepalive.Plan{}, told.tell)
	c.EndSoonest()
	c.Write([]byte("bye"))
	c.Close()
	if got, err := io.ReadAll(far); string(got) != "bye" || err != nil {
		t.Errorf("the peer got %q, %v", got, err)
	}
	told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
}

// A queue is a connection in memory that can tell what waits in it.
type queue struct {
	net.Conn
	unread, unsent int
	reset          bool
}

func (q *queue) Queued() (unread, unsent int) { return q.unread, q.unsent }

func (q *queue) SetLinger(sec int) error {
	q.reset = sec == 0
	return nil
}

func TestAConnectionInMemoryIsAskedWhatWaitsInIt(t *testing.T) {
	for _, test := range []struct {
		name           string
		unread, unsent int
		use            func(*keepalive.Conn)
		want           keepalive.Ending
		reset          bool
	}{
		{"clean", 0, 0, (*keepalive.Conn).EndSoonest, keepalive.Ending{How: keepalive.RSTByUs}, true},
		{"unmarked", 0, 0, func(*keepalive.Conn) {}, keepalive.Ending{How: keepalive.FINByUs}, false},
		{"unsent", 0, 1, (*keepalive.Conn).EndSoonest, keepalive.Ending{How: keepalive.FINByUs}, false},
		{"unread", 1, 0, (*keepalive.Conn).EndSoonest, keepalive.Ending{How: keepalive.RSTByUs}, false},
		{"asked", 0, 0, (*keepalive.Conn).Asked, keepalive.Ending{How: keepalive.RSTByUs}, true},
		{"asked, unsent", 0, 1, (*keepalive.Conn).Asked, keepalive.Ending{How: keepalive.RSTByUs, Unsure: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := &queue{Conn: new(stub), unread: test.unread, unsent: test.unsent}
			told := newEar()
			c := keepalive.Watch(q, keepalive.Plan{}, told.tell)
			test.use(c)
			c.Close()
			told.want(t, test.want)
			if q.reset != test.reset {
				t.Errorf("a RST was ordered: %v", q.reset)
			}
		})
	}
}

// An obstinate connection can be asked, but cannot send a RST.
type obstinate struct{ queue }

func (obstinate) SetLinger(int) error { return errors.ErrUnsupported }

func TestARSTThatCannotBeOrderedIsNotClaimed(t *testing.T) {
	told := newEar()
	c := keepalive.Watch(&obstinate{queue{Conn: new(stub)}}, keepalive.Plan{}, told.tell)
	c.EndSoonest()
	c.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
}

func TestReadAndWriteDoNotAllocate(t *testing.T) {
	c := keepalive.Watch(new(stub), keepalive.Plan{}, func(keepalive.Ending) {})
	defer c.Close()
	b := make([]byte, 16)
	if n := testing.AllocsPerRun(100, func() { c.Read(b) }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { c.Write(b) }); n != 0 {
		t.Errorf("Write allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { c.Park(c.Turn()); c.Unpark() }); n != 0 {
		t.Errorf("a turn allocates %v times", n)
	}
}

func BenchmarkStubRead(b *testing.B)  { benchmarkRead(b, new(stub)) }
func BenchmarkConnRead(b *testing.B)  { benchmarkRead(b, watch(b)) }
func BenchmarkStubWrite(b *testing.B) { benchmarkWrite(b, new(stub)) }
func BenchmarkConnWrite(b *testing.B) { benchmarkWrite(b, watch(b)) }

func BenchmarkTurn(b *testing.B) {
	c := watch(b)
	buf := make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		t, _ := c.Unpark()
		c.Write(buf)
		c.Park(t)
	}
}

func watch(b *testing.B) *keepalive.Conn {
	c := keepalive.Watch(new(stub), forgetful, func(keepalive.Ending) {})
	b.Cleanup(func() { c.Close() })
	return c
}

func benchmarkRead(b *testing.B, c net.Conn) {
	buf := make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		c.Read(buf)
	}
}

func benchmarkWrite(b *testing.B, c net.Conn) {
	buf := make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(buf)
	}
}
