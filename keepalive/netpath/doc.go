// Package netpath describes the machines between a client and its server: how
// many flows they carry, how long they remember a silent one, and how long they
// hold the port of one that has ended. A NAT that is out of ports drops SYNs
// without a word, and one that forgot a flow drops its packets; both look like a
// server that does not answer.
//
// Most programs need one line, the profile of where they run:
//
//	dialer.DefaultLedger.Path = netpath.AzureAppService()
//
// Which profile is yours, and how many connections it carries, is worked out in
// https://github.com/natwise/natwise/blob/main/examples/paths/README.md.
//
// Several boxes in a row are a [Chain]. [Lookup] takes a name, for a
// configuration file; [Detect] makes a careful guess.
//
// Every number names its source and how far that may be trusted: see
// [Profile.Cite]. Makers change their timers and warn not to rely on them, so a
// Profile is a plain value: copy it and change what you know better.
//
// netpath opens no connection, starts nothing and measures nothing. It speaks of
// TCP only.
package netpath
