package fauxnat

import (
	"os"
	"syscall"
)

// deafen has the kernel drop every packet that comes to a socket, before TCP sees
// it: by a packet filter (socket(7), SO_ATTACH_FILTER), which anyone may attach to
// his own socket.
func deafen(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	none := syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: 0} // so many bytes are let through
	var refused error
	err = raw.Control(func(fd uintptr) {
		//lint:ignore SA1019 the package that is named instead is not the standard library's
		refused = syscall.AttachLsf(int(fd), []syscall.SockFilter{none})
	})
	if err != nil {
		return nil // it was closed meanwhile
	}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", refused)
}
