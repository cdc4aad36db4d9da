package fauxnat_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

func TestEveryProfileRunsTheSameScenario(t *testing.T) {
	for p := range netpath.All() {
		p.Exempt = netpath.NoExempt()
		t.Run(p.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, p)
				p := p.Effective()
				falls(t, l, p)
				ends(t, l, "a FIN", func(c net.Conn) { c.Close() }, p.Hold.FIN)
				ends(t, l, "a RST", reset, p.Hold.RST)
				fills(t, l, p)
			})
		})
	}
}

// falls lets a flow fall silent.
func falls(t *testing.T, l *lab, p netpath.Profile) {
	near, far := l.open(t)
	defer near.Close()
	defer far.Close()
	if p.Idle == netpath.None {
		time.Sleep(24 * time.Hour)
		if l.nat.Stats().Live != 1 {
			t.Errorf("a flow was forgotten within a day")
		}
		return
	}
	time.Sleep(p.Idle - 1)
	if l.nat.Stats().Live != 1 {
		t.Errorf("a flow was forgotten before %v", p.Idle)
	}
	time.Sleep(time.Nanosecond)
	synctest.Wait() // for a RST or FIN of the path's own
	if l.nat.Stats().Live != 0 {
		t.Errorf("a flow was remembered for more than %v", p.Idle)
	}
	checkEmpty(t, l, "a flow was forgotten", p.Hold.Idle)
	near.SetReadDeadline(time.Now().Add(time.Second))
	want := map[netpath.IdleAction]error{netpath.ResetBoth: syscall.ECONNRESET, netpath.Close: io.EOF}[p.AtIdle]
	if want == nil {
		want = os.ErrDeadlineExceeded
	}
	if err := read(near); !errors.Is(err, want) {
		t.Errorf("on a forgotten flow Read ended with %v, want %v", err, want)
	}
}

// ends closes a flow in a given way.
func ends(t *testing.T, l *lab, name string, end func(net.Conn), hold time.Duration) {
	near, far := l.open(t)
	end(near)
	far.Close()
	checkEmpty(t, l, name, hold)
}

// checkEmpty checks that one port is held for so long and no longer.
func checkEmpty(t *testing.T, l *lab, after string, hold time.Duration) {
	t.Helper()
	if hold > 0 {
		time.Sleep(hold - 1)
		if held := l.nat.Stats().Held; held != 1 {
			t.Errorf("just within %v after %s %d ports are held", hold, after, held)
		}
		time.Sleep(time.Nanosecond)
	}
	if held := l.nat.Stats().Held; held != 0 {
		t.Errorf("%v after %s %d ports are held", hold, after, held)
	}
}

// fills dials until the path is full, where it can be.
func fills(t *testing.T, l *lab, p netpath.Profile) {
	room := netpath.None
	for _, limit := range p.Limits {
		if n := p.Limit(limit.Scope); n != netpath.None && (room == netpath.None || n < room) {
			room = n
		}
	}
	if room == netpath.None || room > 28_000 { // memnet has no more ports
		return
	}
	before := l.nat.Stats()
	var conns []net.Conn
	for range room {
		near, far := l.open(t)
		conns = append(conns, near, far)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := l.nat.DialContext(ctx, "tcp", server); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one dial more than %d ended with %v", room, err)
	}
	if s := l.nat.Stats(); s.Held != room || s.Opened != before.Opened+room || s.RefusedSYNs != 1 {
		t.Errorf("with room for %d the NAT counted %+v", room, s.Counts)
	}
	for _, c := range conns {
		c.Close()
	}
	time.Sleep(max(p.Hold.FIN, 1))
	if s := l.nat.Stats(); s.Held != 0 {
		t.Errorf("after the last hold: %+v", s.Counts)
	}
}
