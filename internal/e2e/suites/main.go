package main

import (
	"os"

	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
)

func main() { os.Exit(command.Run(os.Args[1:], os.Stdout, os.Stderr)) }

var command = work.Command{
	Name:        "suites",
	Peer:        unwrapped,
	Unavailable: servers.ErrUnavailable,
	Acts: []work.Act{
		{Name: "pgx", About: "the tests of jackc/pgx's package stdlib, over natwise", Alone: true, Play: pgx.play},
		{Name: "pq", About: "the tests of lib/pq, over natwise", Alone: true, Play: pq.play},
		{Name: "mysql", About: "the tests of go-sql-driver/mysql, over natwise", Alone: true, Play: mysql.play},
	},
}
