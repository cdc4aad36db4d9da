//go:build !windows

package dialer

import (
	"errors"
	"slices"
	"syscall"
)

// isRefused reports whether the SYN was answered with a RST.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isLocal reports whether this machine refused to send the SYN.
func isLocal(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EMFILE, syscall.ENFILE, syscall.EACCES,
		syscall.EPERM, syscall.EINVAL, syscall.EAFNOSUPPORT, syscall.ENOBUFS,
	}, errno)
}
