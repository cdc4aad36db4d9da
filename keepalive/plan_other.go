//go:build !linux && !darwin && !windows

package keepalive

// apply does nothing here: set Plan.KeepAlive on the net.Dialer or
// net.ListenConfig instead. There is no portable user timeout.
func (p Plan) apply(uintptr) error { return nil }

func absent(error) bool { return false }
