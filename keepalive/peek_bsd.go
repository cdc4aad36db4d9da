//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package keepalive

import (
	"io"

	"golang.org/x/sys/unix"
)

const fionread = 0x4004667f // FIONREAD, sys/filio.h

// peek is look, and a read that leaves the data. It consumes an error, which is
// noted for that: asked again, the socket pretends that a FIN has come.
func (l *life) peek() sight {
	s := l.look()
	if l.raw == nil || l.marks.Load()&(sawReset|sawDeath) != 0 {
		return s
	}
	l.raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
		case err != nil:
			s.ended = true
			l.note(err)
		case n == 0:
			l.note(io.EOF)
		default:
			s.unread, _ = unix.IoctlGetInt(int(fd), fionread)
		}
	})
	return s
}
