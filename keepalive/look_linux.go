package keepalive

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// States of a TCP socket, include/net/tcp_states.h.
const (
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// ask puts into seen what the kernel says. SO_ERROR and reads would consume the
// evidence.
func (l *life) ask(fd uintptr) {
	state, err := unix.GetsockoptByte(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) // its first
	if err != nil {
		return // not TCP
	}
	s := sight{known: true, ended: state == tcpClose}
	s.gotFIN = state == tcpCloseWait || state == tcpLastAck || state == tcpClosing
	s.unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	s.unsent, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	l.seen = s
}

// lastHeard returns for how long the kernel has heard nothing. What was
// sent without an answer counts for nothing: it may be lost.
func lastHeard(raw syscall.RawConn) (silence time.Duration, ok bool) {
	info := tcpInfo(raw)
	if info == nil {
		return 0, false
	}
	return milliseconds(min(info.Last_data_recv, info.Last_ack_recv)), true
}

// lastMoved returns for how long the kernel has neither heard nor sent
// anything. While a probe waits for its answer it does not know when it was sent.
func lastMoved(raw syscall.RawConn) (quiet time.Duration, ok bool) {
	info := tcpInfo(raw)
	if info == nil {
		return 0, false
	}
	if info.Probes > 0 {
		return 0, true
	}
	return milliseconds(min(info.Last_data_sent, info.Last_data_recv, info.Last_ack_recv)), true
}

// lastPayload returns for how long no payload was sent or received, also of a
// connection that the kernel has ended.
func lastPayload(raw syscall.RawConn) (quiet time.Duration, ok bool) {
	info := tcpInfo(raw)
	if info == nil {
		return 0, false
	}
	return milliseconds(min(info.Last_data_sent, info.Last_data_recv)), true
}

// multipath reports whether a connection is made of several.
func multipath(raw syscall.RawConn) (several bool) {
	control(raw, func(fd int) {
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		several = err == nil && protocol == unix.IPPROTO_MPTCP
	})
	return several
}

func milliseconds(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
func microseconds(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }

// tcpInfo returns nil if there is no TCP socket, or it is closed.
func tcpInfo(raw syscall.RawConn) (info *unix.TCPInfo) {
	control(raw, func(fd int) {
		info, _ = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info
}

// socketError returns SO_ERROR, which it consumes.
func socketError(raw syscall.RawConn) (err error) {
	control(raw, func(fd int) {
		if errno, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			err = syscall.Errno(errno)
		}
	})
	return err
}

func control(raw syscall.RawConn, f func(fd int)) {
	if raw != nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// drain reads and throws away about limit bytes, or what there is. The error is
// nil when there is nothing more for now, io.EOF after the peer's FIN.
func drain(fd, limit int) (n int, err error) {
	var buf [4096]byte
	for n < limit {
		got, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return n, nil
		case err != nil:
			return n, err
		case got == 0:
			return n, io.EOF
		}
		n += got
	}
	return n, nil
}

// maxDrain is how much a peer may still say after we have closed, before it is
// told by RST that nobody listens.
const maxDrain = 64 << 10

// linger closes the connection for its users, sends our FIN, and waits in the
// background until the kernel has seen both FINs and the acknowledgement of
// ours: from then on the path's hold counts. It reports false, with nothing
// done, where the connection is no socket; or where there is no file descriptor
// left, and then nobody will know.
func (l *life) linger(e *Ending) (began bool, err error) {
	dup := -1
	control(l.raw, func(fd int) {
		var err error
		if dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			dup, e.Unsure = -1, true
		}
	})
	if dup < 0 {
		return false, nil
	}
	err = l.Conn.Close() // wakes its readers and writers; the duplicate keeps the flow
	unix.Shutdown(dup, unix.SHUT_WR)
	f := os.NewFile(uintptr(dup), "") // in Go's poller: no thread waits
	told := *e
	go func() {
		told.Unsure = !waitClosed(f, l.plan.Load().Linger)
		f.Close()
		l.ended(told)
	}()
	return true, err
}

// waitClosed reports whether both FINs have passed within limit. If the peer
// talks on for too long, f is left to be closed by RST.
func waitClosed(f *os.File, limit time.Duration) bool {
	raw, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Now().Add(limit)) != nil {
		return false
	}
	left, orderly := maxDrain, true
	err = raw.Read(func(fd uintptr) bool {
		n, err := drain(int(fd), left)
		if left -= n; left <= 0 {
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			orderly = false
			return true
		}
		if err != nil && !errors.Is(err, io.EOF) {
			orderly = false // a RST after our FIN
			return true
		}
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		return err != nil || info.State == tcpClose
	})
	return err == nil && orderly
}
