package main

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	forget  work.Kind = iota // a flow of each client, by the gateway
	sever                    // by RST, when the client sends something
	reset                    // by RST of the origin
	killFIN                  // the origin, all of whose connections end by FIN
	killRST                  // or by RST
	vanish                   // or without a word
	restart                  // the origin
)

// The second rest is not quiet: in the first one, what is idle is forgotten.
var faults = work.Schedule{
	Outages: []work.Fault{
		{At: 3 * time.Second, Kind: killRST},
		{At: work.Half + 3*time.Second, Kind: vanish},
		{At: work.Half + 7500*time.Millisecond, Kind: killFIN},
	},
	Restart: restart,
	Singles: []work.Kind{forget, reset, sever},
	Figures: []string{
		forget:  "flows forgotten by the gateway",
		sever:   "flows reset by the gateway",
		reset:   "flows reset by the origin",
		killFIN: "the origin killed, FIN",
		killRST: "the origin killed, RST",
		vanish:  "the origin killed, without a word",
	},
}

// do does a fault, and returns how often it has struck.
func (st *stage) do(k work.Kind) (struck int, err error) {
	switch k {
	case killRST, killFIN:
		st.origin.kill(k == killRST)
	case vanish:
		if err := st.Blackhole(netip.AddrPort{}, true); err != nil {
			return 0, err
		}
		st.origin.kill(true)
	case restart:
		if err := st.Blackhole(netip.AddrPort{}, false); err != nil || st.origin.runs() {
			return 0, err
		}
		return 1, st.origin.start()
	default:
		return st.strike(k), nil
	}
	return 1, nil
}

// strike ends a connection of each client, and returns of how many. Where one carries
// all that is asked it is spared three times in four, or little would be asked.
func (st *stage) strike(k work.Kind) (struck int) {
	st.strikes++
	for _, c := range st.clients {
		if c.over == http2 && st.strikes%4 > 0 {
			continue
		}
		if k == reset {
			if st.origin.reset(c.at) {
				struck++
			}
			continue
		}
		flows := st.open(c.at)
		if len(flows) == 0 {
			continue
		}
		victim := flows[rand.N(len(flows))]
		if st.end(victim, k) == nil { // else it has ended by itself
			struck++
		}
	}
	return struck
}

func (st *stage) end(c *net.TCPConn, k work.Kind) error {
	if k == forget {
		return st.ForgetFlow(c)
	}
	return st.cut(c)
}
