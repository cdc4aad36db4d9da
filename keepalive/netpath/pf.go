package netpath

import "time"

// OpenBSDPF is a gateway that translates with OpenBSD's pf. A RST costs twice
// what a FIN does here. The timers shrink while its state table is nearly full
// (100,000 states, 10,000 in older releases); FreeBSD and pfSense differ.
func OpenBSDPF() Profile {
	return Profile{
		Name:   "openbsd-pf",
		Source: "OpenBSD: sys/net/pfvar.h",
		Grade:  Documented,
		Idle:   86_400 * time.Second,
		AtIdle: Drop,
		Hold: Hold{
			FIN:  45 * time.Second,
			RST:  90 * time.Second,
			SYN:  120 * time.Second, // tcp.first; 30 s once the server answered
			Idle: None,
		},
	}
}
