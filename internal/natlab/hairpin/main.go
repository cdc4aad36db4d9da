package main

import (
	"flag"
	"os"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	if os.Getenv(guestEnv) != "" {
		os.Exit(beGuest(os.Stdin, os.Stdout))
	}
	natlab.Enter()
	os.Setenv("NO_PROXY", "*") // but for those that are asked for
	os.Exit(command.Run(os.Args[1:], os.Stdout, os.Stderr))
}

const goDial = "Go's own dial"

// Who wants to be alone counts packets that the kernel counts for the whole machine.
var command = work.Command{
	Name: "hairpin",
	Peer: goDial,
	Flags: []func(*flag.FlagSet){func(f *flag.FlagSet) {
		f.Uint64Var(&seed, "seed", 0, "have the verdicts' chance begin at `number`, which an earlier run has printed")
	}},
	Acts: []work.Act{
		{Name: "hairpin", About: "backends dial the balancer that they stand behind", Alone: true, Play: hairpin},
		{Name: "workarounds", About: "the same where the balancer has no other backend, by configuration", Alone: true, Play: workarounds},
		{Name: "sources", About: "a NAT that counts each source address, and a client without local ports", Play: sources},
		{Name: "limits", About: "a path whose limit nobody tells, under a load that wants more", Play: limits},
		{Name: "verdicts", About: "what natwise says is wrong where something is, and where nothing is", Play: verdicts},
	},
}
