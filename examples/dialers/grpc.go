package dialers

import (
	"context"
	"net"

	"google.golang.org/grpc"

	"github.com/natwise/natwise/dialer"
)

// GRPC returns the option that makes a channel dial by d. A channel needs one connection
// to each backend, which carries all its calls, so that ports are no matter for it; what
// it needs is to be known to the path, and to be known to be dead.
//
//	conn, err := grpc.NewClient("passthrough:///api.example.com:443", dialers.GRPC(d), creds)
//
// Say passthrough: then d gets the name, and tries first where there is most room. By
// itself NewClient looks names up, and d sees an address at a time; that is what you want
// if each address is a backend of its own, with round_robin for instance. No target goes
// through HTTPS_PROXY any more: gRPC leaves that to whoever dials.
//
//doctest:compiled with: d *dialer.Dialer, creds grpc.DialOption
func GRPC(d *dialer.Dialer) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", address)
	})
}
