package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A scene is one way in which an episode of a class goes.
type scene func(e *episode) error

// scenes are those of each class, which chance chooses from.
var scenes = map[string][]scene{
	healthy:       {lossyServer, lossyBalancer, slowServer, nearlyFull, healed},
	"exhausted":   {othersHold, othersHoldOfKnown, allOurs, oursCool, budgetSpent},
	"hairpin":     {backendOfOwn, backendOfOwn, scaledIn},
	"path-down":   {darkServer, darkEverywhere, darkBalancer, nobodyThere},
	"peer-down":   {neverServed, servedNoMore, refusingBackend, resettingProxy},
	"unreachable": {prohibited, noRouteHere, noRouteThere},
	"local-ports": {portsInUse, portsInUseByOthers, portsInTimeWait, portsOfSource},
	"dns":         {nameFails},
}

// maybeServeHere lets the client itself serve the port, as a backend of something else would.
func (e *episode) maybeServeHere() error {
	if e.dest.Port() == elsewhere || !e.oneIn(2) {
		return nil
	}
	e.tell("the client serves the port, too")
	return e.serveHere(e.dest.Port())
}

// atServer begins an episode at a server that serves.
func (e *episode) atServer(known bool, takes time.Duration) error {
	e.dest = netip.AddrPortFrom(e.server(), 80)
	if _, err := e.serve(e.dest, takes); err != nil {
		return err
	}
	if err := e.maybeServeHere(); err != nil {
		return err
	}
	return e.begin(Setup{}, known)
}

// atBalancer begins an episode at a balancer that has only servers behind it, while the
// client serves the same port.
func (e *episode) atBalancer() (backends []netip.AddrPort, err error) {
	for range e.between(1, 3) {
		b := netip.AddrPortFrom(e.server(), 80)
		if _, err := e.serve(b, 0); err != nil {
			return nil, err
		}
		backends = append(backends, b)
	}
	if e.dest, err = e.balanced(80, backends...); err != nil {
		return nil, err
	}
	if err := e.serveHere(80); err != nil {
		return nil, err
	}
	return backends, e.begin(Setup{}, false)
}

// Healthy.

func lossyServer(e *episode) error {
	e.tell("a server")
	if err := e.atServer(e.oneIn(2), 0); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(0, 6)); err != nil {
		return err
	}
	if err := e.lose(0.1); err != nil {
		return err
	}
	return e.dial(e.between(4, 8))
}

func lossyBalancer(e *episode) error {
	e.tell("a balancer whose port is served here, too")
	if _, err := e.atBalancer(); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(0, 4)); err != nil {
		return err
	}
	if err := e.lose(0.1); err != nil {
		return err
	}
	return e.dial(e.between(8, 16))
}

func slowServer(e *episode) error {
	e.tell("a server that answers late")
	if err := e.atServer(e.oneIn(2), e.while(time.Second, 3*time.Second)); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(1, 6)); err != nil {
		return err
	}
	if err := e.lose(0.03); err != nil {
		return err
	}
	return e.dial(e.between(4, 8))
}

// nearlyFull has some ports left.
func nearlyFull(e *episode) error {
	e.tell("nearly all ports taken")
	if err := e.atServer(false, 0); err != nil {
		return err
	}
	mine := e.between(8, e.limit-6)
	if err := e.talk(e.dest, mine); err != nil {
		return err
	}
	if err := e.others(e.limit - 6 - mine); err != nil {
		return err
	}
	if err := e.lose(0.05); err != nil {
		return err
	}
	return e.dial(3)
}

// healed was a black hole until shortly before.
func healed(e *episode) error {
	e.tell("a path that has been down")
	if err := e.atServer(e.oneIn(2), 0); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(1, 6)); err != nil {
		return err
	}
	if err := e.Blackhole(e.dest, true); err != nil {
		return err
	}
	if err := e.dial(2); err != nil { // what is said of it meanwhile is another episode's
		return err
	}
	if err := e.Blackhole(e.dest, false); err != nil {
		return err
	}
	return e.dial(3)
}

// Exhausted.

// held has others hold what natwise has not: that is eight at least, or it could not know.
func (e *episode) held(known bool) error {
	if err := e.atServer(known, e.while(0, time.Second)); err != nil {
		return err
	}
	mine := e.between(8, e.limit-1)
	e.tell("%d of %d ports are ours, another process has the rest", mine, e.limit)
	if err := e.talk(e.dest, mine); err != nil {
		return err
	}
	if err := e.others(e.limit - mine); err != nil {
		return err
	}
	if err := e.lose(0.02); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func othersHold(e *episode) error {
	e.tell("a limit that natwise does not know")
	return e.held(false)
}

func othersHoldOfKnown(e *episode) error {
	e.tell("a limit that natwise knows")
	return e.held(true)
}

func allOurs(e *episode) error {
	e.tell("%d ports, all ours, the limit is unknown", e.limit)
	if err := e.atServer(false, 0); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.limit); err != nil {
		return err
	}
	if err := e.lose(0.02); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func oursCool(e *episode) error {
	e.tell("%d ports, all ours and most of them cooling, the limit is unknown", e.limit)
	if err := e.atServer(false, 0); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.limit); err != nil {
		return err
	}
	if err := e.guest.ask("Part", Parting{e.client, e.dest.String(), e.between(0, 4)}, &struct{}{}); err != nil {
		return err
	}
	time.Sleep(settle) // their FINs are to be answered
	if err := e.lose(0.02); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func budgetSpent(e *episode) error {
	e.tell("%d ports, all ours, as natwise knows", e.limit)
	if err := e.atServer(true, 0); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.limit-1); err != nil { // one is kept for control connections
		return err
	}
	return e.dial(e.between(1, 4))
}

// Hairpin.

// hairpinned has the client among the backends: its dials are many enough that three are given
// back to it, but for one time in a thousand.
func (e *episode) hairpinned(backends int) (all []netip.AddrPort, own netip.AddrPort, dials int, err error) {
	own = netip.AddrPortFrom(e.Client(0), []uint16{80, 8080}[e.chance.IntN(2)])
	e.tell("%d backends, 80 to %d", backends, own.Port())
	if err := e.serveHere(own.Port()); err != nil {
		return nil, own, 0, err
	}
	for range backends - 1 {
		b := netip.AddrPortFrom(e.server(), own.Port())
		if _, err := e.serve(b, 0); err != nil {
			return nil, own, 0, err
		}
		all = append(all, b)
	}
	return all, own, []int{2, 20, 30, 40}[backends-1], nil
}

func backendOfOwn(e *episode) error {
	others, own, dials, err := e.hairpinned(e.between(1, maxBackends))
	if err != nil {
		return err
	}
	if e.dest, err = e.balanced(80, append(others, own)...); err != nil {
		return err
	}
	if err := e.begin(Setup{}, false); err != nil {
		return err
	}
	if err := e.lose(0.03); err != nil {
		return err
	}
	return e.dial(dials)
}

// scaledIn has the client become a backend when all was well.
func scaledIn(e *episode) error {
	others, own, dials, err := e.hairpinned(e.between(2, maxBackends))
	if err != nil {
		return err
	}
	if e.dest, err = e.balanced(80, others...); err != nil {
		return err
	}
	if err := e.begin(Setup{}, false); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(1, 6)); err != nil {
		return err
	}
	e.tell("a backend since just now")
	if err := e.Balance(e.dest, append(others, own)...); err != nil {
		return err
	}
	if err := e.lose(0.03); err != nil {
		return err
	}
	return e.dial(dials)
}

// Path down.

func darkServer(e *episode) error {
	e.tell("a server goes black")
	if err := e.atServer(e.oneIn(2), e.while(0, time.Second)); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(0, 12)); err != nil {
		return err
	}
	return e.dark(e.dest)
}

func darkEverywhere(e *episode) error {
	e.tell("all goes black")
	if err := e.atServer(e.oneIn(2), 0); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(0, 12)); err != nil {
		return err
	}
	return e.dark(netip.AddrPort{})
}

func darkBalancer(e *episode) error {
	e.tell("a balancer goes black whose port is served here, too")
	if _, err := e.atBalancer(); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(0, 6)); err != nil {
		return err
	}
	return e.dark(e.dest)
}

func nobodyThere(e *episode) error {
	e.tell("nobody was ever there")
	e.dest = netip.AddrPortFrom(e.Server(venueServers+e.next), 80)
	e.next++
	if err := e.Count(e.dest); err != nil {
		return err
	}
	if err := e.maybeServeHere(); err != nil {
		return err
	}
	if err := e.begin(Setup{}, e.oneIn(2)); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func (e *episode) dark(hole netip.AddrPort) error {
	if err := e.lose(0.05); err != nil {
		return err
	}
	if err := e.blackhole(hole); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

// Peer down.

func neverServed(e *episode) error {
	e.tell("a closed port")
	e.dest = netip.AddrPortFrom(e.server(), 80)
	if err := e.Count(e.dest); err != nil {
		return err
	}
	return e.refused()
}

func (e *episode) refused() error {
	if err := e.maybeServeHere(); err != nil {
		return err
	}
	if err := e.begin(Setup{}, e.oneIn(2)); err != nil {
		return err
	}
	if err := e.lose(0.05); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func servedNoMore(e *episode) error {
	e.tell("a server that has ended")
	e.dest = netip.AddrPortFrom(e.server(), 80)
	ln, err := e.serve(e.dest, 0)
	if err != nil {
		return err
	}
	if err := e.begin(Setup{}, e.oneIn(2)); err != nil {
		return err
	}
	if err := e.talk(e.dest, e.between(1, 12)); err != nil {
		return err
	}
	e.origin.forget(ln)
	if err := e.lose(0.05); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func refusingBackend(e *episode) error {
	e.tell("a balancer whose backends refuse")
	var err error
	if e.dest, err = e.balanced(80, netip.AddrPortFrom(e.server(), 80)); err != nil {
		return err
	}
	return e.refused()
}

func resettingProxy(e *episode) error {
	e.tell("a proxy that resets")
	at := netip.AddrPortFrom(e.server(), 3128)
	ln, err := e.Listen(at.String())
	if err != nil {
		return err
	}
	e.later(ln.Close)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1)) // who resets before it is asked may be met by the dial itself
			reset(c)
		}
	}()
	e.dest = at
	if err := e.begin(Setup{Proxy: "http://" + at.String()}, false); err != nil {
		return err
	}
	return e.dialTo(service(80), e.between(1, 4))
}

// Unreachable.

// prohibited is a destination that the gateway has no account for.
func prohibited(e *episode) error {
	e.tell("a gateway that prohibits it")
	e.dest = netip.AddrPortFrom(e.server(), 80)
	return e.refused()
}

func noRouteHere(e *episode) error {
	e.tell("no route in the client")
	return e.noRoute("client")
}

func noRouteThere(e *episode) error {
	e.tell("no route in the gateway")
	return e.noRoute("gateway")
}

func (e *episode) noRoute(where string) error {
	a := e.server()
	e.dest = netip.AddrPortFrom(a, 80)
	route := func(what string) error {
		_, err := e.Exec(context.Background(), where, "ip", "route", what, "unreachable", a.String()+"/32")
		return err
	}
	if err := route("add"); err != nil {
		return err
	}
	e.later(func() error { return route("del") })
	return e.refused()
}

// Local ports.

// fewPorts leaves the client few local ports, until the episode ends, and returns how many.
// The limit is larger.
func (e *episode) fewPorts() (n int, err error) {
	n = 2 * e.between(4, e.limit/2-1) // of an odd number Linux does not use the last
	first := 40000 + 100*e.chance.IntN(100)
	set := func(first, last int) error {
		_, err := e.Exec(context.Background(), "client", "sysctl", "-qw", fmt.Sprintf("net.ipv4.ip_local_port_range=%d %d", first, last))
		return err
	}
	e.tell("%d local ports", n)
	e.later(func() error { return set(1024, 65535) })
	return n, set(first, first+n-1)
}

func portsInUse(e *episode) error {
	e.tell("all in use here")
	if err := e.atServer(e.oneIn(2), 0); err != nil {
		return err
	}
	n, err := e.fewPorts()
	if err != nil {
		return err
	}
	if err := e.talk(e.dest, n); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func portsInUseByOthers(e *episode) error {
	e.tell("all in use, most by another process")
	if err := e.atServer(e.oneIn(2), 0); err != nil {
		return err
	}
	n, err := e.fewPorts()
	if err != nil {
		return err
	}
	mine := e.between(0, 4)
	if err := e.talk(e.dest, mine); err != nil {
		return err
	}
	if err := e.others(n - mine); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

func portsInTimeWait(e *episode) error {
	e.tell("all in TIME_WAIT")
	if err := e.atServer(false, 0); err != nil {
		return err
	}
	n, err := e.fewPorts()
	if err != nil {
		return err
	}
	if err := e.talk(e.dest, n); err != nil {
		return err
	}
	if err := e.guest.ask("Part", Parting{e.client, e.dest.String(), 0}, &struct{}{}); err != nil {
		return err
	}
	time.Sleep(settle) // their FINs are to be answered
	return e.dial(e.between(1, 4))
}

func portsOfSource(e *episode) error {
	e.tell("all in use from the source that is chosen")
	e.dest = netip.AddrPortFrom(e.server(), 80)
	if _, err := e.serve(e.dest, 0); err != nil {
		return err
	}
	if err := e.begin(Setup{Sources: []netip.Addr{e.Client(0)}}, false); err != nil {
		return err
	}
	n, err := e.fewPorts()
	if err != nil {
		return err
	}
	if err := e.talk(e.dest, n); err != nil {
		return err
	}
	return e.dial(e.between(1, 4))
}

// DNS.

func nameFails(e *episode) error {
	how := []string{noSuchName, noAnswer, noServer}[e.chance.IntN(3)]
	e.tell("%s", how)
	if err := e.begin(Setup{Names: how}, false); err != nil {
		return err
	}
	return e.dialTo(net.JoinHostPort("nowhere.test", "80"), e.between(1, 4))
}
