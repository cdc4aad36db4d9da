//go:build !linux

package keepalive

import (
	"net"
	"time"
)

// Here the kernel is not asked: what is not known is counted for the longest
// hold, EndSoonest does nothing, and holds count from Close.

func look(c net.Conn) sight { return queued(c) }

func lastHeard(net.Conn) (silence time.Duration, ok bool) { return 0, false }

func lastMoved(net.Conn) (quiet time.Duration, ok bool) { return 0, false }

func verdict(net.Conn) error { return nil }

func (l *life) linger(*Ending) (began bool, err error) { return false, nil }
