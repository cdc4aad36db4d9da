package keepalive

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

func (p Plan) apply(fd uintptr) error {
	options := p.keepaliveOptions(names{unix.SOL_SOCKET, unix.SO_KEEPALIVE, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT})
	if p.UserTimeout > 0 {
		ms := max(1, p.UserTimeout.Milliseconds()) // zero would be the kernel's default
		options = append(options, option{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ms), true})
		if p.RTOMax > 0 {
			rto := max(time.Second, min(p.RTOMax, 120*time.Second)).Milliseconds()
			options = append(options, option{"TCP_RTO_MAX_MS", unix.IPPROTO_TCP, tcpRTOMax, int(rto), true})
		}
	}
	return setAll(options, func(level, opt, value int) error {
		return unix.SetsockoptInt(int(fd), level, opt, value)
	})
}

// setTimeout sets the plan's user timeout, or none.
func (v *vigil) setTimeout(fd uintptr) {
	ms := 0
	if v.timeout {
		ms = int(max(1, min(v.life.plan.Load().UserTimeout, maxUserTimeout).Milliseconds()))
	}
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms) // an MPTCP connection has none
}

const tcpRTOMax = 44 // TCP_RTO_MAX_MS, include/uapi/linux/tcp.h, Linux 6.15

// absent: an older kernel, or an MPTCP connection, which a Go listener accepts
// from peers that speak it.
func absent(err error) bool { return errors.Is(err, unix.ENOPROTOOPT) }
