package dialer

import (
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/windows"
)

// Winsock has numbers of its own, which package syscall's are not.

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

func isLocal(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		windows.WSAEADDRNOTAVAIL, windows.WSAEADDRINUSE, windows.WSAEMFILE, windows.WSAEACCES,
		windows.WSAEINVAL, windows.WSAEAFNOSUPPORT, windows.WSAENOBUFS,
	}, errno)
}

func isReset(err error) bool { return errors.Is(err, windows.WSAECONNRESET) }

func isUnreachable(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH, windows.WSAEHOSTDOWN, windows.WSAENETDOWN,
	}, errno)
}

func isOutOfPorts(err error) bool {
	return errors.Is(err, windows.WSAEADDRINUSE) || errors.Is(err, windows.WSAENOBUFS)
}
