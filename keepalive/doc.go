// Package keepalive keeps a silent connection known to the machines between
// its two ends, and says how a connection ended.
//
// A NAT forgets a flow that was silent for a few minutes and drops what follows
// without a word; the kernel's own defaults find that out after hours (parked
// connections) or a quarter of an hour (a request in flight). A [Plan], derived
// from the path's profile, sets the socket options that prevent the first and
// bound the second. Most programs need only that, and get it from a
// dialer.Dialer; a server applies one to the connections that it accepts.
//
// A [Conn] is a net.Conn that knows for how long it was silent, whether it is
// lent or parked, and in which way it ended, which decides how long the NAT
// holds its port. A [Watcher] tells at once when an idle one has ended.
//
// A [Detector] finds out in seconds that packets vanish though bytes are out, and
// tells that from a path that is down or a peer that is slow; a dialer.Dialer has
// each of its connections watched by one. [FaultOf] tells errors of connections apart.
// A [Learner] finds out how long a path really remembers.
//
// Only an answer of the far end's application proves that it is alive: machines on
// the way acknowledge what they never deliver.
//
// keepalive never opens a connection and never retries anything.
//
// # Servers
//
// Clients sit behind NATs, and a server often behind a load balancer: both forget. A server
// that pushes, or whose clients keep connections, applies a Plan to what it accepts, that of
// what stands before it. For an unknown path that is For(netpath.Profile{}): the first probe
// after 57 s, and the end of a connection whose client is gone 90 s after what it did not
// acknowledge.
//
//	plan := keepalive.For(netpath.AWSNLB())
//	server := &http.Server{
//		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
//			if tcp, ok := c.(*net.TCPConn); ok { // under TLS: that of tls.Conn.NetConn
//				plan.Apply(tcp)
//			}
//			return ctx
//		},
//	}
//
// Where the probes are enough, net.ListenConfig{KeepAliveConfig: plan.KeepAlive()} sets them.
// A gRPC server takes a listener that applies the plan, and an option so that it leaves it as
// it is: see https://github.com/natwise/natwise/blob/main/examples/dialers/README.md.
package keepalive
