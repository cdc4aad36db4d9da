//go:build linux || darwin

package terminal

import (
	"os"
	"syscall"
	"unsafe"
)

// windowSize asks the terminal, which may not know: zero. Not ok: f is none.
func windowSize(f *os.File) (cols, rows int, ok bool) {
	var w struct{ rows, cols, x, y uint16 }
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&w)))
		ok = errno == 0
	})
	return int(w.cols), int(w.rows), ok
}
