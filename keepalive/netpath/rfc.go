package netpath

import "time"

// RFC5382 is the least that a NAT must do by the standard, which no cloud's does:
// an established flow for 2 h 4 min, anything else for 4 minutes.
func RFC5382() Profile {
	return Profile{
		Name:   "rfc5382-minimum",
		Source: "RFC 5382, REQ-5, in excerpts",
		Grade:  Reported,
		Idle:   7440 * time.Second,
		AtIdle: Drop, // the RFC leaves it open
		Hold:   Hold{FIN: 240 * time.Second, RST: 240 * time.Second, SYN: 240 * time.Second},
		Cites: append(guessed("AtIdle"),
			Cite{"Hold.RST", "RFC 7857, from memory", Assumed}),
	}
}
