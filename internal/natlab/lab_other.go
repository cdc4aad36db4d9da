//go:build !linux

package natlab

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// A Lab needs Linux. Here there is none: New says so.
type Lab struct{}

// A Proxy needs a Lab.
type Proxy struct{ Patience time.Duration }

// New returns ErrUnavailable.
func New(Config) (*Lab, error) { return nil, ErrUnavailable }

// Enter does nothing.
func Enter() {}

func (*Lab) Close() error                                           { return nil }
func (*Lab) Server(int) (none netip.Addr)                           { return none }
func (*Lab) Client(int) (none netip.Addr)                           { return none }
func (*Lab) Dial(context.Context, string, string) (net.Conn, error) { return nil, ErrUnavailable }
func (*Lab) Listen(string) (net.Listener, error)                    { return nil, ErrUnavailable }
func (*Lab) ListenClient(string) (net.Listener, error)              { return nil, ErrUnavailable }
func (*Lab) Exec(context.Context, string, string, ...string) (string, error) {
	return "", ErrUnavailable
}
func (*Lab) Inside(string, func() error) error    { return ErrUnavailable }
func (*Lab) Count(netip.AddrPort) error           { return ErrUnavailable }
func (*Lab) Blackhole(netip.AddrPort, bool) error { return ErrUnavailable }
func (*Lab) Lose(float64) error                   { return ErrUnavailable }
func (*Lab) DropNext(netip.AddrPort, int) error   { return ErrUnavailable }
func (*Lab) Proxy(netip.AddrPort) (*Proxy, error) { return nil, ErrUnavailable }
func (*Lab) Forget() error                        { return ErrUnavailable }
func (*Lab) ForgetFlow(net.Conn) error            { return ErrUnavailable }
func (*Lab) Balance(netip.AddrPort, ...netip.AddrPort) error {
	return ErrUnavailable
}
func (*Lab) Flows(into []Flow) ([]Flow, error) { return into, ErrUnavailable }
func (*Lab) Counts() (none Counts, err error)  { return none, ErrUnavailable }
func (*Lab) Held(netip.AddrPort) (int, error)  { return 0, ErrUnavailable }

func (*Proxy) Lie(bool)     {}
func (*Proxy) Close() error { return nil }
