package debug

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A trouble is why dials to one destination fail, for whoever is to do something about it.
type trouble struct {
	Destination string `json:"destination"` // an address, "10.0.0.4:80 from 10.0.0.7" of a Source; empty where the name has none
	Name        string `json:"name"`        // as it was asked for last, with its port
	Verdict     string `json:"verdict"`
	What        string `json:"what"` // it means
	Do          string `json:"what_to_do"`
	Evidence    string `json:"evidence"` // empty: the verdict says it all
	Dials       int    `json:"dials"`    // that failed so, one after the other; 0: some only needed another source port
	Since       int64  `json:"since_ms"` // the first of them
	Last        int64  `json:"last_ms"`
}

// A meaning is what people who never heard of a verdict are told of it.
type meaning struct{ what, do string }

var meanings = map[dialer.Verdict]meaning{
	dialer.Unknown: {
		"It does not answer, and too little is known to say why.",
		"See whether the server, or what stands before it, is overloaded. The next dials may tell more.",
	},
	dialer.Exhausted: {
		"No port is free for it: all that this process may take are taken, or connections that are there live while new ones " +
			"are not answered, as where the NAT has none left.",
		"Dials wait for ports that come free. Find who else uses the NAT's ports (examples/doctor), say so in the path's Sharers, " +
			"or get more ports. A server that takes no more connections for a moment looks the same.",
	},
	dialer.Hairpin: {
		"The load balancer sends this host's own connections back to it, where nothing can come of them.",
		"Dial this host's own address instead (Dialer.Hairpin), by another interface (Dialer.Sources), or through a proxy (Dialer.Proxy).",
	},
	dialer.PathDown: {
		"Packets to it vanish, and not for want of ports.",
		"Look at firewalls, routes and the machine itself. It is tried again by one dial at a time.",
	},
	dialer.PeerDown: {
		"It answers, and wants no connection: nobody listens there, or who does is not ready.",
		"See whether the service runs, on that port, and whether the balancer before it has a healthy backend.",
	},
	dialer.Unreachable: {
		"A router, or this machine itself, knows no way to it.",
		"Look at the network's routes, at this machine's addresses, and at firewalls that reject.",
	},
	dialer.LocalPorts: {
		"This machine has no local port left for it.",
		"Widen net.ipv4.ip_local_port_range, have more addresses (Dialer.Sources), or find who leaves connections open (examples/doctor).",
	},
	dialer.DNS: {
		"The name could not be looked up.",
		"See whether it is spelled right, and whether this machine's resolver works.",
	},
}

// helped is a hairpin that nobody suffers from, but for a fifth of a second.
var helped = meaning{
	"The load balancer sends some of this host's connections back to it. Another source port has got through.",
	"Nothing fails, but such dials are late and take two ports. Dial this host's own address instead (Dialer.Hairpin).",
}

func troubleOf(d dialer.Diagnosis) trouble {
	m := meanings[d.Verdict]
	if d.Verdict == dialer.Hairpin && d.Dials == 0 {
		m = helped
	}
	t := trouble{
		Name: d.Host, Verdict: d.Verdict.String(), What: m.what, Do: m.do, Evidence: d.Evidence,
		Dials: d.Dials, Since: d.Since.UnixMilli(), Last: d.At.UnixMilli(),
	}
	if d.Remote.IsValid() {
		t.Destination = title(netpath.Key{Source: d.Source, Dest: d.Remote, Network: "tcp"})
	}
	return t
}

// diagnosed has the troubles stand with the rows that they are about, and returns those about
// what has none: a private address, which crosses no NAT, or a name that has no address.
func (s *sight) diagnosed(rows []row) []trouble {
	at := make(map[netip.AddrPort][]int)
	for i, r := range rows {
		if r.key.Dest.IsValid() {
			at[r.key.Dest] = append(at[r.key.Dest], i)
		}
	}
	others := []trouble{}
	for _, d := range s.diagnoses { // the last first, which is what a row shows of several
		t, booked := troubleOf(d), false
		for _, i := range at[d.Remote] {
			if from := rows[i].key.Source; from.IsValid() && d.Source.IsValid() && from != d.Source {
				continue // each source has a row
			}
			if booked = true; rows[i].Trouble == nil {
				rows[i].Trouble = &t
			}
		}
		if !booked {
			others = append(others, t)
		}
	}
	return others
}

// troubles are all of them, the last first.
func (s state) troubles() []trouble {
	all := slices.Clone(s.Troubles)
	for _, r := range s.Destinations {
		if t := r.Trouble; t != nil && !slices.Contains(all, *t) { // which may stand with several sources
			all = append(all, *t)
		}
	}
	slices.SortStableFunc(all, func(a, b trouble) int { return cmp.Compare(b.Last, a.Last) })
	return all
}

func (t trouble) text(b *bytes.Buffer, now int64) {
	fmt.Fprintf(b, "%s %s: %s, %s %s ago\n  %s\n", plain(t.Name), orUnknown(t.Destination), t.Verdict, t.failed(), milliseconds(now-t.Last), t.What)
	if t.Evidence != "" {
		fmt.Fprintf(b, "  evidence: %s\n", cut(t.Evidence, 4*longest))
	}
	fmt.Fprintf(b, "  to do: %s\n\n", t.Do)
}

func (t trouble) failed() string {
	switch t.Dials {
	case 0:
		return "no dial failed, the last was helped"
	case 1:
		return "one dial failed"
	}
	if t.Last-t.Since < 1000 {
		return fmt.Sprintf("%d dials failed, the last", t.Dials)
	}
	return fmt.Sprintf("%d dials failed in %s, the last", t.Dials, milliseconds(t.Last-t.Since))
}

func milliseconds(n int64) string {
	s := seconds(time.Duration(max(0, n)) * time.Millisecond)
	return short(&s)
}

// meaningOf is what an event says that is about a verdict, or text.
func meaningOf(kind, text string) string {
	for v, m := range meanings {
		if v.String() == kind {
			return m.what
		}
	}
	return text
}
