package dialer_test

import (
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"golang.org/x/sys/unix"
)

// wantProbes reads the keepalive options back from the socket.
func wantProbes(t *testing.T, c *dialer.Conn, plan keepalive.Plan) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		want := plan.KeepAlive()
		for _, o := range []struct {
			level, name, want int
		}{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(want.Idle / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(want.Interval / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, want.Count},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); got != o.want || err != nil {
				t.Errorf("option %d is %d, want %d: %v", o.name, got, o.want, err)
			}
		}
	})
}

// acknowledged waits until the peer has everything.
func acknowledged(t *testing.T, c *dialer.Conn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "everything acknowledged", func() bool {
		unsent := -1
		raw.Control(func(fd uintptr) { unsent, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		return unsent == 0
	})
}

// probeAfter is after how many seconds of silence the kernel sends the first probe.
func probeAfter(t *testing.T, c *dialer.Conn) (seconds int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		seconds, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
	})
	return seconds
}
