package dialer

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const bindsToDevice = true

// binding returns what a socket needs before it is bound to a source. The port is chosen when
// the destination is known, so that another destination may have the same one: a socket that
// is bound to an address only would get one that nobody else has (Linux, ip(7)).
func binding(src netip.Addr, device string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			if src.IsValid() {
				unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // since 4.2; without it there are fewer ports
			}
			if device != "" {
				if refused = unix.BindToDevice(int(fd), device); refused != nil {
					refused = fmt.Errorf("bind to interface %q: %w", device, refused)
				}
			}
		})
		if err != nil {
			return err
		}
		return refused
	}
}
