package netpath

import "time"

const linuxConntrack = "Linux: Documentation/networking/nf_conntrack-sysctl.rst"

// linuxHold is after TIME_WAIT, after CLOSE, after SYN_SENT. At its idle timeout
// an entry vanishes, and its port is free.
var linuxHold = Hold{FIN: 120 * time.Second, RST: 10 * time.Second, SYN: 120 * time.Second, Idle: None}

// LinuxSNAT is a gateway that translates with nf_conntrack (a home-made router,
// a NAT instance, Docker's bridge) to one address with this many ports: 64,512
// without a range of your own. A current kernel gives up closing entries when a
// SYN needs their port, so the holds are upper bounds. It begins to fail before
// all ports are taken, since it tries at most 128 of them for a flow.
func LinuxSNAT(ports int) Profile {
	return Profile{
		Name:   "linux-snat",
		Source: linuxConntrack,
		Grade:  Documented,
		Limits: []Limit{{Destination, ports}},
		Idle:   432_000 * time.Second,
		AtIdle: Drop,
		Hold:   linuxHold,
		Cites:  guessed("Limits[0]"),
	}
}

// KubeProxy is the tracking on a Kubernetes node as kube-proxy sets it. An entry
// whose server closed first lives for an hour if the client does not close.
func KubeProxy() Profile {
	return Profile{
		Name:   "kube-proxy",
		Source: "Kubernetes: kube-proxy's flags, their defaults (undated)",
		Grade:  Documented,
		Idle:   86_400 * time.Second,
		AtIdle: Drop,
		Hold:   linuxHold,
		Cites:  holdsFrom(linuxConntrack, Documented),
	}
}

// KubeIPVS is a Linux virtual server: kube-proxy in its IPVS mode, kube-router,
// Docker Swarm's ingress. What follows the silence is dropped, or reset by
// another backend.
func KubeIPVS() Profile {
	return Profile{
		Name:   "kube-ipvs",
		Source: "Linux: the timeout table of IPVS",
		Grade:  Documented,
		Idle:   900 * time.Second,
		AtIdle: Drop,
		Hold:   linuxHold,
	}
}
