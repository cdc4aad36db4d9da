// Bench puts natwise beside its peers, in one process and in turns.
//
//	go -C internal/bench run . [-json] [-only NAME] [-full] [-scenario NAME]
//
// It is a module of its own, so that the peers are no dependency of natwise. The
// exit status is zero only if every bound was kept.
//
// A ratio is the median of those of pairs of runs, ours and the peer's, which
// take turns in who begins: what the machine does otherwise meets both. Its
// ratio_low and ratio_high are 95 % bounds, each one-sided, from the order of the
// pairs alone (the sign test): a busy machine throws some pairs far off, which a
// bootstrap of so few would take for their spread, and the sign test does not.
// The field ratio_is says which way a ratio goes, the field bound_is which figure
// the bound is on. "At most" is asked of the median, "above" of ratio_low.
//
// The bounds speak of one run. What lasts for all of it, such as how many of its
// processors the machine really lends, is in each of its pairs.
//
// # watch
//
// A keepalive.Watcher and its peers take turns in watching the same idle
// connections, and the server ends some of them, one at a time. The clock is read
// by the server just before it closes, and by whoever is told as its first act. What
// watching costs is the difference of what is in use, after collections, with and
// without it; the function to be called is there before, for all of them, and so is
// the keepalive.Conn, whose size is told apart. The bounds are on our own figures.
//
// Go keeps the descriptor of a goroutine that has ended, some 0.4 kB, for the next
// one. So only the first turns are charged for them, and the ratio of memory is
// rather too small.
//
// # stdlib
//
// The tests of net/http, from the GOROOT that runs this, are compiled with an overlay
// so that their client's RoundTripper is an httpx.Transport, made from the http.Transport that
// each test tunes. Those that fail with a deliberately broken RoundTripper tell a good one.
// What passes differently by intention is listed in stdlib/differences.go, with reasons.
//
// # http
//
// An origin in another process, duels of short turns in random order. The bounds are on
// the ratio of requests per second beside http.Transport and on allocations, in the
// client's process, for each request.
//
// # sql
//
// A *sql.DB by sqlx.OpenDB and one with database/sql's own pool, over a driver in memory. What
// an operation costs is measured where the driver does nothing and there are connections for
// all; the bound is on the difference of the medians of ExecContext. Each is held against the
// least connector too, which only keeps what database/sql closes: what that costs is not
// natwise's.
//
// A wait is the time in ExecContext less the work, a sleep of a millisecond in the driver. The
// ideal queue is computed, for each round, from natwise's own: the goroutines ask in a closed
// loop, whoever asked first is served first and in no time, and the works are those that
// happened, in their order: a machine that oversleeps is not held against natwise there. The
// bounds are on 64 goroutines and 8 connections.
//
// A connection is broken if the driver says so. database/sql tries two that are idle, and then
// dials, however many good ones are left.
//
// # telemetry
//
// There is no natwise without its telemetry. So what that adds to an acquire where nobody
// listens is the very calls that an acquire makes, beside a loop without them; the context is
// one with a deadline. The bounds are on the difference of the medians, and on allocations.
//
// Where OpenTelemetry's SDK listens, httpx with a ledger that has providers and one that has
// none take turns, over loopback as in http: metrics are read every second, spans go out in
// batches, and exporters throw both away. Spans that the caller begins around its own requests
// are part of the cost. The bound is on requests per second. What dials and collections cost is
// shown.
//
// # budget
//
// A Take and its Release of one port, while another one is held. What nobody else asks at the
// time is measured by batches of 64, as many grants as are allocated together: most of them are
// over before the scheduler has the process wait. So the bound on allocations, fewer than one,
// is what package testing calls none. budget.PerKey, which is not shared, has the bound of
// redisbudget on the difference of the medians; a lease takes a redis-server.
//
// Among eight processes, seven of which do nothing else, each Take with its Release is timed by
// itself, with one reading of the clock, some 30 ns, in each of these times. With fewer
// processors than that most of the processes wait most of the time: who runs meets as many
// others as there are processors besides its own. So the median, on which the bound is, is that
// of an operation which meets others at work in the same memory. An operation in which the
// scheduler took the processor away is beyond the 99th percentile, or is that one, which is
// told only. Where 8 ports are shared the others take four each at a time, and what was refused
// is counted, not timed.
//
// The peer is a daemon such as one would write in fifty lines: a byte asks for a port over a
// Unix socket, a byte answers, and one that is not answered gives the port back. A connection
// lasts as long as its process. The daemon knows one account only, tells nobody of room and is
// fair to nobody, all of which would cost it time.
//
// # storm
//
// internal/natlab/storm's work through more clients, each as a careful engineer would set
// it up who knows the limit of 128 ports. The bounds are on what natwise loses and what the
// gateway refuses.
package main
