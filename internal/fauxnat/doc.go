// Package fauxnat imitates a NAT that fills up, forgets and holds ports, for
// tests and demonstrations without root.
//
// A NAT stands where a dialer would call the kernel. In virtual time it stands
// in front of a memnet.Network, so that 240 s pass in microseconds:
//
//	var net memnet.Network
//	nat := &fauxnat.NAT{Path: netpath.AzureLoadBalancer(128), Dial: net.DialContext}
//	d := dialer.Dialer{Dial: nat.DialContext}
//
// On loopback, leave Dial nil and divide the timers by Scale:
//
//	path := netpath.AzureLoadBalancer(128)
//	path.Exempt = netpath.NoExempt() // or loopback is not counted
//	nat := &fauxnat.NAT{Path: fauxnat.Scale(path, 60)}
//
// Besides what its path does by itself, it can be told to make black holes of flows
// (Darken) or to lie to them (Lie).
//
// # What it cannot do
//
// A proxy cannot refuse a SYN: the kernel completes every handshake before a
// proxy hears of it. So a NAT stands in the dial function, and knows only the
// dials that go through it. All clients of a comparison must dial through one
// NAT, or one each that is alike, and a lab must assert that flows were booked
// at all (Stats.Opened), or it may have compared nothing.
//
// It sees what its conns read and write, not segments:
//   - Bytes that arrived are a sign of life when they are read, not before, and
//     are lost if that is after the flow was forgotten.
//   - Keepalive probes are believed, not seen: on a path that counts Segments
//     they count if SetKeepAliveConfig on the conn starts them before Path.Idle
//     is over. Those that a net.Dialer or a raw socket option asks for do not.
//   - Requests count as Bytes do.
//   - A FIN of the server's counts when Read tells of it. One that comes after
//     our Close is not seen, nor is a RST that the kernel sends because Close
//     found unread data: the hold is then that of our FIN.
//   - The server of a forgotten flow hears of its end when the client closes it.
//     Behind a real NAT it would hear nothing.
//   - Writes into a forgotten flow succeed for ever. A kernel's would block once
//     its buffer is full, and fail after its user timeout.
//   - The kernel does not know of a liar's FIN; Read tells of it.
//   - On Windows it takes a refused dial for an unanswered one, and a RST from
//     the server for silence: the error numbers are others there.
//   - The source of a flow is unknown until its dial has succeeded.
package fauxnat
