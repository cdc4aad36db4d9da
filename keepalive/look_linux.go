package keepalive

import (
	"errors"
	"io"
	"net"
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

// look asks the kernel without changing anything: SO_ERROR and reads would
// consume the evidence.
func look(c net.Conn) sight {
	s := queued(c)
	control(c, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return // not TCP
		}
		s = sight{known: true, ended: info.State == tcpClose}
		s.gotFIN = info.State == tcpCloseWait || info.State == tcpLastAck || info.State == tcpClosing
		s.unread, _ = unix.IoctlGetInt(fd, unix.SIOCINQ)
		s.unsent, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	})
	return s
}

// lastHeard returns for how long the kernel has heard nothing on c. What was
// sent without an answer counts for nothing: it may be lost.
func lastHeard(c net.Conn) (silence time.Duration, ok bool) {
	info := tcpInfo(c)
	if info == nil {
		return 0, false
	}
	return milliseconds(min(info.Last_data_recv, info.Last_ack_recv)), true
}

// lastMoved returns for how long the kernel has neither heard nor sent anything
// on c. While a probe waits for its answer it does not know when it was sent.
func lastMoved(c net.Conn) (quiet time.Duration, ok bool) {
	info := tcpInfo(c)
	if info == nil {
		return 0, false
	}
	if info.Probes > 0 {
		return 0, true
	}
	return milliseconds(min(info.Last_data_sent, info.Last_data_recv, info.Last_ack_recv)), true
}

func milliseconds(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }

// tcpInfo returns nil if c is no TCP socket, or closed.
func tcpInfo(c net.Conn) (info *unix.TCPInfo) {
	control(c, func(fd int) {
		info, _ = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info
}

// verdict returns the error with which the kernel ended c, nil if in order. It
// is for the last look at a connection: it consumes the evidence.
func verdict(c net.Conn) (err error) {
	control(c, func(fd int) {
		if errno, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			err = syscall.Errno(errno)
		}
	})
	return err
}

func control(c net.Conn, f func(fd int)) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { f(int(fd)) })
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
	control(l.Conn, func(fd int) {
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
		told.Unsure = !waitClosed(f, l.plan.Linger)
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
