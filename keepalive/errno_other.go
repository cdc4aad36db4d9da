//go:build !windows

package keepalive

import (
	"errors"
	"syscall"
)

// isReset reports whether err says that a RST came.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// isTimedOut reports whether err is the kernel's verdict. A deadline is not:
// os.ErrDeadlineExceeded is no ETIMEDOUT.
func isTimedOut(err error) bool { return errors.Is(err, syscall.ETIMEDOUT) }

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isUnreachable reports whether err is what an ICMP message said, which the kernel
// tells when it gives up.
func isUnreachable(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || isRefused(err)
}
