//go:build !windows

package keepalive

import (
	"errors"
	"syscall"
)

// isReset reports whether err says that a RST came.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// isDeath reports whether err is the kernel's own verdict. A deadline is not:
// os.ErrDeadlineExceeded is no ETIMEDOUT.
func isDeath(err error) bool {
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
