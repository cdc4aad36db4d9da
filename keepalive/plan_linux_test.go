package keepalive_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"golang.org/x/sys/unix"
)

const tcpRTOMax = 44 // TCP_RTO_MAX_MS

// options are those of a socket that a plan sets.
type options struct {
	keepalive, idle, interval, count int
	userTimeout, rtoMax              int // ms
}

// fd lets f have the file descriptor of c.
func fd(t testing.TB, c syscall.Conn, f func(fd int)) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}

func readOptions(t *testing.T, c net.Conn) (o options) {
	t.Helper()
	fd(t, c.(syscall.Conn), func(fd int) {
		for _, opt := range []struct {
			level, name int
			value       *int
		}{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, &o.keepalive},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, &o.idle},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, &o.interval},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, &o.count},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, &o.userTimeout},
			{unix.IPPROTO_TCP, tcpRTOMax, &o.rtoMax},
		} {
			var err error
			*opt.value, err = unix.GetsockoptInt(fd, opt.level, opt.name)
			if err != nil && opt.name != tcpRTOMax {
				t.Fatal(err)
			}
		}
	})
	return o
}

// bare is a pair of sockets on which nobody has set anything; the accepted one
// is of a listener as most programs have it, which speaks MPTCP too.
func bare(t *testing.T) (dialed, accepted net.Conn) {
	t.Helper()
	cfg := net.ListenConfig{KeepAlive: -1}
	ln, err := cfg.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{KeepAlive: -1}
	if dialed, err = d.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return dialed, accepted
}

func TestApplySetsTheOptionsOfASocket(t *testing.T) {
	probe, _ := bare(t)
	kernel := readOptions(t, probe) // its defaults

	for _, test := range []struct {
		name string
		plan keepalive.Plan
		want func(*options)
	}{
		{"nothing", keepalive.Plan{}, func(o *options) {}},
		{"Azure App Service", keepalive.For(netpath.AzureAppService()), func(o *options) {
			*o = options{1, 60, 5, 3, 90_000, 1000}
		}},
		{"no probes", keepalive.Plan{Idle: -1, Interval: time.Second, Count: 2, UserTimeout: -1}, func(o *options) {}},
		{"negative leaves it to the kernel", keepalive.Plan{Idle: 7 * time.Second, Interval: -1, Count: -1, UserTimeout: -1, RTOMax: time.Second}, func(o *options) {
			o.keepalive, o.idle = 1, 7
		}},
		{"more than the kernel takes", keepalive.Plan{Idle: 1e6 * time.Second, Interval: 1e6 * time.Second, Count: 1e6, UserTimeout: 1e6 * time.Hour, RTOMax: time.Hour}, func(o *options) {
			*o = options{1, 32767, 32767, 127, 24 * 24 * 3600 * 1000, 120_000}
		}},
		{"less than the kernel takes", keepalive.Plan{Idle: 1, Interval: 1, Count: 1, UserTimeout: 1, RTOMax: 1}, func(o *options) {
			*o = options{1, 1, 1, 1, 1, 1000}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dialed, accepted := bare(t)
			want := kernel
			test.want(&want)
			if kernel.rtoMax == 0 {
				want.rtoMax = 0 // before Linux 6.15
			}
			for which, c := range map[string]net.Conn{"dialed": dialed, "accepted": accepted} {
				if err := test.plan.Apply(c.(syscall.Conn)); err != nil {
					t.Errorf("%s: %v", which, err)
				}
				if got := readOptions(t, c); got != want {
					t.Errorf("%s: the kernel says %+v, want %+v", which, got, want)
				}
			}
		})
	}
}

func TestApplySwitchesOffTheProbesThatPackageNetSwitchedOn(t *testing.T) {
	c, _ := loopback(t)
	if o := readOptions(t, c); o.keepalive != 1 {
		t.Fatalf("package net left it at %+v", o)
	}
	if err := (keepalive.Plan{Idle: -1}).Apply(c); err != nil {
		t.Error(err)
	}
	if o := readOptions(t, c); o.keepalive != 0 {
		t.Error("the probes are still on")
	}
}

func TestApplyDoesWhatItCanForAnMPTCPConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	c, err := d.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if is, err := accepted.(*net.TCPConn).MultipathTCP(); !is {
		t.Skipf("no MPTCP here: %v", err)
	}
	for which, c := range map[string]net.Conn{"dialed": c, "accepted": accepted} {
		if err := keepalive.For(netpath.AzureAppService()).Apply(c.(syscall.Conn)); err != nil {
			t.Errorf("%s: %v", which, err)
		}
		fd(t, c.(syscall.Conn), func(fd int) {
			if idle, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); idle != 60 || err != nil {
				t.Errorf("%s: the first probe comes after %d s, %v", which, idle, err)
			}
		})
	}
}

func TestApplyNamesTheOptionThatAUnixSocketHasNot(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = keepalive.For(netpath.AzureAppService()).Apply(c.(syscall.Conn))
	if !errors.Is(err, syscall.EOPNOTSUPP) || !strings.Contains(err.Error(), "keepalive: set keepalive idle to 60") {
		t.Errorf("the error is %v", err)
	}
}

func TestKeepAliveReachesTheSocketsOfPackageNet(t *testing.T) {
	plan := keepalive.For(netpath.AzureAppService())
	cfg := net.ListenConfig{KeepAliveConfig: plan.KeepAlive()}
	ln, err := cfg.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{KeepAliveConfig: plan.KeepAlive()}
	dialed, err := d.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for which, c := range map[string]net.Conn{"dialed": dialed, "accepted": accepted} {
		if o := readOptions(t, c); o.keepalive != 1 || o.idle != 60 || o.interval != 5 || o.count != 3 {
			t.Errorf("%s: the kernel says %+v", which, o)
		}
	}
}
