package keepalive

import (
	"errors"

	"golang.org/x/sys/unix"
)

func (p Plan) apply(fd uintptr) error {
	options := p.keepaliveOptions(names{unix.SOL_SOCKET, unix.SO_KEEPALIVE, unix.IPPROTO_TCP, unix.TCP_KEEPALIVE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT})
	if p.UserTimeout > 0 {
		options = append(options, option{"TCP_RXT_CONNDROPTIME", unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, seconds(p.UserTimeout), false})
	}
	return setAll(options, func(level, opt, value int) error {
		return unix.SetsockoptInt(int(fd), level, opt, value)
	})
}

func absent(err error) bool { return errors.Is(err, unix.ENOPROTOOPT) }
