package main

import (
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/keepalive"
)

// A bar is how many ports of a destination are in which state.
type bar struct {
	Active, Idle, Dialing, Cooling, Limit int
}

// label is what is said of a bar to those who do not see it.
func (b bar) label() string {
	return fmt.Sprintf("%d active, %d idle, %d dialing, %d cooling of %d", b.Active, b.Idle, b.Dialing, b.Cooling, b.Limit)
}

// readBars is an expression for the bars of all rows, as their data attributes have them.
const readBars = `Object.fromEntries([...document.querySelectorAll("[data-destination]")].map(row => {
	const { active, idle, dialing, cooling, limit } = row.querySelector("[data-active]").dataset;
	return [row.dataset.destination, { active: +active, idle: +idle, dialing: +dialing, cooling: +cooling, limit: +limit }];
}))`

// readLabels is one for what a screen reader says of them.
const readLabels = `Object.fromEntries([...document.querySelectorAll("[data-destination]")].map(row =>
	[row.dataset.destination, row.querySelector("[data-active]").getAttribute("aria-label")]))`

// booked is what the ledger says.
func booked(l *dialer.Ledger) map[string]bar {
	bars := make(map[string]bar)
	for _, a := range l.Accounts() {
		bars[a.Key.Dest.String()] = barOf(a)
	}
	return bars
}

func barOf(a dialer.Account) bar {
	b := bar{Active: a.Active, Idle: a.Idle, Dialing: a.Asked + a.Dialing, Cooling: a.Closing, Limit: a.Limit}
	for _, n := range a.Cooling {
		b.Cooling += n
	}
	return b
}

// waiting is how many dials wait for a port.
func waiting(l *dialer.Ledger) (n int) {
	for _, a := range l.Accounts() {
		n += a.Waiting
	}
	return n
}

const (
	busyAt = "203.0.113.10:443"  // some of everything
	fullAt = "203.0.113.20:5432" // with requests that wait
	muteAt = "198.51.100.7:8443" // answers no SYN
	idleAt = "198.51.100.9:6379"

	ports = 32 // for each
)

// playEverything has one destination or another in every state that there is, and returns
// them when nothing changes any more but with time.
func playEverything(t *testing.T, s *stage) map[string]bar {
	t.Helper()
	busy := s.name("api.example.com", at(busyAt))
	must(t, s.use(busy, 9))
	must(t, s.abort(busy, 3))
	must(t, s.finish(busy, 4))
	must(t, s.rest(busy, 5))

	full := s.name("db.example.com", at(fullAt))
	must(t, s.use(full, ports-3))
	must(t, s.finish(full, 2)) // and one port is kept for newcomers, who are the first of these:
	s.wait(full, 2)
	s.ask(full, 4)

	s.silence(at(muteAt))
	s.ask(s.name("mute.example.com", at(muteAt)), 3)
	must(t, s.rest(s.name("cache.example.com", at(idleAt)), 6))

	want := map[string]bar{
		busyAt: {Active: 9, Idle: 5, Cooling: 7, Limit: ports},
		fullAt: {Active: ports - 2, Cooling: 2, Limit: ports},
		muteAt: {Dialing: 3, Limit: ports},
		idleAt: {Idle: 6, Limit: ports},
	}
	eventually(t, "every state", func() bool { return maps.Equal(booked(s.ledger), want) && waiting(s.ledger) == 2 })
	return want
}

// A twin is what is looked at of the page's JSON.
type twin struct {
	At           int64 `json:"at_ms"`
	Destinations []destination
}

type destination struct {
	Destination string
	Names       []string
	Ports       struct {
		bar
		Taken, Free int
	}
	Waiting int
	Next    *float64       `json:"next_free_seconds"`
	Freed   []int          // in each 10 s
	Later   int            `json:"freed_later"`
	Cooling map[string]int `json:"cooling_by"`
	Forgets float64        `json:"idle_timeout_seconds"`
	Counts  struct{ Opened int }
}

// seen is the page and its twin at the same moment.
type seen struct {
	Twin twin
	Bars map[string]bar
	Rows map[string]string // their text
}

// readBoth is an expression for what both say of the same look at the ledger.
const readBoth = `(async () => {
	for (;;) {
		const twin = await (await fetch("?format=json")).json();
		if (twin.at_ms === Number(document.documentElement.dataset.updated)) return {
			twin, bars: ` + readBars + `,
			rows: Object.fromEntries([...document.querySelectorAll("[data-destination]")].map(row => [row.dataset.destination, row.textContent])),
		};
		await new Promise(requestAnimationFrame);
	}
})()`

func TestThePageShowsWhatItsTwinAndTheLedgerSay(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	want := playEverything(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)

	got := shown[seen](t, b, readBoth)
	accounts := s.ledger.Accounts()
	if held := booked(s.ledger); !maps.Equal(held, want) {
		t.Fatalf("the ledger has changed meanwhile: %v", held)
	}
	if !maps.Equal(got.Bars, want) {
		t.Errorf("the page shows\n\t%v, the ledger holds\n\t%v", got.Bars, want)
	}
	if n := len(got.Twin.Destinations); n != len(accounts) {
		t.Errorf("the twin has %d destinations", n)
	}
	for _, d := range got.Twin.Destinations {
		i := slices.IndexFunc(accounts, func(a dialer.Account) bool { return a.Key.Dest.String() == d.Destination })
		if i < 0 {
			t.Errorf("the ledger knows nothing of %s", d.Destination)
			continue
		}
		compare(t, d, accounts[i])
		host, _, err := net.SplitHostPort(d.Names[0])
		must(t, err)
		for _, said := range []string{host, d.Destination, fmt.Sprintf("%d of %d", d.Ports.Taken, ports)} {
			if !strings.Contains(got.Rows[d.Destination], said) {
				t.Errorf("the row of %s does not say %q: %q", d.Destination, said, got.Rows[d.Destination])
			}
		}
	}
}

// requests are those that playEverything has wait for each destination, in the pool or alone.
var requests = map[string]int{fullAt: 4 + 1, muteAt: 3}

// opened are the connections that it has opened.
var opened = map[string]int{busyAt: 9 + 3 + 4 + 5, fullAt: ports, idleAt: 6}

// compare holds what the twin says of a destination against the ledger's account.
func compare(t *testing.T, d destination, a dialer.Account) {
	t.Helper()
	p := d.Ports
	if p.bar != barOf(a) || p.Taken != a.Taken() || p.Free != a.Limit-a.Taken() {
		t.Errorf("%s: the twin says %+v, the ledger %v", d.Destination, p, a)
	}
	for how, n := range a.Cooling {
		if name := keepalive.How(how).String(); d.Cooling[name] != n {
			t.Errorf("%s: %d cool by %s, the ledger says %d", d.Destination, d.Cooling[name], name, n)
		}
	}
	freed := d.Later
	for _, n := range d.Freed {
		freed += n
	}
	if freed != p.Cooling {
		t.Errorf("%s: %d ports come free, %d cool", d.Destination, freed, p.Cooling)
	}
	if (d.Next == nil) != (p.Cooling == 0) || d.Next != nil && math.Abs(*d.Next-a.NextFree.Seconds()) > 2 {
		t.Errorf("%s: the next port comes free in %v, the ledger says %v", d.Destination, d.Next, a.NextFree)
	}
	if d.Waiting != requests[d.Destination] {
		t.Errorf("%s: %d wait, not %d", d.Destination, d.Waiting, requests[d.Destination])
	}
	if d.Counts.Opened != opened[d.Destination] {
		t.Errorf("%s: %d were opened, not %d", d.Destination, d.Counts.Opened, opened[d.Destination])
	}
	if d.Forgets != a.Forgets.Seconds() {
		t.Errorf("%s: the path forgets after %v s, the ledger says %v", d.Destination, d.Forgets, a.Forgets)
	}
}

func TestWhatAScreenReaderSaysOfABarIsWhatItShows(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	want := playEverything(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)

	labels := shown[map[string]string](t, b, readLabels)
	for _, destination := range slices.Sorted(maps.Keys(want)) {
		if said := want[destination].label(); labels[destination] != said {
			t.Errorf("%s: %q, not %q", destination, labels[destination], said)
		}
	}
}
