package dialers

import (
	"net"

	"google.golang.org/grpc"
	grpckeepalive "google.golang.org/grpc/keepalive"

	"github.com/natwise/natwise/keepalive"
)

// Keep returns a listener whose connections follow plan: they stay known to the path, and
// one whose peer is gone ends within the plan's user timeout. It is for any server that
// takes a listener.
func Keep(ln net.Listener, plan keepalive.Plan) net.Listener { return kept{ln, plan} }

type kept struct {
	net.Listener
	plan keepalive.Plan
}

func (k kept) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		k.plan.Apply(tcp) // where the kernel refuses, the connection is as good as before
	}
	return c, err
}

// GRPCServer returns the option that leaves a connection of Keep the user timeout of its
// plan. By itself a gRPC server sets one of 20 s on each, whether it pings its clients or
// not, and then the first probe that is lost ends a connection that lives.
func GRPCServer(plan keepalive.Plan) grpc.ServerOption {
	return grpc.KeepaliveParams(grpckeepalive.ServerParameters{Timeout: plan.UserTimeout})
}
