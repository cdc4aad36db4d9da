package servers

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// diesWithParent has the kernel kill the process when the test dies.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// hold binds a free port of 127.0.0.1 with a socket that never listens. Until
// it is closed the kernel gives the port to nobody who asks for any port, be it
// to listen or to dial. Whoever asks for this one and sets SO_REUSEADDR, as all
// servers do, may listen on it, again and again; in between dials are refused.
//
// To choose a port and leave it free would be a race at each start, and a dial
// of the test's own could win it.
func hold() (port int, held io.Closer, err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	socket := os.NewFile(uintptr(fd), "held port")
	defer func() {
		if err != nil {
			socket.Close()
		}
	}()
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, os.NewSyscallError("bind", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, nil, os.NewSyscallError("getsockname", err)
	}
	at, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		return 0, nil, fmt.Errorf("servers: bound to a %T", name)
	}
	return at.Port, socket, nil
}
