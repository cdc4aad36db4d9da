package main

import (
	"context"
	"net/http"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A scene is something that goes wrong on the way, and work for the clients that
// meets it. It is made once and not changed while it is played.
type scene struct {
	name    string
	path    netpath.Profile // of each client's NAT, its timers divided by scale
	through string          // what path is, as the numbers call it
	scale   int

	clients []client
	sites   []site
	service time.Duration // the servers' time for an answer
	secure  bool          // HTTP/2 over TLS; else HTTP/1.1
	timeout time.Duration // of a request
	limit   time.Duration // of all the work of a client; what it has not sent by then has failed
	haste   time.Duration // by how much the clients' own timers of silence are divided; 0: they are not
	unable  error         // why this machine cannot show it; nil: it can

	// play does the work of one client. It returns when all answers are there, or ctx
	// is done.
	play func(ctx context.Context, l *lane)

	total  int    // requests of a client; 0: as many as it gets done
	intro  []note // what is about to happen
	stray  string // what a connection is called that leads nowhere; "": there is none
	chart  chart
	table  []column
	missed func(v verdict, lanes []*lane) []string // what the run was to show and did not, besides
	told   func(v verdict) string                  // what the numbers of a run that is ok say
	advice string                                  // the lines for one's own program
}

// A site is a server that the clients know by a name.
type site struct{ name string }

// A note is a sentence for the screen.
type note struct {
	text  string
	quiet bool // it is small print
}

// scenes are what -scenario chooses from, the first being the main one.
var scenes = []struct {
	name string
	open func(work) (*scene, error) // work is what the flags say, and only of use in exhaustion
}{
	{"exhaustion", func(w work) (*scene, error) { return exhaustion(w), w.check() }},
	{"idle", func(work) (*scene, error) { return idle(visits{times: 5, atOnce: 10}), nil }},
	{"blackhole", func(work) (*scene, error) {
		return blackhole(load{every: 25 * time.Millisecond, before: 2 * time.Second, after: 10 * time.Second}), nil
	}},
	{"lying-proxy", func(work) (*scene, error) {
		return lyingProxy(lie{before: 2 * time.Second, lasts: 10 * time.Second, after: 2 * time.Second}), nil
	}},
}

func names() (names []string) {
	for _, s := range scenes {
		names = append(names, s.name)
	}
	return names
}

// get and post are the two kinds of requests: one that may be sent twice, and one
// that may not.
const (
	get  = http.MethodGet
	post = http.MethodPost
)

// appServicePorts is how many ports the NATs have.
func appServicePorts() int { return netpath.AzureAppService().Limit(netpath.Destination) }
