package keepalive

import (
	"os"

	"golang.org/x/sys/unix"
)

// addLocked has the kernel tell of the end of l, with the slot and its
// generation. Data does not wake anybody: there is no EPOLLIN. The kernel drops l
// from the set when its socket is closed.
func (w *Watcher) addLocked(l *life, at *watch) (ok bool) {
	if l.raw == nil || w.poll == nil && !w.startLocked() {
		return false
	}
	set, err := w.poll.SyscallConn()
	if err != nil {
		return false
	}
	event := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: at.slot, Pad: at.generation}
	set.Control(func(epfd uintptr) {
		control(l.raw, func(fd int) {
			ok = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_ADD, fd, &event) == nil
		})
	})
	return ok
}

// startLocked makes a set of sockets that is itself watched by Go's netpoller, so
// that waiting for news holds no thread.
func (w *Watcher) startLocked() bool {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // or os.NewFile takes it for a file
		unix.Close(epfd)
		return false
	}
	w.poll = os.NewFile(uintptr(epfd), "epoll")
	go w.run(w.poll)
	return true
}

// run ends when poll is closed.
func (w *Watcher) run(poll *os.File) {
	raw, err := poll.SyscallConn()
	if err != nil {
		return
	}
	var events [128]unix.EpollEvent
	for {
		n := 0
		err := raw.Read(func(epfd uintptr) bool {
			for {
				var err error
				if n, err = unix.EpollWait(int(epfd), events[:], 0); err != unix.EINTR {
					return n > 0
				}
			}
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			w.tell(e.Fd, e.Pad)
		}
	}
}
