package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// A crowd is many idle connections over loopback. It is one goroutine's, which
// closes it.
type crowd struct {
	near   []*net.TCPConn
	far    []int // their descriptors, which are the server's; -1: it has ended that one
	server *server
	limit  *syscall.Rlimit // of descriptors, to be restored; nil: it was left alone
}

// spare is how many descriptors are there for all else.
const spare = 128

// openCrowd opens n connections.
func openCrowd(n int) (*crowd, error) {
	s, err := startServer()
	if err != nil {
		return nil, err
	}
	need := n + spare
	if !s.apart {
		need += n
	}
	old, err := raiseLimit(uint64(need))
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	c := &crowd{near: make([]*net.TCPConn, n), far: slices.Repeat([]int{-1}, n), server: s, limit: old}
	for i := range c.near {
		if err := c.connect(i); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// connect opens connection i, or opens it again.
func (c *crowd) connect(i int) error {
	c.drop(i)
	near, err := net.DialTCP("tcp4", nil, c.server.addr)
	if err != nil {
		return fmt.Errorf("connection %d: %w", i, err)
	}
	near.SetKeepAlive(false) // Go's own, every 15 s, would disturb
	c.near[i] = near
	if c.far[i], err = c.server.accept(); err != nil {
		return fmt.Errorf("connection %d: %w", i, err)
	}
	return nil
}

// drop closes connection i, in a way that leaves no port in TIME_WAIT.
func (c *crowd) drop(i int) {
	if near := c.near[i]; near != nil {
		near.SetLinger(0)
		near.Close()
		c.near[i] = nil
	}
	if c.far[i] >= 0 {
		c.server.end(c.far[i], fin)
		c.far[i] = -1
	}
}

// end has the server end connection i, and returns when it began to.
func (c *crowd) end(i int, how ending) (time.Time, error) {
	began, err := c.server.end(c.far[i], how)
	c.far[i] = -1
	return began, err
}

func (c *crowd) close() error {
	for i := range c.near {
		c.drop(i)
	}
	err := c.server.close()
	if c.limit != nil {
		err = errors.Join(err, syscall.Setrlimit(syscall.RLIMIT_NOFILE, c.limit))
	}
	return err
}

// raiseLimit lets this process have n descriptors. It returns the limit that was
// there before if it had to change it.
func raiseLimit(n uint64) (old *syscall.Rlimit, err error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return nil, os.NewSyscallError("getrlimit", err)
	}
	if l.Cur >= n {
		return nil, nil
	}
	raised := syscall.Rlimit{Cur: n, Max: max(n, l.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return nil, fmt.Errorf("%w: %d descriptors are needed and %d allowed: setrlimit: %w", errUnavailable, n, l.Max, err)
	}
	return &l, nil
}

// A server is the far ends of a crowd. It is a thread which Go's netpoller, that
// waits for the near ends, knows nothing of. Where the kernel lets it, it has
// descriptors of its own, so that n of them are enough for n connections.
type server struct {
	addr     *net.TCPAddr
	apart    bool // it has descriptors of its own
	listener int
	orders   chan func() // one after the other, by its thread
	ended    chan struct{}
}

// startServer must be called before there are connections, of which a server
// with descriptors of its own would hold duplicates.
func startServer() (*server, error) {
	s := &server{listener: -1, orders: make(chan func()), ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		defer close(s.ended)
		for order := range s.orders {
			order()
		}
	}()
	var err error
	s.do(func() { err = s.listen() })
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// do has the server's thread do something, and waits until it has.
func (s *server) do(order func()) {
	done := make(chan struct{})
	s.orders <- func() {
		order()
		close(done)
	}
	<-done
}

// listen is the thread's first order.
func (s *server) listen() error {
	s.apart = syscall.Unshare(syscall.CLONE_FILES) == nil
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	s.listener = fd
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := syscall.Listen(fd, 16); err != nil {
		return os.NewSyscallError("listen", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	here := name.(*syscall.SockaddrInet4)
	s.addr = &net.TCPAddr{IP: here.Addr[:], Port: here.Port}
	return nil
}

// accept returns the far end of what was dialed last.
func (s *server) accept() (fd int, err error) {
	s.do(func() { fd, _, err = syscall.Accept4(s.listener, syscall.SOCK_CLOEXEC) })
	return fd, os.NewSyscallError("accept", err)
}

// end closes a far end, and returns the time just before.
func (s *server) end(fd int, how ending) (began time.Time, err error) {
	s.do(func() {
		if how == rst {
			err = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		}
		began = time.Now()
		err = errors.Join(err, syscall.Close(fd))
	})
	return began, err
}

// close ends the thread. All far ends are closed before.
func (s *server) close() error {
	var err error
	if s.listener >= 0 {
		s.do(func() { err = syscall.Close(s.listener) })
	}
	close(s.orders)
	<-s.ended
	return err
}
