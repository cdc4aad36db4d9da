package keepalive_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
	"golang.org/x/sys/unix"
)

// lingering waits for the peer for longer than any test does.
var lingering = keepalive.Plan{Linger: time.Minute}

// kernelEnded reports whether the kernel is done with c.
func kernelEnded(t *testing.T, c syscall.Conn) (ended bool) {
	fd(t, c, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		ended = err == nil && info.State == 7 // TCP_CLOSE
	})
	return ended
}

// queues returns how many bytes wait in c unread and unacknowledged.
func queues(t *testing.T, c syscall.Conn) (unread, unsent int) {
	fd(t, c, func(fd int) {
		unread, _ = unix.IoctlGetInt(fd, unix.SIOCINQ)
		unsent, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	})
	return unread, unsent
}

func acknowledged(t *testing.T, c syscall.Conn) {
	t.Helper()
	until(t, "everything acknowledged", func() bool {
		_, unsent := queues(t, c)
		return unsent == 0
	})
}

func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// wantRead reads once and compares the error. For none a byte is expected.
func wantRead(t *testing.T, c net.Conn, want error) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, want) || want == nil && n != 1 {
		t.Errorf("Read: %d, %v, want %v", n, err, want)
	}
}

func TestAFINByUsIsToldWhenThePeersHasCome(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.Write([]byte("x"))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wantRead(t, far, nil)
	wantRead(t, far, io.EOF)
	told.silent(t, "while the peer holds its end open")
	far.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}

func TestAFINByThePeer(t *testing.T) {
	for name, see := range map[string]func(*testing.T, *keepalive.Conn){
		"that was read": func(t *testing.T, c *keepalive.Conn) { wantRead(t, c, io.EOF) },
		"that WriteTo saw": func(t *testing.T, c *keepalive.Conn) {
			if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
				t.Errorf("copied %d, %v", n, err)
			}
		},
		"that nobody read": func(t *testing.T, c *keepalive.Conn) {
			until(t, "a FIN here", func() (came bool) {
				fd(t, c, func(fd int) {
					info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
					came = err == nil && info.State == 8 // TCP_CLOSE_WAIT
				})
				return came
			})
		},
	} {
		for _, plan := range []keepalive.Plan{{}, lingering} {
			t.Run(name, func(t *testing.T) {
				c, far, told := watched(t, plan)
				far.Close()
				see(t, c)
				c.EndSoonest() // too late: a RST would free nothing
				c.Close()
				told.want(t, keepalive.Ending{How: keepalive.FINByPeer})
			})
		}
	}
}

func TestBothHaveFinishedBeforeClose(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.CloseWrite()
	wantRead(t, far, io.EOF)
	far.Close()
	until(t, "the end", func() bool { return kernelEnded(t, c) })
	c.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}

func TestARSTByThePeer(t *testing.T) {
	for _, test := range []struct {
		name   string
		how    func(t *testing.T, c *keepalive.Conn, far *net.TCPConn)
		unsure bool
	}{
		{"read", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			reset(far)
			wantRead(t, c, syscall.ECONNRESET)
			c.Write([]byte("x")) // EPIPE now
		}, false},
		{"written into", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			reset(far)
			until(t, "a RST here", func() bool { return kernelEnded(t, c) })
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Write: %v", err)
			}
		}, false},
		{"copied into", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			reset(far)
			until(t, "a RST here", func() bool { return kernelEnded(t, c) })
			if _, err := io.Copy(c, strings.NewReader("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("ReadFrom: %v", err)
			}
		}, false},
		{"unseen", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			reset(far)
			until(t, "a RST here", func() bool { return kernelEnded(t, c) })
		}, false},
		{"unseen behind unread data", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			far.Write(make([]byte, 100<<10))
			reset(far)
			until(t, "a RST here", func() bool { return kernelEnded(t, c) })
		}, false},
		{"after our FIN", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			c.CloseWrite()
			wantRead(t, far, io.EOF)
			reset(far)
			wantRead(t, c, syscall.ECONNRESET)
		}, true},
		{"after its own FIN, written into", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			far.Close()
			c.Write([]byte("x")) // which is answered with a RST
			until(t, "a RST here", func() bool { return kernelEnded(t, c) })
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("Write: %v", err)
			}
		}, true},
		{"after its own FIN, unseen", func(t *testing.T, c *keepalive.Conn, far *net.TCPConn) {
			far.Close()
			c.Write([]byte("x"))
			until(t, "a RST here", func() bool { return kernelEnded(t, c) })
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, far, told := watched(t, lingering)
			test.how(t, c, far)
			c.Close()
			told.want(t, keepalive.Ending{How: keepalive.RSTByPeer, Unsure: test.unsure})
		})
	}
}

// What is copied from or to has ended, not the connection.
func TestSomebodyElsesErrorIsNotOurs(t *testing.T) {
	for name, copy := range map[string]func(c, other net.Conn) error{
		"copied from": func(c, other net.Conn) error { _, err := io.Copy(c, other); return err },
		"read from":   func(c, other net.Conn) error { _, err := io.Copy(c, plain{other}); return err },
		"copied to": func(c, other net.Conn) error {
			if _, err := io.Copy(other, c); err != nil {
				return err
			}
			return errors.New("nothing")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, far, told := watched(t, lingering)
			other, gone := loopback(t)
			reset(gone)
			until(t, "a RST there", func() bool { return kernelEnded(t, other) })
			far.Write([]byte("x"))
			if err := copy(c, other); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the copy ended with %v", err)
			}
			io.Copy(io.Discard, onlyWhatIsThere(t, c))
			far.Close()
			c.Close()
			if end := told.ending(t); end.How != keepalive.FINByUs && end.How != keepalive.FINByPeer {
				t.Errorf("it ended as %v %+v", end.How, end)
			}
		})
	}
}

// onlyWhatIsThere reads what is unread, and no more.
func onlyWhatIsThere(t *testing.T, c *keepalive.Conn) io.Reader {
	unread, _ := queues(t, c)
	return io.LimitReader(c, int64(unread))
}

func TestUnreadDataMakesItARST(t *testing.T) {
	c, far, told := watched(t, lingering)
	far.Write([]byte("unread"))
	until(t, "something unread", func() bool { unread, _ := queues(t, c); return unread == 6 })
	c.Close()
	told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
	wantRead(t, far, syscall.ECONNRESET)
}

func TestEndSoonestIsARSTWhereNothingIsLost(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.Write([]byte("x"))
	wantRead(t, far, nil)
	acknowledged(t, c)
	c.EndSoonest()
	c.Close()
	told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
	wantRead(t, far, syscall.ECONNRESET)
}

func TestEndSoonestLosesNothing(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for { // until the window is full
		if _, err := c.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	c.EndSoonest()
	c.Close()
	if n, err := io.Copy(io.Discard, far); n != c.BytesWritten() || err != nil {
		t.Errorf("the peer got %d of %d bytes, %v", n, c.BytesWritten(), err)
	}
	far.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}

func TestWhoHasAskedAndNotHeardEndsByRST(t *testing.T) {
	for _, answered := range []bool{false, true} {
		c, far, told := watched(t, lingering)
		c.Write([]byte("?"))
		c.Asked()
		wantRead(t, far, nil)
		acknowledged(t, c)
		if !answered {
			c.Close()
			told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
			wantRead(t, far, syscall.ECONNRESET)
			continue
		}
		far.Write([]byte("!"))
		wantRead(t, c, nil)
		c.Answered()
		c.Close()
		wantRead(t, far, io.EOF)
		far.Close()
		told.want(t, keepalive.Ending{How: keepalive.FINByUs})
	}
}

func TestAnAnswerThatIsStillDueAfterThePeersFINNeverComes(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.Asked()
	far.CloseWrite()
	wantRead(t, c, io.EOF)
	c.Close()
	wantRead(t, far, io.EOF)
	told.want(t, keepalive.Ending{How: keepalive.FINByPeer})
}

func TestAPeerThatTalksOnIsCutOff(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.Close()
	if n, err := far.Write(make([]byte, 64<<10)); err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
	until(t, "a RST at the peer", func() bool { return kernelEnded(t, far) })
}

func TestAPeerMayFinishItsSentence(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.Close()
	if n, err := far.Write(make([]byte, 32<<10)); err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	far.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}

func TestARSTAfterOurCloseIsUnsure(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.Close()
	wantRead(t, far, io.EOF)
	reset(far)
	told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
}

func TestLingeringIsBounded(t *testing.T) {
	c, far, told := watched(t, keepalive.Plan{Linger: 50 * time.Millisecond})
	defer far.Close()
	start := time.Now()
	c.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("it lingered for %v", took)
	}
}

func TestLingeringTellsWhoReadsAndWritesThatItIsClosed(t *testing.T) {
	c, far, told := watched(t, lingering)
	errs := make(chan error, 2)
	go func() {
		_, err := c.Read(make([]byte, 1))
		errs <- err
	}()
	go func() {
		var err error
		for err == nil { // until the window is full
			_, err = c.Write(make([]byte, 1<<20))
		}
		errs <- err
	}()
	until(t, "a full window", func() bool { _, unsent := queues(t, c); return unsent > 1<<20 })
	c.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the error is %v", err)
		}
	}
	go func() {
		io.Copy(io.Discard, far)
		far.Close()
	}()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}

func TestLingeringLeavesNoFileOpen(t *testing.T) {
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(files)
	}
	before := open()
	for _, end := range []func(far *net.TCPConn){
		func(far *net.TCPConn) { far.Close() },
		reset,
		func(far *net.TCPConn) {
			for err := error(nil); err == nil; {
				_, err = far.Write(make([]byte, 64<<10))
			}
			far.Close()
		},
	} {
		for range 10 {
			c, far, told := watched(t, lingering)
			c.Close()
			end(far)
			told.ending(t)
		}
	}
	if after := open(); after > before {
		t.Errorf("%d files were open before, %d are now", before, after)
	}
}

func TestAClosedSocketUnderneathIsUnsure(t *testing.T) {
	c, _, told := watched(t, lingering)
	c.NetConn().Close()
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close: %v", err)
	}
	told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
}

func TestTLSSaysGoodbyeUnlessItEndsSoonest(t *testing.T) {
	for _, soonest := range []bool{false, true} {
		c, far, told := watched(t, lingering)
		client, server := withTLS(t, c, far)
		talk(t, client, server) // the client has read the session tickets, too
		acknowledged(t, c)
		before := c.BytesWritten()
		if soonest {
			c.EndSoonest()
		}
		if err := client.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		said := c.BytesWritten() - before
		if soonest {
			if said != 0 {
				t.Errorf("%d bytes of goodbye were sent", said)
			}
			wantRead(t, server, syscall.ECONNRESET)
			told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
			continue
		}
		if said == 0 {
			t.Error("no goodbye was sent")
		}
		wantRead(t, server, io.EOF)
		far.Close()
		told.want(t, keepalive.Ending{How: keepalive.FINByUs})
	}
}

// withTLS puts TLS 1.3 over both ends, with session tickets.
func withTLS(t *testing.T, near, far net.Conn) (client, server *tls.Conn) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil) // for its certificate
	s.StartTLS()
	s.Close()
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	s.TLS.ClientAuth = tls.RequestClientCert // or the tickets come within the handshake
	server = tls.Server(far, s.TLS)
	client = tls.Client(near, &tls.Config{
		RootCAs:            roots,
		ServerName:         "example.com",
		MinVersion:         tls.VersionTLS13,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // or it gets no tickets
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Handshake(); err != nil {
			t.Error(err)
		}
	})
	if err := client.Handshake(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	return client, server
}

// talk sends a byte there and back.
func talk(t *testing.T, client, server net.Conn) {
	t.Helper()
	client.Write([]byte("?"))
	wantRead(t, server, nil)
	server.Write([]byte("!"))
	wantRead(t, client, nil)
}

func TestTLSSeesAConnectionThatWasRetired(t *testing.T) {
	c, far, told := watched(t, lingering)
	client, server := withTLS(t, c, far)
	talk(t, client, server)
	acknowledged(t, c)
	c.Park(c.Turn())
	c.Retire()
	c.EndSoonest()
	c.Close()
	if _, err := client.Write([]byte("?")); !errors.Is(err, keepalive.ErrRetired) {
		t.Errorf("Write: %v", err)
	}
	wantRead(t, server, syscall.ECONNRESET)
	told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
}

func TestHTTP2EndsSoonest(t *testing.T) {
	seen := make(chan error, 1) // what the server's last Read got
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.Listener = &spy{s.Listener, seen}
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()

	told := newEar()
	dialed := make(chan *keepalive.Conn, 1)
	client := s.Client()
	transport := client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		under, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := keepalive.Watch(under, lingering, told.tell)
		dialed <- c
		return c, nil
	}
	resp, err := client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	proto, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(proto) != "HTTP/2.0" {
		t.Fatalf("it spoke %s", proto)
	}
	c := <-dialed
	until(t, "quiet", func() bool { unread, unsent := queues(t, c); return unread == 0 && unsent == 0 })
	c.EndSoonest()
	transport.CloseIdleConnections()
	told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server saw %v", err)
	}
}

// A spy tells with which error the connections that it accepts end.
type spy struct {
	net.Listener
	seen chan error
}

func (s *spy) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	return &spied{c, s.seen}, err
}

type spied struct {
	net.Conn
	seen chan error
}

func (s *spied) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil {
		select {
		case s.seen <- err:
		default:
		}
	}
	return n, err
}

func TestTheSilenceOfASocketIsTheKernels(t *testing.T) {
	c, far, _ := watched(t, keepalive.Plan{Forgets: 240 * time.Second})
	c.Park(c.Turn())
	c.Freeze(time.Hour)
	if got := c.Silence(); got < time.Hour-time.Millisecond || got > time.Hour+patience {
		t.Errorf("after an hour, the silence is %v", got)
	}
	far.Write([]byte("x"))
	if _, err := c.Unpark(); err != keepalive.ErrStale {
		t.Errorf("frozen for an hour: %v", err)
	}
	c.Close()
}

// The wall clock may have been set: it is no proof that the path has forgotten,
// and the port would be given away too soon.
func TestAJumpOfTheWallClockProvesNothing(t *testing.T) {
	c, far, told := watched(t, keepalive.Plan{Forgets: 240 * time.Second, Linger: time.Minute})
	c.Freeze(time.Hour)
	c.Close()
	wantRead(t, far, io.EOF)
	far.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}
