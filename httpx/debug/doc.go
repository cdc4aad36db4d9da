// Package debug shows, live, who holds the ports of a process, to which destination, and when
// they come free: what no cloud shows.
//
//	http.Handle("/debug/natwise/", &debug.Page{})
//
// The page is for a browser. For everything else it has two twins:
//
//	curl 'localhost:8080/debug/natwise/?format=text'
//	curl 'localhost:8080/debug/natwise/?format=json'
//
// JSON says all that the page does. Text is what fits a terminal, without the past and the
// forecast; with format=wide each destination has one long line, for awk.
//
// It answers the machine that it runs on and nobody else, until Page.Allow says otherwise. It
// shows addresses, host names and numbers; no URL, header or query is known to it. It only
// looks: nothing can be changed or closed by it, and nothing decides by it. While nobody looks
// it costs nothing. While somebody does, or Page.Record, it looks at every connection once a
// second, with the ledger's lock held for about a microsecond each.
//
// A destination that dials fail to says so, in words, with the evidence and what to do
// (dialer.Verdict): below its row, or where it has none, since no NAT counts it or its name has
// no address, in a row that has nothing else. It stays for ten minutes, or until a dial works.
//
// Where the ledger's budget is shared with other processes the page says with how many, and what
// of it is whose: its floor, which this process may hold without asking; what it was lent beyond;
// what is kept, since the NAT still holds it for processes that are gone. An engine that is
// degraded stands above everything else, with why and what to do.
//
// # Waits
//
// Who waits is a request, or a dial on nobody's behalf, that has no connection yet: for want of a
// port, or of a connection that others use, or because the dial takes its time. How long the
// waits were that are over (the median, the 99th percentile) is said of requests that found no
// connection idle, within the last minute or two, and the dial is a part of it: a long one need
// not mean that ports are wanting. Who had to wait for a port, and who was refused one, is
// counted apart, and the drawer of a destination has it. In shadow mode nobody waits for a port;
// what is counted there is the dials that would have.
//
// # Twins
//
// JSON has times in milliseconds since 1970 (…_ms), durations in seconds (…_seconds) and null
// for what nobody knows or what does not exist, such as the free ports where there is no limit.
// With &destination= and a destination as the list has it, either twin also tells of each
// connection there.
//
// A port is active while its connection is in use, idle while that is parked, dialing from the
// permission to the answer, and cooling after the end, as long as the NAT holds it.
package debug
