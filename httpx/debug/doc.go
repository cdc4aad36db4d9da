// Package debug shows, live, who holds the ports of a process, to which destination, and when
// they come free: what no cloud shows.
//
//	http.Handle("/debug/natwise/", &debug.Page{})
//
// The page is for a browser. For everything else it has two twins, which say the same:
//
//	curl 'localhost:8080/debug/natwise/?format=text'
//	curl 'localhost:8080/debug/natwise/?format=json'
//
// It answers the machine that it runs on and nobody else, until Page.Allow says otherwise. It
// shows addresses, host names and numbers; no URL, header or query is known to it. It only
// looks: nothing can be changed or closed by it, and nothing decides by it. While nobody looks
// it costs nothing.
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
