//go:build !linux

package keepalive

import (
	"syscall"
	"time"
)

// Here the kernel is not asked: what is not known is counted for the longest
// hold, EndSoonest does nothing, and holds count from Close.

func (l *life) ask(uintptr) {}

func lastHeard(syscall.RawConn) (silence time.Duration, ok bool) { return 0, false }

func lastMoved(syscall.RawConn) (quiet time.Duration, ok bool) { return 0, false }

func lastPayload(syscall.RawConn) (quiet time.Duration, ok bool) { return 0, false }

func multipath(syscall.RawConn) bool { return false }

func socketError(syscall.RawConn) error { return nil }

func (l *life) linger(*Ending) (began bool, err error) { return false, nil }

func (v *vigil) setTimeout(uintptr) {} // no Detector watches sockets here
