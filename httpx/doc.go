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
//
// # Coming from http.DefaultClient
//
// Each line is of use without the others:
//
//	err := httpx.Install(http.DefaultTransport.(*http.Transport), nil) // what has no transport of its own is booked
//	http.DefaultClient.Transport = new(httpx.Transport)                // http.Get and its like
//	client := httpx.NewClient(nil)                                     // yours
//
// Put nothing else into http.DefaultTransport: SDKs take for granted that it is an
// *http.Transport, and panic (googleapis/google-api-go-client#3260, sigstore/cosign#4883).
//
// What changes: idle connections are kept for 10 min rather than 90 s, and all of them rather
// than two a host. Without a port a request waits, for 30 s if it has no deadline. What does
// not: how long an answer may take is for you to say, by Client.Timeout or a context.
//
// # Coming from go-retryablehttp
//
// What its NewClient does, as far as that is safe:
//
//	transport := &httpx.Transport{Retry: &httpx.Retry{
//		Attempts: 5,                // RetryMax is 4
//		First:    time.Second,      // RetryWaitMin
//		Max:      30 * time.Second, // RetryWaitMax
//		Statuses: []int{429, 500, 502, 503, 504},
//	}}
//
// A POST is sent again only with an Idempotency-Key, PUT and DELETE if Methods has them;
// go-retryablehttp sends all of them again. Waits are drawn at random between zero and their
// bound, and retries add a tenth to a destination's load at most (Budget). After the last
// attempt the caller gets its response, where go-retryablehttp returns an error ("giving up"). A
// body needs GetBody, which http.NewRequest sets for what is in memory.
//
// To keep go-retryablehttp, or an SDK that retries, leave Retry nil:
// https://github.com/natwise/natwise/blob/main/examples/clients/README.md has each.
//
// # otelhttp, and other wrappers
//
// What wraps goes outside. otelhttp then records one span for each request, however often it
// is sent:
//
//	transport := new(httpx.Transport)
//	client := &http.Client{Transport: otelhttp.NewTransport(transport)}
//	... until the end of the program ...
//	err := transport.Close(ctx)
//
// Client.CloseIdleConnections does nothing where the outermost RoundTripper has no such
// method, and otelhttp's has none (v0.72.0): keep the Transport, and close that. It is
// seldom good to close idle connections before the end, since the NAT holds the port of each.
//
//doctest:compiled in examples/clients
package httpx
