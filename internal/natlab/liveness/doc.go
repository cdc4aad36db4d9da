// Liveness measures in the kernel lab how soon natwise finds out that a
// connection is dead, that it never takes a living one for dead, and how soon
// work goes on, beside Go's defaults in the same run.
//
//	go run ./internal/natlab/liveness [-json] [-only NAME] [-full]
//
// It needs root or unprivileged user namespaces, and says so where there are
// neither. The exit status is zero only if every bound was kept.
//
// The path is App Service's with its timers scaled down: it forgets a silent flow
// after 16 s. Ours is what a user gets who sets nothing but that: a dialer.Dialer
// with such a ledger, over it plain TCP, crypto/tls, or net/http's HTTP/2 by
// httpx. Go's defaults are a net.Dialer's keepalive (15 s, every 15 s, 9 times),
// and an http.Transport. Each scenario has labs of its own and mostly waits, so
// they run side by side, but for those that measure milliseconds.
//
// A time counts from when the gateway's rules were changed. Who is still not done
// after 60 s (160 s with -full) is reported as "> 60 s".
//
// Every bound is what a figure may be at most. None is on a ratio: the times are
// those of timers, and the machine has little to do with them.
package main
