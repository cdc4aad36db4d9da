package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive/netpath"
)

// healthy is the class where nothing is wrong; the others are verdicts.
const healthy = "healthy"

// An episode is a destination, its past, what goes wrong with it, and what natwise says.
type episode struct {
	*venue
	class  string
	chance *rand.Rand
	dest   netip.AddrPort // where the dials go; set by its scene
	about  string         // what the scene is, and what chance made of it
	client int            // natwise's
	undo   []func() error

	dials []Dialed
	seen  Client
}

// tell adds to what the episode is about.
func (e *episode) tell(format string, args ...any) { e.about += fmt.Sprintf(format, args...) + "; " }

// between is a number from low to high, both included.
func (e *episode) between(low, high int) int { return low + e.chance.IntN(high-low+1) }

func (e *episode) while(low, high time.Duration) time.Duration {
	return low + time.Duration(e.chance.Int64N(int64(high-low)+1))
}

// oneIn is true once in so many times.
func (e *episode) oneIn(n int) bool { return e.chance.IntN(n) == 0 }

func (e *episode) later(undo func() error) { e.undo = append(e.undo, undo) }

// end undoes all, the last first.
func (e *episode) end() error {
	var errs []error
	for _, undo := range slices.Backward(e.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// A venue is a stage where one episode after the other happens, each at a server of its own.
type venue struct {
	*stage
	limit int  // of flows to one destination
	old   bool // the client's kernel sends SYNs again as older ones did
	next  int  // server
}

const (
	venueServers = 120 // 20 episodes and more
	elsewhere    = 7   // the port of a server where all is well
)

// The NAT of a venue holds what has ended by FIN for longer than an episode lasts.
func venuePath(limit int) netpath.Profile {
	p := work.Path()
	p.Limits = []netpath.Limit{{Scope: netpath.Destination, N: limit}}
	p.Idle, p.Hold.FIN, p.Exempt = time.Minute, time.Minute, nil
	return p
}

func openVenue(chance *rand.Rand) (*venue, error) {
	limit := []int{16, 24, 32, 48}[chance.IntN(4)]
	st, err := open(natlab.Config{Path: venuePath(limit), Servers: venueServers})
	if err != nil {
		return nil, err
	}
	v := &venue{stage: st, limit: limit}
	// A router may say seldom that there is no way. This one would not say it at all where
	// it is asked more than once a second: its kernel counts each answer twice.
	if _, err := v.Exec(context.Background(), "gateway", "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"); err != nil {
		return nil, errors.Join(err, v.close())
	}
	if chance.IntN(2) == 0 { // SYNs are sent again after 1, 3 and 7 s, as before Linux 6.5
		v.Exec(context.Background(), "client", "sysctl", "-qw", "net.ipv4.tcp_syn_linear_timeouts=0") // there it was always so
		v.old = true
	}
	return v, nil
}

// used reports whether there may be too few servers for another episode.
func (v *venue) used() bool { return v.next > venueServers-2*maxBackends }

// server is an address where nothing has happened yet.
func (e *episode) server() netip.Addr {
	a := e.Server(e.next)
	e.next++
	return a
}

// begin makes a client that knows the path's limit, or does not, and lets it talk elsewhere.
func (e *episode) begin(s Setup, known bool) (err error) {
	if s.Path.Name == "" {
		s.Path = venuePath(e.limit)
		if !known {
			s.Path.Limits = nil
		}
	}
	s.MaxWait = time.Second
	if e.client, err = e.stage.client(s); err != nil {
		return err
	}
	e.later(func() error { return e.guest.ask("Rest", e.client, &struct{}{}) })
	if s.Proxy != "" || s.Names != "" {
		return nil
	}
	at := netip.AddrPortFrom(e.server(), elsewhere)
	if _, err := e.serve(at, 0); err != nil {
		return err
	}
	return e.talk(at, e.between(2, 4))
}

// talk opens connections of natwise's on which something is said now and then, one after the
// other: the kernel may not find its last free local port where several look for one.
func (e *episode) talk(to netip.AddrPort, n int) error {
	if n == 0 {
		return nil
	}
	var all []Dialed
	err := e.guest.ask("Dial", Dials{Client: e.client, Address: to.String(), N: n, AtOnce: 1, Each: 10 * time.Second, Keep: true}, &all)
	for _, d := range all {
		if d.Error != "" {
			err = errors.Join(err, fmt.Errorf("before anything went wrong: %s", d.Error))
		}
	}
	return err
}

// serve lets a server echo at an address, each answer after a while, until the episode ends.
func (e *episode) serve(at netip.AddrPort, takes time.Duration) (net.Listener, error) {
	ln, err := e.Listen(at.String())
	if err != nil {
		return nil, err
	}
	e.later(func() error { e.origin.forget(ln); return nil }) // it may be closed
	go e.origin.echo(ln, takes)
	return ln, nil
}

// serveHere lets the client itself echo at a port.
func (e *episode) serveHere(port uint16) error {
	ln, err := e.ListenClient(":" + strconv.Itoa(int(port)))
	// A program that is being started has what this one had until then: what the last episode
	// has closed is closed for good when that has begun.
	for end := time.Now().Add(time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		ln, err = e.ListenClient(":" + strconv.Itoa(int(port)))
	}
	if err != nil {
		return err
	}
	e.later(func() error { e.origin.forget(ln); return nil })
	go e.origin.echo(ln, 0)
	return nil
}

// balanced is a private address and port whose flows go to the backends.
func (e *episode) balanced(port uint16, backends ...netip.AddrPort) (netip.AddrPort, error) {
	to := vip(e.next, port) // as good as the server's number
	return to, e.Balance(to, backends...)
}

// lose loses a share of all packets each way until the episode ends.
func (e *episode) lose(most float64) error {
	share := e.chance.Float64() * most
	e.tell("%.1f %% lost each way", 100*share)
	e.later(func() error { return e.Lose(0) })
	return e.Lose(share)
}

// blackhole lets everything vanish to and from an address, or everywhere, until the episode
// ends.
func (e *episode) blackhole(dst netip.AddrPort) error {
	e.later(func() error { return e.Blackhole(dst, false) })
	return e.Blackhole(dst, true)
}

// others is another process that takes up to n flows to the destination.
func (e *episode) others(n int) error {
	var conns []net.Conn
	e.later(func() error {
		for _, c := range conns {
			reset(c)
		}
		return nil
	})
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		c, err := e.Lab.Dial(ctx, "tcp", e.dest.String())
		cancel()
		if err != nil {
			return fmt.Errorf("another process: %w", err)
		}
		conns = append(conns, c)
	}
	return nil
}

// dial dials n times, somehow apart, and learns what natwise has to say.
func (e *episode) dial(n int) error { return e.dialTo(e.dest.String(), n) }

func (e *episode) dialTo(address string, n int) error {
	d := Dials{
		Client: e.client, Address: address, N: n, AtOnce: 8,
		Apart: e.while(0, min(300*time.Millisecond, 2*time.Second/time.Duration(n))), Each: e.while(6*time.Second, 8*time.Second),
	}
	if e.old {
		d.Each += 2 * time.Second // up to what a Dialer allows by itself: the fourth SYN goes out after 7
	}
	if err := e.guest.ask("Dial", d, &e.dials); err != nil {
		return err
	}
	return e.guest.ask("Look", e.client, &e.seen)
}

// called is what natwise calls the episode: one wrong word is enough.
func (e *episode) called() string {
	called := healthy
	for _, v := range e.verdicts() {
		if called = v; v != e.class {
			return v
		}
	}
	return called
}

// verdicts are all that were given: by the dials that failed, and of the destination.
func (e *episode) verdicts() (all []string) {
	for _, d := range e.dials {
		if d.Error != "" {
			all = append(all, d.Verdict)
		}
	}
	for _, d := range e.seen.Diagnoses {
		if d.Remote == e.dest && d.Verdict != dialer.Unknown {
			all = append(all, d.Verdict.String())
		}
	}
	return all
}

// String says what has happened and what was said of it.
func (e *episode) String() string {
	s := fmt.Sprintf("%s is called %s: %s%v; dials:", e.class, e.called(), e.about, e.dest)
	for _, d := range e.dials {
		s += fmt.Sprintf(" %v, tries %d", d.Took.Round(time.Millisecond), d.Tries)
		if d.Error != "" {
			s += fmt.Sprintf(", %s: %s", d.Verdict, d.Error)
		}
		s += ";"
	}
	for _, d := range e.seen.Diagnoses {
		s += fmt.Sprintf(" diagnosed %v: %v (%s);", d.Remote, d.Verdict, d.Evidence)
	}
	return s
}
