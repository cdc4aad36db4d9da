//go:build !windows

package dialer

import (
	"errors"
	"net"
	"os"
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
		syscall.EPERM, syscall.EINVAL, syscall.EAFNOSUPPORT, syscall.ENOBUFS, syscall.ENODEV,
	}, errno)
}

// isReset reports whether a RST came later.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// isUnreachable reports whether a router says so, or there is no way.
func isUnreachable(err error) bool {
	var errno syscall.Errno
	return lacksAddress(err) && !hasSource(err) || errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
	}, errno)
}

// isOutOfPorts reports whether all local ports are taken: of a destination or, for a socket
// that is bound to an address first, of that.
func isOutOfPorts(err error) bool {
	return lacksAddress(err) && hasSource(err) || errors.Is(err, syscall.EADDRINUSE)
}

func lacksAddress(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call) && call.Syscall == "connect" && call.Err == syscall.EADDRNOTAVAIL
}

// hasSource reports whether a flow to where the failed one would have led has an address to
// come from: without IPv6 there is none for ::1, which is told in the same words as that no
// port is left. UDP needs an address, too, and its connect sends nothing.
func hasSource(err error) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Addr == nil {
		return true
	}
	c, err := net.Dial("udp", op.Addr.String())
	if err == nil {
		c.Close()
	}
	return err == nil
}
