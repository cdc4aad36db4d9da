package dialers_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/natwise/natwise/examples/dialers"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// option is what the kernel has been told about the first connection that g has accepted.
func (g *gate) option(t *testing.T, opt int) (value int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	raw, err := g.conns[0].(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { value, refused = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, opt) }); err != nil || refused != nil {
		t.Fatal(err, refused)
	}
	return value
}

func TestConnectionsOfAGRPCServerFollowThePlan(t *testing.T) {
	plan := keepalive.For(netpath.AWSNLB())
	for _, c := range []struct {
		name    string
		options []grpc.ServerOption
		timeout time.Duration
	}{
		{"with its option", []grpc.ServerOption{dialers.GRPCServer(plan)}, plan.UserTimeout},
		{"without", nil, 20 * time.Second}, // gRPC's own
	} {
		g := listen(t)
		server := grpc.NewServer(c.options...)
		grpc_health_v1.RegisterHealthServer(server, health.NewServer())
		served := make(chan error, 1)
		go func() { served <- server.Serve(dialers.Keep(g, plan)) }()
		if err := check(t, channel(t, behindNAT(4), "passthrough:///"+g.addr())); err != nil {
			t.Error(err)
		}
		probes := time.Duration(g.option(t, unix.TCP_KEEPIDLE)) * time.Second
		timeout := time.Duration(g.option(t, unix.TCP_USER_TIMEOUT)) * time.Millisecond
		if probes != plan.Idle || timeout != c.timeout {
			t.Errorf("%s: probes after %v, user timeout %v", c.name, probes, timeout)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}
