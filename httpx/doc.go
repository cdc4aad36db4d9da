// Package httpx gives HTTP clients connections whose ports are paid for.
//
// Most programs need only
//
//	client := httpx.NewClient(nil) // an *http.Client
//
// [Transport] is the http.RoundTripper in it. net/http speaks HTTP there, one
// http.ClientConn for each connection; when to open one, which one to use and when to
// close it is decided by package pool and the dialer's ledger:
//
//   - Every connection is booked by the address that it leads to, in one ledger for
//     the process, until the NAT has freed its port. At the limit a request waits,
//     and is told who holds the ports if it waits in vain.
//   - A request takes whatever comes first: a connection that another one is done
//     with, or one that is opened. No more are opened than the waiting requests need,
//     by what one connection is known to carry, and a permission that nobody needs any
//     more is given back before the SYN.
//   - Transports that are alike share their connections. Idle ones are offered to
//     whoever waits for a port to the same address, whatever name he uses.
//   - Idle connections are kept rather than closed, since a closed one costs its port
//     for minutes; they are known to the path by keepalive probes and pings, and go
//     before the path or the server forgets them, or when their address has left the
//     record of the name.
//   - A body that is closed early is read to its end if that is quick, and an exchange
//     that is canceled may be finished unseen where ports are scarce: a connection in
//     the middle of something can only be thrown away.
//
// # What is sent again
//
// A request that cannot have run is sent again on another connection: nothing of it was
// written, the server refused the stream, or said GOAWAY before it. One that may have run
// is sent again only if its connection died before the answer began and it is idempotent: GET,
// HEAD, OPTIONS, TRACE, or with an Idempotency-Key; three times at most, once if a fresh
// connection died of it. Both need a body that
// can be had again (GetBody), or of which nothing was read. [Retry] does more, when asked.
// Nothing is ever tried again because ports ran out.
//
// An error tells whether the request may have run: it has not if dialer.SafeToRetry is true
// of it.
//
// # Answers that do not come
//
// Packets that vanish end a connection by dialer's own evidence. Where a machine on
// the way acknowledges what it throws away, only the missing answer tells: an
// HTTP/2 connection on which a request's deadline has passed with nothing read since
// it was sent is not given another one; and one that was silent for 30 s, or a quarter of
// what a path remembers that counts only bytes, is asked by a ping and closed if no answer
// comes within 15 s.
//
// # Somebody else's http.Transport
//
// [Wrap] and [Install] are for an *http.Transport that you must keep, such as an SDK's. They
// leave its pool in charge and change where its connections come from. net/http does not
// tell a dialer that a request has been served otherwise: with Install alone a dial that
// waits for a port goes on, and its connection may never carry a byte; MaxConnsPerHost bounds
// how many wait, and counts names, not addresses. Wrap gives such a dial up, but over HTTP/2
// net/http still dials once for each request that finds no connection.
package httpx
