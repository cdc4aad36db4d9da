package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
)

// buttonOf selects what opens the drawer of a destination.
func buttonOf(destination string) string {
	return fmt.Sprintf(`[data-destination=%q] button`, destination)
}

// readConnections is an expression for the words about each connection in the open drawer, by
// its own address.
const readConnections = `Object.fromEntries([...document.querySelectorAll("[data-local]")].map(row => [row.dataset.local, row.textContent]))`

// expectConnections has an open drawer tell of the flows to a destination that have an
// address, and of no others.
func expectConnections(t *testing.T, b *tab, s *stage, destination string) {
	t.Helper()
	want := make(map[string]dialer.State)
	for _, f := range s.ledger.Flows() {
		if f.Remote.String() == destination && f.Local.IsValid() {
			want[f.Local.String()] = f.State
		}
	}
	must(t, b.await(fmt.Sprintf(`document.querySelectorAll("[data-local]").length === %d`, len(want))))
	told := shown[map[string]string](t, b, readConnections)
	for _, local := range slices.Sorted(maps.Keys(want)) {
		if !strings.Contains(told[local], want[local].String()) {
			t.Errorf("%s is %v, and the drawer says %q", local, want[local], told[local])
		}
	}
}

func TestADrawerTellsOfEachConnection(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	playEverything(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)
	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(busyAt)))))
	must(t, b.await(isOpen))
	expectConnections(t, b, s, busyAt)

	// It follows what happens while it is open.
	must(t, s.use("api.example.com:443", 1))
	s.putBack("api.example.com:443", 4)
	settled(t, b)
	must(t, b.await(fmt.Sprintf(`Object.values(%s).filter(words => words.includes("idle")).length === 8`, readConnections)))
	expectConnections(t, b, s, busyAt)
}
