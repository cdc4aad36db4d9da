// Package work is what the measuring mains of the kernel lab do to a NAT: the
// scenarios, an origin server, and the clients that are compared.
//
// A Command is such a main whose scenarios have figures of their own: it plays Acts, and
// prints what they Note.
//
// What may run only once a Crowd sends while the faults of a Schedule happen; how often
// each of it has run makes a Verdict. A Stream tells how late answers are when all goes
// wrong at once.
//
// A Stage is a fresh lab with one kind of client in it, so that the ports which
// one client leaves behind are not met by the next.
package work

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// Limit is how many flows to one destination the NAT carries.
const Limit = 128

// Path is App Service's NAT with its timers scaled down. It counts everything,
// since a lab's addresses are its own.
func Path() netpath.Profile {
	p := netpath.AzureAppService()
	p.Limits = []netpath.Limit{{Scope: netpath.Destination, N: Limit}}
	p.Idle = 16 * time.Second
	p.Hold = netpath.Hold{
		FIN: 4 * time.Second, RST: 1500 * time.Millisecond, SYN: 4 * time.Second, Idle: netpath.None,
	}
	p.Exempt = netpath.NoExempt()
	return p
}

// Timers says in words what Path holds for how long.
func Timers() string {
	p := Path()
	return fmt.Sprintf("FIN %v, RST %v, SYN %v, idle %v, scaled from 240 s, 15 s, 240 s, 240 s",
		p.Hold.FIN, p.Hold.RST, p.Hold.SYN, p.Idle)
}

// Service is how long the origin takes to answer.
const Service = 20 * time.Millisecond

// A Scenario is a piece of work. It is bounded in requests and in time.
type Scenario struct {
	Name     string
	Workers  int           // who ask, each the next thing when the last is done
	Requests int           // of all workers together
	Every    time.Duration // instead: all workers ask once, at once, this often
	Names    int           // host names of the one address; request i goes to name i mod Names
	Clients  int           // in the process; a worker keeps to its own
	Closes   bool          // the origin closes after every response
	Room     int           // flows that the gateway really has for a destination
	Deadline time.Duration // of one request
	Cap      time.Duration // no request begins later
}

// Scenarios returns all of them. The long ones are for -full.
func Scenarios(long bool) []Scenario {
	requests, bursts := 12_000, 4
	if long {
		requests, bursts = 20_000, 10
	}
	steady := Scenario{
		Name: "steady", Workers: 500, Requests: requests, Names: 1, Clients: 1,
		Room: Limit, Deadline: 10 * time.Second, Cap: 10 * time.Second,
	}
	names32, names40, clients := steady, steady, steady
	names32.Name, names32.Names = "names32", 32
	names40.Name, names40.Names = "names40", 40
	clients.Name, clients.Clients = "clients", 20
	return []Scenario{steady, names32, names40, clients, {
		Name: "bursts", Workers: 300, Requests: 300 * bursts, Every: 2 * time.Second, Names: 1, Clients: 1,
		Room: Limit, Deadline: 10 * time.Second, Cap: time.Minute,
	}, {
		Name: "close", Workers: 200, Requests: 1200, Names: 1, Clients: 1, Closes: true,
		Room: 2 * Limit, Deadline: 20 * time.Second, Cap: 45 * time.Second,
	}}
}
