// Package natlab is a NAT made of the kernel: a client, a gateway and a server
// in network namespaces of their own. The gateway's nftables rules do what a
// netpath.Profile says. Its table, and not our own counters, is what a test
// compares our claims about ports with.
//
//	client 10.78.1.2 -- gateway, seen as 203.0.113.1 -- servers 198.51.100.1 ...
//
// A test says what it needs and gets it, or is skipped where there is neither
// root nor a user namespace:
//
//	func TestMain(m *testing.M) { os.Exit(natlab.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		lab := natlab.Need(t, natlab.Config{Path: path})
//		ln, err := lab.Listen(":443")      // in the server's namespace
//		...
//		d := dialer.Dialer{Dial: lab.Dial} // from the client's
//		...
//		flows, err := lab.Flows(nil)       // what the gateway knows
//	}
//
// Labs do not see each other, so tests may run in parallel. Namespaces have no
// names: the kernel frees them with the process, however it ends.
//
// # What the gateway does
//
// Every destination (address and port) has an account of as many ports as the
// profile's limit of scope Destination. Listen opens the account of what it
// listens on, Count that of any other destination; a SYN to a destination
// without account is answered "no route to host", so that no flow goes
// uncounted.
//
//   - The SYN of a new flow takes a port for Hold.SYN, or is dropped if none is
//     left. Its retransmissions take it for Hold.SYN again.
//   - From the answer on, each packet in either direction keeps the flow for
//     another Idle. After that the flow is forgotten: its packets are dropped, or
//     answered with a RST (ResetNext), and the port stays taken for Hold.Idle.
//   - A FIN holds the port for Hold.FIN, and so does every later FIN. A RST holds
//     it for Hold.RST, unless a FIN came before: then it changes nothing. After a
//     RST nothing does. Other packets of an ended flow pass, and keep nothing.
//   - A SYN from the address and port of an ended flow opens it again, on the
//     same port. Real NATs may refuse that. It is rare: the client has 64,000
//     ports of its own.
//
// # What may happen on the way
//
//   - Blackhole drops what goes to a destination and comes from it, silently and
//     beyond the gateway: the gateway books what the client sends.
//   - Lose and DropNext lose packets before the gateway knows of them: a share of
//     all, or the next few of the client to a destination.
//   - Proxy puts a middlebox between client and NAT, which may begin to lie: to
//     acknowledge what it throws away. Its own flows are those that are booked
//     then, and their Source is the gateway.
//   - Balance puts an internal load balancer into the gateway, in front of servers,
//     of the client itself, or of both. It is no NAT: a flow keeps its source, and
//     no account is asked.
//   - Forget forgets all flows at once. With Config.Reuse that leaves every server
//     with stale sockets, without waiting for an idle-out.
//
// # What it does not do
//
//   - A port that came free is late. The kernel counts expired flows until it has
//     collected them, 0.03 to 1.4 s later (Held tells), while Flows tells of live
//     flows only. So keep holds at 1.5 s or more where the limit is strict, and
//     set Config.Room above the limit where only the table is of interest.
//   - Its clock is the kernel's tick: 4 ms at 250 Hz, by which a hold may also be
//     too short. A hold of None is 50 ms, so that the other end's answer passes.
//   - Ports are numbers of flows, not port numbers: the gateway keeps the client's
//     port, so that the stale sockets which idle-outs leave on servers are not met
//     by later flows, as they are behind a NAT of 128 ports. Config.Reuse makes
//     them port numbers. Those are conntrack's, which counts in whole seconds and
//     gives the number of an ended flow away when it has no other.
//   - A shorter profile is a scaled one, but the kernel's floors do not scale with
//     it (200 ms for retransmissions). Measure detection at an Idle of 16 s or more.
//   - It does not send RSTs by itself (ResetBoth) or FINs (Close); there are only
//     IPv4 and TCP; limits of other scopes than Destination, or SourceDestination with
//     Config.PerSource, are not imitated.
//
//doctest:compiled with: path netpath.Profile
package natlab
