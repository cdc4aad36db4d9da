package fauxnat_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func TestInTheDarkNothingIsAcknowledged(t *testing.T) {
	nat, l := onLoopback(t, azure(128))
	dst := l.Addr().(*net.TCPAddr).AddrPort()
	pair := func() (near, far net.Conn) {
		t.Helper()
		near, err := nat.DialContext(t.Context(), "tcp", dst.String())
		if err != nil {
			t.Fatal(err)
		}
		if far, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close(); far.Close() })
		return near, far
	}
	dark, far := pair()
	if n, err := nat.Darken(netip.MustParseAddrPort("127.0.0.1:1")); n != 0 || err != nil {
		t.Fatalf("%d flows to somewhere else are dark: %v", n, err)
	}
	if n, err := nat.Darken(dst); n != 1 || err != nil {
		t.Fatalf("%d flows are dark: %v", n, err)
	}
	dark.Write([]byte("x"))
	if err := read(far); err != nil { // it has arrived
		t.Fatal(err)
	}
	far.Write([]byte("y"))
	reset(far)
	dark.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if err := read(dark); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if n := unacknowledged(t, dark); n != 1 {
		t.Errorf("%d bytes are unacknowledged", n)
	}

	light, other := pair()
	go other.Write([]byte("z"))
	if err := read(light); err != nil {
		t.Errorf("a new flow: %v", err)
	}
	if s := nat.Stats(); s.Live != 2 || s.Astray != 1 {
		t.Errorf("the NAT counted %+v", s.Counts)
	}
	dark.Close()
	if s := nat.Stats(); s.Live != 1 || s.Astray != 0 {
		t.Errorf("closed: %+v", s.Counts)
	}
}

// unacknowledged is SIOCOUTQ, which Linux calls TIOCOUTQ too.
func unacknowledged(t *testing.T, c net.Conn) (bytes int32) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&bytes))); errno != 0 {
			t.Error(errno)
		}
	})
	return bytes
}
