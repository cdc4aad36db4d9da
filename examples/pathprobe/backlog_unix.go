//go:build unix

package main

import (
	"net"
	"syscall"
)

// setBacklog says how many connections may wait to be accepted, less one.
func setBacklog(ln *net.TCPListener, n int) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = syscall.Listen(int(fd), n) }); err != nil {
		return err
	}
	return refused
}
