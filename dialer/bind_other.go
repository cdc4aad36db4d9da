//go:build !linux

package dialer

import (
	"net/netip"
	"syscall"
)

const bindsToDevice = false

func binding(netip.Addr, string) func(network, address string, c syscall.RawConn) error { return nil }
