//go:build !linux

package fauxnat

import (
	"errors"
	"syscall"
)

// deafen is not to be had: a packet filter of its own for a TCP socket is Linux's.
func deafen(syscall.Conn) error { return errors.ErrUnsupported }
