// Once measures in the kernel lab that natwise never sends a request twice that may
// run only once, that one which may be repeated does not fail, and how long
// requests wait when all connections to a destination go black at once; beside
// http.Transport in the same run.
//
//	go run ./internal/natlab/once [-json] [-only NAME] [-full]
//
// It needs root or unprivileged user namespaces, and says so where there are
// neither. The exit status is zero only if every bound was kept. It takes up to two
// minutes, with -full ten: who looks for what must never happen has to look for long.
//
// Each client has a destination of its own and speaks HTTP/1.1, HTTP/1.1 over TLS,
// or HTTP/2. Ours is an httpx.Transport with a Patience of 5 s, of which nothing else is
// set but its dialer, TLS, protocols and that there is no proxy. Its dialer is told App
// Service's path, scaled: a silent flow is forgotten after 16 s. The peers are an http.Transport with
// a net.Dialer's defaults, and one tuned as people do: 128 idle connections for a
// host, HTTP/2 pings after 10 s that wait for 5 s.
//
// # exactly-once
//
// POSTs without Idempotency-Key, half of them with a body in memory, half with one
// that is streamed and cannot be had again. Each has an id, which the origin counts
// when it has read the header, before anything else: it never forgets one. Beside
// them GETs and HEADs are sent. Meanwhile, to all clients alike:
//
//   - flows are forgotten by the gateway, reset by the gateway, and reset by the
//     origin, one of each client every half second, or of HTTP/2 every two seconds;
//   - the origin is killed three times in 20 s and is back a second later: its
//     connections end by RST, by FIN, or without a word;
//   - twice in 20 s nobody asks anything for 3.5 s, and the path forgets after 3 s,
//     which nobody was told.
//
// A peer that is slow has not sent everything when ours has; then it stops. An answer
// that has begun and ends in the middle is no failure of a GET: what was given to its
// reader nobody can take back.
//
// # black-http1, black-tls, black-http2
//
// Each client has had 64 requests at a time, so that it may have that many
// connections, and gets 200 GETs a second whether it answers or not. Then the
// gateway forgets all flows, and new ones work. What a request is late by counts from
// when it was due, less the time that the origin was asked to take. One that fails is
// later than any. How late they were until then tells whether the machine kept up.
package main
