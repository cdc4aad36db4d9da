//go:build !linux

package dialer

func strays() (uint64, bool) { return 0, false }
func listening() []uint16    { return nil }
func linearSYNs() int        { return 0 }
func localPorts() string     { return "" }
