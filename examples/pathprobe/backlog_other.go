//go:build !unix

package main

import (
	"errors"
	"net"
)

// setBacklog cannot be done here: how long unanswered SYNs hold a port is then
// not measured.
func setBacklog(*net.TCPListener, int) error { return errors.ErrUnsupported }
