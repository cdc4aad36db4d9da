package main

import (
	"os"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	natlab.Enter()
	os.Exit(command.Run(os.Args[1:], os.Stdout, os.Stderr))
}

var command = work.Command{
	Name: "once",
	Peer: byDefault,
	Acts: []work.Act{
		{Name: "exactly-once", About: "requests while flows are forgotten and reset, and the origin is killed", Alone: true, Play: exactlyOnce},
		{Name: "black-http1", About: "200 GETs a second over HTTP/1.1, then the gateway forgets all flows", Alone: true, Play: black(http1)},
		{Name: "black-tls", About: "the same over TLS", Alone: true, Play: black(https1)},
		{Name: "black-http2", About: "the same over HTTP/2", Alone: true, Play: black(http2)},
	},
}

// told makes a Measurement of clients that speak something.
func told(over, figure, unit string, ours work.Reading) work.Measurement {
	return work.Told(figure, unit, ours).At(over, "")
}
