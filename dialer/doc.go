// Package dialer opens TCP connections whose ports are paid for.
//
// A NAT gives a process a fixed number of ports for each destination address,
// and keeps the port of a closed connection for minutes. A service that dials
// without counting runs out: connects hang, and retries make it worse. A
// [Dialer] asks its [Ledger] first, which books every flow as the NAT does, by
// resolved address, and makes a dial wait when no port is left, first for those
// who have fewest.
//
// One line in main makes a program thrifty everywhere:
//
//	dialer.DefaultLedger.Path = netpath.AzureAppService()
//
// and DialContext of the zero Dialer fits wherever net.Dialer's does:
// http.Transport.DialContext, the DialFunc of pgx and of go-sql-driver/mysql,
// go-redis' Options.Dialer, gRPC's WithContextDialer. What else each of these needs is in
// https://github.com/natwise/natwise/tree/main/examples, by clients, databases and dialers.
//
// A connection whose packets vanish is ended within seconds by evidence, so that its
// Read and Write return keepalive.ErrBlackhole, whoever uses it; when the whole path
// is down, it is kept. A suspicion may cost one control connection, from the port
// that is kept back for those.
//
// dialer pools nothing, never retries an address that failed within one dial, but for a
// hairpin, and knows no protocol above TCP.
//
// # Adopting it
//
// Begin in shadow: everything is booked and kept alive, and no dial waits for a port.
//
//	dialer.DefaultLedger.Path = netpath.AzureAppService()
//	dialer.DefaultLedger.Shadow = true
//
// Only what dials by natwise is booked: let your clients do so, by [Dialer], httpx.Wrap or
// httpx.Install. Which profile is yours says package netpath. After a day with its busiest hour look at
// [Ledger.Accounts], which package httpx/debug shows live:
//
//   - Exceeded counts dials beyond the limit, which would have waited, from the first on. Where
//     it is zero everywhere, nobody will notice the next step.
//   - Taken is near Limit, and most of it is Cooling: connections are closed that could be
//     kept. Change that first; the next section says what it may be.
//   - Taken is near Limit, and most of it is Active: so many are needed at a time. They
//     will wait for each other, or you ask your cloud for more ports.
//
// Then take the line with Shadow away. A dial that finds no port waits for Ledger.MaxWait,
// 30 s, and a [BudgetError] says who has the ports. Then replace pools: httpx.NewClient,
// sqlx.OpenDB and conns.New say which of their connections are idle, so that one of those
// can be ended for a dial that waits; other pools do not.
//
// The way back from each step is the line with Shadow. Only sqlx.Tune, which is given a
// path itself, sets its limits all the same.
//
// # Metrics and traces
//
// A [Ledger] tells OpenTelemetry of its ports and of the pools that dial by it, by the names in
// https://github.com/natwise/natwise/blob/main/internal/telemetry/metrics.md.
//
// How a connection came to be is a trace of its own, connection_setup, and each request that the
// connection serves has a link to it. A sampler that takes one trace in a hundred takes one setup
// in a hundred, so that most of those links lead nowhere. Setups are as rare as dials: take all
// of them. A sampler knows them by their name, as in examples/observability; or give the ledger a
// TracerProvider of its own with the SDK's default sampler, which takes every setup, and else
// follows what its caller does.
//
// # Troubleshooting
//
// First print the accounts. Each says in a line how many ports are taken, and by what:
//
//	for _, account := range dialer.DefaultLedger.Accounts() {
//		log.Println(account)
//	}
//
// And read the error: a dial that failed says what that means, with the evidence, in its
// text and as [DialError].Verdict. [Ledger.Diagnoses] lists what was wrong in the last minutes.
//
//	exhausted    no port is left: the account is full, or existing connections to the address
//	             live on while no new one is answered
//	hairpin      a load balancer maps the flow back to this host
//	path-down    packets to there vanish; connections that were there die, too
//	peer-down    the far end answers, and refuses or resets
//	unreachable  a router says so (ICMP), or this machine knows no way
//	local-ports  this machine has no port of its own left
//	dns          the name was not found
//	unknown      too little is known: a SYN or two were not answered, or others live, and this
//	             process holds too few ports to tell whether it is those that are wanting
//
// # Connects hang to one destination only
//
// A NAT that has no port left for it drops the SYN without a word. If the account is
// full, so it is here, and dials wait instead. If it is not, somebody else has the ports:
// say how many you are (Profile.Sharers), or share a Budget (package budget), and let all
// clients of the program dial by natwise. Until then the ledger learns: a dial that is not answered within a second or
// two, while connections to the address live, ends, and waits in the queue with the others;
// the account's limit is what it holds (Account.Grade says Learned). That takes eight ports
// that this process holds, or a quarter of a small limit: who has fewer cannot know. After a
// second, and then less and less often, once in a hold in the end, it is tried whether there
// is more, by one dial, then two, then four; never more than Path says. A server whose own
// queue of connections is full looks the same, and is tried again as soon.
//
// # The same share of connects hangs, whatever the load is
//
// A server that calls the internal load balancer before itself is sent to itself once in
// as many times as there are backends, and nobody delivers that. Another source port may be
// sent to another backend: a SYN to a private address that is unanswered after 200 ms, on a
// host that others can connect to, is sent again from a new one. As long as nothing says that it
// is a hairpin, that is done three times, by few dials at a time; where it is known every 200 ms,
// at most 12 times and for 3 s. It is known by the kernel's count of packets that come back
// (IPv4's only), or by source ports that are never answered while others are at once; only
// Linux tells who listens here and counts, so that elsewhere all this is left out. Each such dial
// costs what it waits. To have none of it, name the balancer and this host's own address:
//
//	d := &dialer.Dialer{Hairpin: map[netip.AddrPort]netip.AddrPort{
//		netip.MustParseAddrPort("10.0.0.100:80"): netip.MustParseAddrPort("127.0.0.1:8080"),
//	}}
//
// or dial it by another [Source], whose flows are translated on the way, or by a Proxy on
// another host. A balancer that has no other backend cannot be reached from this one in
// any other way, and the error says so within two seconds.
//
// # I/O timeout after minutes of silence
//
// The path has forgotten the connection, and drops what is sent. A connection that was
// dialed here is probed before that happens, so see whether it was: [Unwrap]. If it was,
// the path forgets sooner than Profile.Idle says, which examples/pathprobe measures and
// Dialer.Learner learns, or something counts only bytes or requests: name it in
// Dialer.Beyond.
//
// # EOF on the first request after a pause
//
// The server, or a proxy before it, closed the idle connection at the moment when the
// request was sent. Name the proxy in Dialer.Beyond (netpath.AWSALB closes after 60 s),
// or let the pool close first, such as by httpx.Transport.MaxIdle. httpx sends again what
// is idempotent; give a POST an Idempotency-Key. [SafeToRetry] says of an error that
// nothing had been sent.
//
// # All ports are taken, and most are cooling
//
// Connections are closed after little use: response bodies that are not read to their
// end, a client made for each request, the two idle connections that http.Transport keeps
// for a host, a ConnMaxLifetime of minutes, a server that says "Connection: close".
// Account.Cooling tells who closed: FINByPeer is the server.
//
// # Dials wait although ports are free
//
// Of an account with a limit, at most 16 dials are under way at a time. From a limit of
// 16 on, one port is kept for newcomers and control connections, and a twentieth of all
// where several owners share them. A fresh ledger begins with half of a limit of up to
// 1,024, and has the whole after one hold (Ledger.Ramp). An address that fails is tried
// by one dial at a time. The Budget may refuse, since others have the ports (Account.Shared
// says how many of them there are). And a flow may owe two accounts, of which
// the other is full: Azure Functions counts 600 sockets, too.
//
// # Cannot assign requested address
//
// This is EADDRNOTAVAIL, and the verdict local-ports: it is the machine's own ports that have run out: Linux has
// 28,232 for each destination (ip_local_port_range), and keeps one for 60 s after this
// side has closed it (TIME_WAIT). As a rule that destination is near, a proxy on loopback
// or a database, which no NAT translates and a ledger does not count. Give its clients
// one that does:
//
//	path := netpath.AzurePublicIP() // which knows of those 60 s
//	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 28_232}}
//	path.Exempt = netpath.NoExempt()
//	near := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path}}
package dialer
