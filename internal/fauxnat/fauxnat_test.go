package fauxnat_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
	"golang.org/x/net/nettest"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

func TestAConnThroughANATIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		near, far := newLab(t, azure(128)).open(t)
		return near, far, func() { near.Close(); far.Close() }, nil
	})
}

func TestThe129thSYNIsDroppedUntilAPortComesFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		first, _ := l.open(t)
		for range 127 {
			near, _ := l.open(t)
			defer near.Close()
		}
		time.AfterFunc(2500*time.Millisecond, func() { reset(first) }) // free at 17.5 s
		start := time.Now()
		near, _ := l.open(t)
		defer near.Close()
		if waited := time.Since(start); waited != 31*time.Second {
			t.Errorf("the SYN passed after %v, want the one at 31s", waited)
		}
		s := l.nat.Stats()
		if s.Held != 128 || s.Peak != 128 || s.Opened != 129 || s.RefusedSYNs != 5 { // at 0, 1, 3, 7, 15 s
			t.Errorf("the NAT counted %+v", s.Counts)
		}
	})
}

func TestManyClientsAtOnceNeverHoldMoreThanTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(8))
		var clients sync.WaitGroup
		for range 100 {
			clients.Go(func() {
				near, err := l.nat.DialContext(t.Context(), "tcp", server)
				for err != nil { // after 127 s without a port
					near, err = l.nat.DialContext(t.Context(), "tcp", server)
				}
				near.Write([]byte("x"))
				reset(near)
			})
		}
		clients.Wait()
		if s := l.nat.Stats(); s.Peak != 8 || s.Opened != 100 || s.RefusedSYNs == 0 {
			t.Errorf("the NAT counted %+v", s.Counts)
		}
	})
}

func TestADialThatWaitsForAPortEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(1))
		near, _ := l.open(t)
		defer near.Close()

		tooSlow := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, tooSlow)
		defer cancel()
		_, err := l.nat.DialContext(ctx, "tcp", server)
		if !errors.Is(err, tooSlow) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context it ended with %v", err)
		}
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("%v is no timeout", err)
		}

		start := time.Now()
		_, err = l.nat.DialContext(t.Context(), "tcp", server)
		if waited := time.Since(start); !errors.Is(err, syscall.ETIMEDOUT) || waited != 127*time.Second {
			t.Errorf("without one it ended with %v after %v", err, waited)
		}
	})
}

func TestAccountsAreKeptPerDestinationAndInTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(1)
		path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.AllPorts, N: 2})
		l := newLab(t, path)
		for _, at := range []string{"20.0.0.1:443", "20.0.0.2:443", "20.0.0.3:443"} {
			defer l.listen(t, at).Close()
		}
		dial := func(at string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			c, err := l.nat.DialContext(ctx, "tcp", at)
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}
		for at, want := range map[string]bool{"20.0.0.1:443": true, "20.0.0.2:443": true} {
			if err := dial(at); (err == nil) != want {
				t.Errorf("a first dial to %v: %v", at, err)
			}
		}
		if dial("20.0.0.1:443") == nil || dial("20.0.0.3:443") == nil {
			t.Errorf("a third flow passed: %+v", l.nat.Flows())
		}
		s := l.nat.Stats()
		for key, want := range map[netpath.Key]fauxnat.Counts{
			{Network: "tcp", Dest: netip.MustParseAddrPort("20.0.0.1:443")}: {Held: 1, Live: 1, Peak: 1, Opened: 1, RefusedSYNs: 1},
			{Network: "tcp", Dest: netip.MustParseAddrPort("20.0.0.3:443")}: {},
			{Network: "tcp"}: {Held: 2, Live: 2, Peak: 2, Opened: 2, RefusedSYNs: 2},
		} {
			if got := s.Accounts[key]; got != want {
				t.Errorf("%v: %+v, want %+v", key, got, want)
			}
		}
		l.nat.ResetStats()
		if got, want := l.nat.Stats().Counts, (fauxnat.Counts{Held: 2, Live: 2, Peak: 2}); got != want {
			t.Errorf("after a reset: %+v, want %+v", got, want)
		}
	})
}

func TestTheTableNamesEachFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, _ := l.open(t)
		want := fauxnat.Flow{
			Source: near.LocalAddr().(*net.TCPAddr).AddrPort(),
			Dest:   netip.MustParseAddrPort(server),
			Until:  time.Now().Add(240 * time.Second),
		}
		if got := l.nat.Flows(); len(got) != 1 || got[0] != want {
			t.Errorf("live: %+v, want %+v", got, want)
		}
		reset(near)
		want.Closing, want.Until = true, time.Now().Add(15*time.Second)
		if got := l.nat.Flows(); len(got) != 1 || got[0] != want {
			t.Errorf("closing: %+v, want %+v", got, want)
		}
	})
}

func TestAnExemptDestinationIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(1))
		defer l.listen(t, "10.0.0.9:5432").Close()
		for range 3 {
			c, err := l.nat.DialContext(t.Context(), "tcp", "10.0.0.9:5432")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if s := l.nat.Stats(); s.Opened != 0 {
			t.Errorf("the NAT counted %+v", s.Counts)
		}
	})
}

func TestAnOpenSocketIsCountedUntilItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(128)
		path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.Sockets, N: 600})
		l := newLab(t, path)
		near, _ := l.open(t)
		time.Sleep(time.Hour)
		s := l.nat.Stats()
		if ports, sockets := s.Held, s.Accounts[netpath.Key{}].Held; ports != 0 || sockets != 1 {
			t.Errorf("forgotten, it holds %d ports and %d sockets", ports, sockets)
		}
		near.Close()
		other, _ := l.open(t)
		other.Close()
		s = l.nat.Stats()
		if ports, sockets := s.Held, s.Accounts[netpath.Key{}].Held; ports != 1 || sockets != 0 {
			t.Errorf("closed, it holds %d ports and %d sockets", ports, sockets)
		}
	})
}

func TestAnEndingHoldsItsPort(t *testing.T) {
	tests := []struct {
		name string
		end  func(l *lab, near, far net.Conn)
		held time.Duration
	}{
		{"240 s after our FIN", func(l *lab, near, far net.Conn) { near.Close() }, 240 * time.Second},
		{"240 s after our FIN that follows the server's", func(l *lab, near, far net.Conn) {
			far.Close()
			io.ReadAll(near)
			time.Sleep(100 * time.Second)
			near.Close()
		}, 240 * time.Second},
		{"240 s after the server's FIN that follows ours", func(l *lab, near, far net.Conn) {
			closeWrite(near)
			time.Sleep(100 * time.Second)
			far.Close()
			io.ReadAll(near)
			time.AfterFunc(100*time.Second, func() { near.Close() }) // changes nothing
		}, 240 * time.Second},
		{"15 s after our RST", func(l *lab, near, far net.Conn) { reset(near) }, 15 * time.Second},
		{"15 s after the server's RST that Read tells of", func(l *lab, near, far net.Conn) {
			reset(far)
			read(near)
		}, 15 * time.Second},
		{"15 s after the server's RST that Write tells of", func(l *lab, near, far net.Conn) {
			reset(far)
			near.Write([]byte("x"))
		}, 15 * time.Second},
		{"240 s after a RST that follows a FIN", func(l *lab, near, far net.Conn) {
			closeWrite(near)
			reset(near)
		}, 240 * time.Second},
		{"15 s after a refused SYN", func(l *lab, near, far net.Conn) {
			reset(near)
			time.Sleep(15 * time.Second)
			l.nat.DialContext(context.Background(), "tcp", "20.1.2.3:1")
		}, 15 * time.Second},
		{"30 s after the last unanswered SYN", func(l *lab, near, far net.Conn) {
			reset(near)
			l.net.BlackHole(server)
			ctx, cancel := context.WithTimeout(context.Background(), 35*time.Second) // the last is sent at 31 s
			defer cancel()
			l.nat.DialContext(ctx, "tcp", server)
		}, 26 * time.Second},
		{"no longer once it is forgotten", func(l *lab, near, far net.Conn) { time.Sleep(240 * time.Second) }, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, azure(128))
				near, far := l.open(t)
				test.end(l, near, far)
				start := time.Now()
				for l.nat.Stats().Held > 0 {
					time.Sleep(time.Second)
				}
				if held := time.Since(start); held != test.held {
					t.Errorf("it was held for %v, want %v", held, test.held)
				}
				near.Close()
			})
		})
	}
}

func TestAForgottenFlowMayHoldItsPortToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(1)
		path.Hold.Idle = 60 * time.Second
		l := newLab(t, path)
		near, _ := l.open(t)
		defer near.Close()
		time.Sleep(299 * time.Second)
		if s := l.nat.Stats(); s.Live != 0 || s.Held != 1 {
			t.Errorf("a second before: %+v", s.Counts)
		}
		time.Sleep(time.Second)
		if s := l.nat.Stats(); s.Held != 0 {
			t.Errorf("then: %+v", s.Counts)
		}
	})
}

func TestASilentFlowIsForgottenWithoutAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, far := l.open(t)
		time.Sleep(200 * time.Second)
		near.Write([]byte("ping")) // which breaks the silence
		time.Sleep(239 * time.Second)
		if s := l.nat.Stats(); s.Live != 1 {
			t.Errorf("it was forgotten too soon: %+v", s.Counts)
		}
		time.Sleep(time.Second)
		if s := l.nat.Stats(); s.Held != 0 {
			t.Errorf("it was not forgotten: %+v", s.Counts)
		}

		if _, err := near.Write([]byte("lost")); err != nil {
			t.Errorf("Write: %v", err)
		}
		far.SetReadDeadline(time.Now().Add(time.Hour))
		if got, err := io.ReadAll(far); string(got) != "ping" || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the server read %q, %v", got, err)
		}
		far.Write([]byte("lost too"))
		near.SetReadDeadline(time.Now().Add(time.Minute))
		if err := read(near); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		near.SetWriteDeadline(time.Now())
		if _, err := near.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write after its deadline: %v", err)
		}
		near.SetDeadline(time.Time{})
		time.AfterFunc(time.Minute, func() { near.Close() })
		if err := read(near); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read at Close: %v", err)
		}
	})
}

func TestAReadThatWaitsIsForgottenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, far := l.open(t)
		time.AfterFunc(250*time.Second, func() { far.Write([]byte("late")); far.Close() })
		near.SetReadDeadline(time.Now().Add(time.Hour))
		start := time.Now()
		err := read(near)
		if waited := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || waited != time.Hour {
			t.Errorf("Read: %v after %v", err, waited)
		}
		near.Close()
	})
}

func TestNothingIsHeardOfAnEndThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		for _, test := range []struct {
			after time.Duration
			want  error
		}{{239 * time.Second, syscall.ECONNRESET}, {241 * time.Second, nil}} {
			near, far := l.open(t)
			time.Sleep(test.after)
			reset(far)
			if err := ended(near); !errors.Is(err, test.want) {
				t.Errorf("after %v it ended with %v", test.after, err)
			}
			near.Close()
			if err := ended(near); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		}
	})
}

func TestWhatTheServerSendsBreaksTheSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, azure(128))
		near, far := l.open(t)
		time.AfterFunc(200*time.Second, func() { far.Write([]byte("x")) })
		if err := read(near); err != nil {
			t.Fatal(err)
		}
		time.Sleep(239 * time.Second)
		if s := l.nat.Stats(); s.Live != 1 {
			t.Errorf("it was forgotten: %+v", s.Counts)
		}
		near.Close()
	})
}

func TestAPathThatResetsTheNextPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(128)
		path.AtIdle = netpath.ResetNext
		l := newLab(t, path)
		near, far := l.open(t)
		waiting := make(chan error)
		go func() { waiting <- read(near) }()
		time.Sleep(time.Hour)
		if n, err := near.Write([]byte("lost")); n != 4 || err != nil {
			t.Errorf("the Write that provokes the RST: %v", err)
		}
		if err := <-waiting; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the Read that waited: %v", err)
		}
		near.SetDeadline(time.Time{})
		if err := read(near); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the next Read: %v", err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the next Write: %v", err)
		}
		far.SetReadDeadline(time.Now().Add(time.Second))
		if err := read(far); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the server heard of it: %v", err)
		}
		if err := near.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestAPathThatEndsASilentFlow(t *testing.T) {
	for _, test := range []struct {
		name        string
		at          netpath.IdleAction
		read, write error
	}{
		{"by a RST to both ends", netpath.ResetBoth, syscall.ECONNRESET, syscall.ECONNRESET},
		{"in order", netpath.Close, io.EOF, syscall.EPIPE},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := azure(128)
				path.AtIdle = test.at
				l := newLab(t, path)
				near, far := l.open(t)
				time.Sleep(100 * time.Second)
				near.Write([]byte("x"))
				start := time.Now()
				for range 2 {
					if err := read(near); !errors.Is(err, test.read) {
						t.Errorf("Read: %v", err)
					}
				}
				if waited := time.Since(start); waited != 240*time.Second {
					t.Errorf("it came after %v", waited)
				}
				if err := ended(near); !errors.Is(err, test.read) {
					t.Errorf("it ended with %v", err)
				}
				if _, err := near.Write([]byte("x")); !errors.Is(err, test.write) {
					t.Errorf("Write: %v", err)
				}
				if _, err := io.ReadAll(far); err != nil && !errors.Is(err, test.read) {
					t.Errorf("the server's Read: %v", err)
				}
				if err := near.SetDeadline(time.Now()); err != nil {
					t.Errorf("SetDeadline: %v", err)
				}
				if err := near.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

func TestAPathThatResumesAForgottenFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(1)
		path.Resumes = true
		l := newLab(t, path)
		near, far := l.open(t)
		time.Sleep(time.Hour)
		near.Write([]byte("x"))
		if err := read(far); err != nil {
			t.Errorf("the server's Read: %v", err)
		}
		if s := l.nat.Stats(); s.Live != 1 {
			t.Errorf("the NAT counted %+v", s.Counts)
		}

		time.Sleep(time.Hour)
		other, _ := l.open(t)
		near.Write([]byte("no port is free"))
		far.SetReadDeadline(time.Now().Add(time.Second))
		if err := read(far); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the server's Read without a port: %v", err)
		}
		near.Close()
		other.Close()
	})
}

func TestWhatTheServerSentToAForgottenFlowArrivesIfItResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(1)
		path.Resumes = true
		l := newLab(t, path)
		near, far := l.open(t)
		time.AfterFunc(250*time.Second, func() { far.Write([]byte("x")) })
		time.AfterFunc(400*time.Second, func() { near.Write([]byte("x")) })
		start := time.Now()
		err := read(near)
		if waited := time.Since(start); err != nil || waited != 400*time.Second {
			t.Errorf("Read: %v after %v", err, waited)
		}
		time.Sleep(239 * time.Second)
		if s := l.nat.Stats(); s.Live != 1 {
			t.Errorf("forgotten again too soon: %+v", s.Counts)
		}
		near.Close()
	})
}

func TestAFlowThatLostBytesNeverResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := azure(1)
		path.Resumes = true
		l := newLab(t, path)
		near, far := l.open(t)
		time.AfterFunc(250*time.Second, func() { far.Write([]byte("lost")) })
		near.SetReadDeadline(time.Now().Add(300 * time.Second))
		if err := read(near); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		near.Write([]byte("x"))
		if s := l.nat.Stats(); s.Live != 0 {
			t.Errorf("it resumed: %+v", s.Counts)
		}
		near.Close()
	})
}

func TestKeepaliveProbesKeepAFlowWhereSegmentsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			counts netpath.Traffic
			probe  net.KeepAliveConfig
			live   int
		}{
			{netpath.Segments, net.KeepAliveConfig{Enable: true}, 1},
			{netpath.Segments, net.KeepAliveConfig{Enable: true, Idle: 240 * time.Second}, 0},
			{netpath.Segments, net.KeepAliveConfig{Enable: true, Idle: -1}, 0},
			{netpath.Segments, net.KeepAliveConfig{Idle: time.Second}, 0},
			{netpath.Bytes, net.KeepAliveConfig{Enable: true}, 0},
		} {
			path := azure(1)
			path.Counts = test.counts
			l := newLab(t, path)
			near, _ := l.open(t)
			keeper := near.(interface {
				SetKeepAliveConfig(net.KeepAliveConfig) error
			})
			if err := keeper.SetKeepAliveConfig(test.probe); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if s := l.nat.Stats(); s.Live != test.live {
				t.Errorf("after an hour of %+v: %+v", test, s.Counts)
			}
			keeper.SetKeepAliveConfig(net.KeepAliveConfig{})
			time.Sleep(240 * time.Second)
			if s := l.nat.Stats(); s.Held != 0 {
				t.Errorf("240 s after the probes stopped: %+v", s.Counts)
			}
			near.Close()
		}
	})
}

func TestScaleDividesTheTimersAndNothingElse(t *testing.T) {
	got := fauxnat.Scale(azure(128), 60)
	want := azure(128).Effective()
	want.Name = "azure, 60 times as fast"
	want.Idle = 4 * time.Second
	want.Hold = netpath.Hold{FIN: 4 * time.Second, RST: 250 * time.Millisecond, SYN: 500 * time.Millisecond, Idle: netpath.None}
	if got.Name != want.Name || got.Idle != want.Idle || got.Hold != want.Hold || got.Limit(netpath.Destination) != 128 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	tiny := azure(128)
	tiny.Idle, tiny.Hold.RST = 1, 59
	if got := fauxnat.Scale(tiny, 60); got.Idle <= 0 || got.Hold.RST <= 0 {
		t.Errorf("too short a time became unknown: %+v", got)
	}
	if got := fauxnat.Scale(netpath.Profile{}, 230); got.Idle != time.Second || got.Drain != 0 {
		t.Errorf("what is unknown became %+v", got)
	}
}

const server = "20.1.2.3:443"

// azure has the timers of an Azure load balancer.
func azure(ports int) netpath.Profile {
	return netpath.Profile{
		Name:   "azure",
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: ports}},
		Idle:   240 * time.Second,
		Hold: netpath.Hold{
			FIN:  240 * time.Second,
			RST:  15 * time.Second,
			SYN:  30 * time.Second,
			Idle: netpath.None,
		},
	}
}

// A lab is a server behind a NAT.
type lab struct {
	net memnet.Network
	nat fauxnat.NAT
	l   net.Listener
}

func newLab(t *testing.T, path netpath.Profile) *lab {
	l := new(lab)
	l.nat.Path, l.nat.Dial = path, l.net.DialContext
	l.l = l.listen(t, server)
	return l
}

func (l *lab) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := l.net.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// open returns both ends of a new flow.
func (l *lab) open(t *testing.T) (near, far net.Conn) {
	t.Helper()
	near, err := l.nat.DialContext(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func read(c net.Conn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

func ended(c net.Conn) error { return c.(interface{ Ended() error }).Ended() }

func reset(c net.Conn) {
	c.(interface{ SetLinger(int) error }).SetLinger(0)
	c.Close()
}

func closeWrite(c net.Conn) { c.(interface{ CloseWrite() error }).CloseWrite() }
