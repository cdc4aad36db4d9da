package main

import (
	"io"
	"log"
	"os"

	"github.com/go-sql-driver/mysql"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
)

func main() {
	natlab.Enter()
	mysql.SetLogger(log.New(io.Discard, "", 0)) // of connections that a fault has ended
	os.Exit(command.Run(os.Args[1:], os.Stdout, os.Stderr))
}

var command = work.Command{
	Name:        "e2e",
	Peer:        plain,
	Unavailable: servers.ErrUnavailable,
	Acts: []work.Act{
		{Name: "idle", About: "connections that nobody uses for five times as long as the path remembers", Alone: true, Play: idle},
		{Name: "failover", About: "200 queries a second, and the server or the path to it goes", Alone: true, Play: failover},
		{Name: "exactlyonce", About: "INSERTs while flows are forgotten and reset, and servers are killed", Alone: true, Play: exactlyOnce},
	},
}
