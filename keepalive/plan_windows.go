package keepalive

import (
	"errors"

	"golang.org/x/sys/windows"
)

// From ws2ipdef.h. The keepalive times are there since Windows 10 1709, the
// count since 1703; TCP_MAXRT is in seconds.
const (
	tcpKeepIdle     = 3
	tcpMaxRT        = 5
	tcpKeepCount    = 16
	tcpKeepInterval = 17
)

func (p Plan) apply(fd uintptr) error {
	options := p.keepaliveOptions(names{windows.SOL_SOCKET, windows.SO_KEEPALIVE, windows.IPPROTO_TCP, tcpKeepIdle, tcpKeepInterval, tcpKeepCount})
	if p.UserTimeout > 0 {
		options = append(options, option{"TCP_MAXRT", windows.IPPROTO_TCP, tcpMaxRT, seconds(p.UserTimeout), false})
	}
	for i := range options {
		options[i].optional = true // older releases lack some of them
	}
	return setAll(options, func(level, opt, value int) error {
		return windows.SetsockoptInt(windows.Handle(fd), level, opt, value)
	})
}

func absent(err error) bool { return errors.Is(err, windows.WSAENOPROTOOPT) }
