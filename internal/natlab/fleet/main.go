package main

import (
	"os"

	"github.com/redis/go-redis/v9/logging"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
)

func main() {
	logging.Disable() // go-redis speaks of each connect that fails
	if os.Getenv(clientEnv) != "" {
		os.Exit(beClient(os.Stdin, os.Stdout))
	}
	natlab.Enter()
	os.Exit(command.Run(os.Args[1:], os.Stdout, os.Stderr))
}

// notShared is the peer of most figures: the same processes, each of which believes that it
// has all ports for itself.
const notShared = "not shared"

// Each act has more to do than the machine has processors, and is about time.
var command = work.Command{
	Name:        "fleet",
	Peer:        notShared,
	Unavailable: servers.ErrUnavailable,
	Acts: []work.Act{
		{Name: "host", About: "eight processes of one machine, each of which wants all of its 128 ports", Alone: true, Play: host},
		{Name: "crash", About: "the same, and processes are killed, stopped, started again", Alone: true, Play: crash},
		{Name: "redis", About: "instances that share 1,000 ports by a Redis, and each comes, goes or fails", Alone: true, Play: leases},
		{Name: "load", About: "what many instances that share 20 destinations cost a Redis", Alone: true, Play: load},
	},
}
