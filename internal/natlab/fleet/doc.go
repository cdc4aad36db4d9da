// Fleet measures in the kernel lab whether processes that share the ports of one gateway, by
// budget.Host or by package redisbudget, ever take more than there are, how fair they are, and
// what becomes of the ports of those that end.
//
//	go -C internal/natlab/fleet run . [-json] [-only NAME] [-full]
//
// It needs root or unprivileged user namespaces, and redis-server, and says so where they are
// not. The exit status is zero only if every bound was kept. It takes a minute and a half, with
// -full six minutes.
//
// Each client is a process of its own, which this program starts from itself: an
// httpx.Transport whose ledger has the budget, under the requests of more workers than it can
// have ports; now and then a request is the last on its connection. It begins its flows at an
// address of its own, so that the gateway's table tells who has which.
//
// The gateway's table is what counts. It is read every 5 ms; the shortest that a flow is in it
// is 1.5 s. It has room for twice the ports of those who share, so that one too many is seen,
// since the kernel frees ports up to 1.4 s late (package natlab). Who does not share meets the
// limit itself, and is refused. The path is Azure App Service's, with its timers scaled down:
// 4 s after a FIN or an unanswered SYN (240 s), 1.5 s after a RST (15 s), forgotten after a
// silence of 16 s (240 s), or of 5 s in crash without -full.
//
// # host
//
// Eight processes on 128 ports: all begin at once, or one has been there for 3 s and has all of
// them. Beside them the same processes without a budget, each of which takes all ports for its
// own, and with a fixed part for each (netpath.Profile.Sharers).
//
// # crash
//
// Eight processes on 128 ports. Four are killed and started again at once; one is stopped for
// longer than the gateway remembers or holds anything; one leaves in order. What the killed
// had is not usable before the gateway has let it go, so what is asked is one hold, and a
// second. A twentieth of the ports is kept for who comes, and of the rest a few change hands all
// the time: everything is usable when the living have 95 % of 95 %.
//
// # redis
//
// Ten or, with -full, twenty instances on 1,000 ports, with a TTL of one or two seconds. Where
// there are more instances than addresses (16) some share one, but not those that are struck.
// Redis is outside of the lab; what leads there is a forwarder, which stands for an address that
// moves, and rules that drop an instance's packets. Its clock cannot be moved here: the tests of
// redisbudget tell its script another time.
//
// # load
//
// A hundred or, with -full, two hundred instances without connections on twenty destinations,
// and what they cost a Redis.
package main
