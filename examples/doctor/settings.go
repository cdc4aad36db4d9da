package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

// A warning is a setting of the kernel's that will hurt on this path.
type warning struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	What    string `json:"what"`
	Change  string `json:"change"`
}

// warnings are the settings that will hurt on this path. Sources: Linux
// Documentation/networking/ip-sysctl.rst and nf_conntrack-sysctl.rst for what they mean.
func (p *proc) warnings(path pathway) (ws []warning) {
	one := func(name string) (int, bool) {
		ns := p.numbers("sys/net/" + name)
		return first(ns), len(ns) == 1
	}
	idle := path.counted.Idle
	if n, ok := one("ipv4/tcp_keepalive_time"); ok && idle > 0 && time.Duration(n)*time.Second > idle {
		ws = append(ws, warning{"net.ipv4.tcp_keepalive_time", strconv.Itoa(n),
			fmt.Sprintf("who switches keepalive on and sets no time is probed after %s; the path forgets after %s", span(time.Duration(n)*time.Second), span(idle)),
			fmt.Sprintf("sysctl -w net.ipv4.tcp_keepalive_time=%s net.ipv4.tcp_keepalive_intvl=%s net.ipv4.tcp_keepalive_probes=3, or the same for each socket", seconds(probeAfter(idle)), seconds(probeEvery(idle)))})
	}
	if n, ok := one("ipv4/tcp_retries2"); ok && n >= 10 && idle > 0 {
		ws = append(ws, warning{"net.ipv4.tcp_retries2", strconv.Itoa(n),
			"what is written into a connection that the path has forgotten is retried for many minutes (15 tries: 924 s) before anybody is told",
			"a deadline for each answer, and TCP_USER_TIMEOUT (90 s and more) where the program has it"})
	}
	if ns := p.numbers("sys/net/ipv4/ip_local_port_range"); len(ns) == 2 {
		if own, limit := ns[1]-ns[0]+1, path.limit; own > 0 && limit > own {
			ws = append(ws, warning{"net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", ns[0], ns[1]),
				fmt.Sprintf("this machine has %s ports to a destination, for 60 s after each end too; the path has %s", terminal.Thousands(own), terminal.Thousands(limit)),
				"sysctl -w net.ipv4.ip_local_port_range='1024 65535', after a look at what listens there"})
		}
	}
	n, counted := one("netfilter/nf_conntrack_count")
	if most, ok := one("netfilter/nf_conntrack_max"); ok && counted && most > 0 && n*5 >= most*4 {
		ws = append(ws, warning{"net.netfilter.nf_conntrack_max", strconv.Itoa(most),
			fmt.Sprintf("%s entries are taken; beyond it new connections are dropped", terminal.Thousands(n)),
			fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most)})
	}
	return ws
}

func first(ns []int) int {
	if len(ns) == 0 {
		return 0
	}
	return ns[0]
}

// probeAfter is the silence after which a path with this memory should be probed, and
// probeEvery how often then, as keepalive.Plan has it.
func probeAfter(idle time.Duration) time.Duration { return max(time.Second, min(idle/4, time.Minute)) }

func probeEvery(idle time.Duration) time.Duration {
	return max(time.Second, min(idle/16, 5*time.Second))
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }
