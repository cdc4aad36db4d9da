//go:build !linux

package dialer_test

import (
	"testing"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
)

// Without Linux there is no kernel lab, and these are not reached.

func wantProbes(*testing.T, *dialer.Conn, keepalive.Plan) {}
func acknowledged(*testing.T, *dialer.Conn)               {}
