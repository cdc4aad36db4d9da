package servers

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// diesWithParent has the kernel kill the process when the test dies.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// asNobody has a process take itself for the user nobody, as which programs run
// that refuse to be root's, while for all others it stays the test's user: it
// may use the directories of the test, and they can be removed.
//
// It is the first process of its namespace, so whatever it starts dies with it,
// and has ended when its end is reported. The shared memory of System V that a
// killed process leaves goes with the namespace too.
func asNobody() *syscall.SysProcAttr {
	const nobody = 65534
	attr := diesWithParent()
	attr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	return attr
}

// killAll kills the process and those that it started, at one moment. Alone it
// would leave them the time to see that it is gone, and to say so: a PostgreSQL
// does.
func (p *process) killAll() {
	if p.Signal(syscall.SIGSTOP) != nil { // from here on it starts no more
		return // it is gone, and its number may be another's
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.Pid))
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	p.Kill()
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
