// Hairpin measures in the kernel lab whether natwise says what is wrong where a dial fails,
// and gets around it where that is possible, beside Go's own dial in the same run.
//
//	go run ./internal/natlab/hairpin [-json] [-only NAME] [-full] [-seed NUMBER]
//
// It needs root or unprivileged user namespaces, and says so where there are neither. The exit
// status is zero only if every bound was kept. It takes a little over a minute, with -full ten.
//
// Who dials is a process of its own in the client's namespace, since natwise looks at /proc/net
// of its process.
//
// # hairpin
//
// Balancers with one, two and four backends, of which one is who dials: what they give back to
// it is lost, by chance, each flow anew. Go's own dial has a timeout of 3 s here, so that it
// ends, and with -full the 30 s of http.DefaultTransport. A dial of natwise's that takes longer
// than 3 s counts as failed. A few failures among few dials prove nothing: the bound on their
// share is missed if the lower 95 % bound of it is beyond.
//
// # workarounds
//
// The same where there is no other backend, with what Dialer.Hairpin, Sources and Proxy can do
// about it. The second address gets through because something between the two translates what
// the balancer gives back, as a router between two network cards may; without that Linux takes
// every address of its own for a martian.
//
// # verdicts
//
// Episodes of each class, chosen by chance from its scenes, which differ in what was before,
// what is beside, how many packets get lost, and when is dialed. An episode is called what its
// failed dials and the ledger's Diagnoses say; one word that is wrong is enough. One where
// nothing is said is called healthy. Where ports are exhausted, eight or more of them are
// ours: who has fewer cannot know. Half of the clients have a kernel that sends SYNs again as
// Linux did before 6.5, after 1, 3 and 7 s.
//
// # limits
//
// A path whose limit nobody tells, under a load of twice as many as it has ports, each for a
// connection of half a second to three; elsewhere all is well. Beside it, in a lab of its own,
// the same under a ledger that is told. And a server that accepts nothing for 8 s, so that its
// kernel drops SYNs while what is there lives, on a path whose profile is the zero one: it looks
// like a want of ports, and nobody may be refused for it, then or later.
//
// # sources
//
// A NAT that gives each source address ports of its own, and a client that has fewer local
// ports than the NAT.
package main
