package main

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/keepalive/netpath"
)

// setUpOn returns an empty stage on a path.
func setUpOn(t *testing.T, path netpath.Profile) *stage {
	t.Helper()
	s, err := newStage(path)
	must(t, err)
	t.Cleanup(s.close)
	return s
}

// readTiles is an expression for what the tiles say, by their names.
const readTiles = `Object.fromEntries([...document.querySelectorAll("#tiles > div")].map(t => [t.children[0].textContent, t.children[1].textContent + ": " + t.children[2].textContent]))`

// cool has ports to two destinations cool, those to the first of them for longer, and a third one
// be the fullest.
func cool(t *testing.T, s *stage) {
	t.Helper()
	must(t, s.finish(s.name("db.example.com", at(fullAt)), 9))
	busy := s.name("api.example.com", at(busyAt))
	must(t, s.abort(busy, 3))
	must(t, s.use(busy, 5))
	must(t, s.use(s.name("cache.example.com", at(idleAt)), 20))
}

func TestTheNextPortIsThatOfAnyDestination(t *testing.T) {
	for name, path := range map[string]netpath.Profile{
		"nobody knows the limit": {Hold: netpath.AzureLoadBalancer(ports).Hold}, "a load balancer": netpath.AzureLoadBalancer(ports), "functions": netpath.AzureFunctions(),
	} {
		t.Run(name, func(t *testing.T) {
			b := newTab(t)
			s := setUpOn(t, path)
			cool(t, s)
			visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
			settled(t, b)
			said := shown[map[string]string](t, b, readTiles)
			next := said["Next port free in"]
			if !strings.Contains(next, " s: to api.example.com; the last in 2") {
				t.Errorf("the tile says %q", next)
			}
			if taken := said["Ports taken"]; !strings.HasSuffix(taken, "12 of them cooling") {
				t.Errorf("and the one beside it %q", taken)
			}
			if title := shown[string](t, b, `document.querySelector("#destinations-title").textContent`); title != "3 destinations" {
				t.Errorf("there are %s", title)
			}
			expectWhole(t, b, name)
		})
	}
}

func TestTheZeroLedgersPageIsWhole(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUpOn(t, netpath.Profile{})
	cool(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	learn()
	settled(t, b)
	if memory := shown[string](t, b, `document.querySelector('[data-label="Path forgets"]').textContent`); memory != "230 sassumed" {
		t.Errorf("the path forgets after %q", memory)
	}
	audit(t, b, "the zero ledger")
}

func TestWhereEveryDialIsRefusedNothingElseIsClaimed(t *testing.T) {
	b, learn := newTabWithAxe(t)
	l := &dialer.Ledger{Path: netpath.Profile{Limits: []netpath.Limit{{N: -7}}}}
	visit(t, b, serve(t, &debug.Page{Ledger: l}).url())
	learn()
	settled(t, b)
	if tile := shown[map[string]string](t, b, readTiles)["In trouble"]; tile != "1: every dial is refused" {
		t.Errorf("the tile says %q", tile)
	}
	if shown[bool](t, b, `document.querySelector("#quiet").checkVisibility()`) {
		t.Error("there is nothing to warn of")
	}
	audit(t, b, "a path that is none")
}

func TestWhatPacketsDoIsSaidOfConnectionsAlone(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	playTrouble(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)
	if said := shown[string](t, b, readTiles+`["Black holes"]`); said != "0: no connection has gone dark" {
		t.Errorf("beside a path that is down: %q", said)
	}
	expectWhole(t, b, "in trouble")
}

func TestShadowSaysFirstWhatItIsFor(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, 16)
	s.ledger.Shadow = true
	s.nat.Path = netpath.AzureLoadBalancer(1024) // which has more
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 25))
	must(t, s.finish(address, 3))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	learn()
	settled(t, b)
	if words := shown[string](t, b, `document.querySelector(".numbers").textContent`); !strings.HasPrefix(words, "28 of 1612 dials would have waited") {
		t.Errorf("the row says %q", words)
	}
	if tile := shown[map[string]string](t, b, readTiles)["Would have waited"]; !strings.HasPrefix(tile, "12: ") {
		t.Errorf("the tile says %q", tile)
	}
	audit(t, b, "shadow")
}

func TestAFrozenPageIsForEverybodyToo(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	playEverything(t, s)
	visit(t, b, freeze(t, &debug.Page{Ledger: s.ledger}))
	learn()
	audit(t, b, "frozen")
	if footer := shown[string](t, b, `document.querySelector("footer").innerText`); strings.Contains(footer, "pause") {
		t.Errorf("what cannot be paused offers it: %q", footer)
	}
}

func TestLettersDoNothingForWhoeverSaysSo(t *testing.T) {
	b := newTab(t)
	visit(t, b, serve(t, &debug.Page{Ledger: setUp(t, ports).ledger}).url())
	must(t, b.do(chromedp.Click(chromedp.CSS("#keys"))))
	for range 2 { // it is remembered
		press(t, b, "p/")
		if shown[bool](t, b, isPaused+` !== null || document.activeElement.matches("input[type=search]")`) {
			t.Error("a letter does something")
		}
		must(t, b.do(chromedp.Reload()))
		must(t, b.await(`document.documentElement.dataset.updated`))
	}
}
