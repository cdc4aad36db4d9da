package main

import (
	"os"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	if parent := os.Getenv(frozenEnv); parent != "" {
		os.Exit(beFrozen(parent, os.Stderr))
	}
	natlab.Enter()
	os.Setenv("NO_PROXY", "*") // there is none in a lab
	os.Exit(command.Run(os.Args[1:], os.Stdout, os.Stderr))
}

var command = work.Command{
	Name:  "liveness",
	Peer:  goDefaults,
	Order: byConnection,
	Acts: []work.Act{
		{Name: "parked-reader", About: "connections idle in Read, then everything is black", Play: parkedReader},
		{Name: "unanswered", About: "a request is acknowledged and its answer due, then everything is black", Play: unanswered},
		{Name: "busy-beside", About: "a busy flow goes black alone, beside others to the same address", Play: busyBeside},
		{Name: "busy-alone", About: "a busy flow goes black, and there is no other to the same address", Play: busyAlone},
		{Name: "outage-10s", About: "a request is out, then the whole path is down for 10 s", Play: outage(10 * time.Second)},
		{Name: "outage-30s", About: "a request is out, then the whole path is down for 30 s", Play: outage(30 * time.Second)},
		{Name: "zero-window", About: "the server does not read for 30 s, then everything", Play: zeroWindow},
		{Name: "parked", About: "connections parked in a pool for longer than the path remembers, then all used", Play: kept},
		{Name: "parked-no-probes", About: "the same without keepalive probes", Play: retired},
		{Name: "reset-on-idle", About: "a RST comes to a connection that is parked", Alone: true, Play: resetOnIdle},
		{Name: "lost-probes", About: "two packets in a row are lost that the client sends after a silence", Play: lostProbes},
		{Name: "loss-1", About: "requests and answers of 200 B, 1 % of the packets lost each way", Play: loss(0.01, 1e-4)},
		{Name: "loss-5", About: "requests and answers of 200 B, 5 % of the packets lost each way", Play: loss(0.05, 1e-3)},
		{Name: "frozen", About: "a process with parked connections is stopped for longer than the path remembers", Play: frozen},
		{Name: "lying-proxy", About: "a middlebox acknowledges what it throws away, and 19 s later sends a FIN", Play: lyingProxy},
		{Name: "learned", About: "three paths that forget sooner than natwise was told, learned from connections about to be closed", Play: learned},
		{Name: "shorter-path", About: "the path forgets after 6 s, and natwise was told 16 s", Play: shorterPath},
		{Name: "stale-servers", About: "a NAT uses the ports of flows again that idled out and whose servers hold on to them", Play: staleServers},
	},
}
