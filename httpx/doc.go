// Package httpx gives HTTP clients connections whose ports are paid for.
//
// [NewClient] is a drop-in http.Client. [Wrap] does the same for an
// *http.Transport that you have already, and [Install] for one that somebody
// else will use, such as an SDK that insists on a *http.Transport. All three
// leave HTTP to net/http and change only where connections come from and when
// they go:
//
//   - Every connection is dialed by a dialer.Dialer, so that the ports of all
//     clients in the process are counted together, by resolved address, until
//     the NAT has freed them.
//   - Idle connections are kept rather than closed, since a closed one costs its
//     port for minutes, and are known to the path by keepalive probes.
//   - Through Wrap and NewClient, a request that waits for a port takes whatever
//     comes first, a port or a connection that another request is done with;
//     then the dial it no longer needs is not begun. Idle connections are
//     offered to other clients that wait for a port to the same address. An
//     exchange that is cancelled while its answer is due ends by RST.
//
// # What Install alone cannot do
//
// net/http does not tell a dialer that a request has been served otherwise, so a
// dial that waits for a port goes on, and its connection may never carry a byte.
// MaxConnsPerHost bounds how many wait. It also counts names, not addresses: a
// name with four addresses may use the ports of one.
//
// # Answers that do not come
//
// Packets that vanish end a connection by dialer's own evidence. Where a machine on
// the way acknowledges what it throws away, only the missing answer tells: an
// HTTP/2 connection on which a request's deadline has passed with nothing read since
// it was sent is not used again (Wrap), unless other exchanges are on it; and one that
// was silent for 30 s, or a quarter of what a path remembers that counts only bytes,
// is asked by a ping and closed if no answer comes within 15 s.
//
// # What is repeated
//
// A request is sent once more if its kept connection has died before the answer
// began, and either nothing of it was written or it is idempotent (GET, HEAD,
// OPTIONS, TRACE, or an Idempotency-Key). net/http does that for HTTP/1; Wrap does it
// for HTTP/2 too. It must have no body, or one that can be had again (GetBody): an
// upload that streams fails where its connection was retired at that very moment,
// and dialer.SafeToRetry says so as far as net/http keeps the error. Nothing else is
// retried.
package httpx
