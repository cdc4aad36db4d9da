package main

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
)

const (
	deadAt    = "198.51.100.99:8443" // answers no SYN
	privateAt = "10.11.12.13:80"     // nor does this, which no NAT counts
)

// playTrouble has dials fail to what has a row and to what has none, and returns the verdicts
// by what was dialed.
func playTrouble(t *testing.T, s *stage) map[string]string {
	t.Helper()
	must(t, s.rest(s.name("cache.example.com", at(idleAt)), 6))
	dead, private := s.name("dead.example.com", at(deadAt)), s.name("inside.example.com", at(privateAt))
	want := map[string]string{dead: "path-down", private: "path-down", "typo.exmaple.com:443": "dns"}
	s.silence(at(deadAt))
	s.silence(at(privateAt))
	for address := range want {
		for range 3 { // one would not be enough to know
			s.live.Go(func() { s.try(address, 1500*time.Millisecond) })
		}
	}
	eventually(t, "every dial fails", func() bool {
		got := make(map[string]string)
		for _, d := range s.ledger.Diagnoses() {
			got[d.Host] = d.Verdict.String()
		}
		return maps.Equal(got, want)
	})
	return want
}

// readTroubles is an expression for what is told of troubles, by what they are about: the
// destination of the row above, or a name of their own.
const readTroubles = `Object.fromEntries([...document.querySelectorAll("tr.trouble")].map(t => [
	t.querySelector("th") ? t.querySelector("th .first").textContent : t.previousElementSibling.dataset.destination,
	t.dataset.verdict + ": " + t.querySelector("td").textContent]))`

func TestWhatIsInTroubleIsToldFirst(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	playTrouble(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)

	told := shown[map[string]string](t, b, readTroubles)
	for about, verdict := range map[string]string{deadAt: "path-down: ", "inside.example.com": "path-down: ", "typo.exmaple.com": "dns: "} {
		if !strings.HasPrefix(told[about], verdict) || !strings.Contains(told[about], " ago.") {
			t.Errorf("of %s: %q", about, told[about])
		}
	}
	if len(told) != 3 || !strings.Contains(told[deadAt], "SYNs not answered") || !strings.Contains(told[deadAt], "Look at firewalls") {
		t.Errorf("the page tells %q", told)
	}
	if first := shown[string](t, b, `document.querySelector("[data-destination]").dataset.destination`); first != deadAt {
		t.Errorf("the first row is that of %s", first)
	}
	if said := shown[string](t, b, `document.getElementById(document.querySelector("[data-destination] button").getAttribute("aria-describedby")).textContent`); !strings.HasPrefix(said, "path-down ") {
		t.Errorf("the button of the first row is described as %q", said)
	}
	if tile := shown[string](t, b, `[...document.querySelectorAll("#tiles > div")].find(t => t.textContent.startsWith("In trouble")).textContent`); !strings.HasPrefix(tile, "In trouble3") {
		t.Errorf("the tile says %q", tile)
	}

	s.heal(at(deadAt))
	s.heal(at(privateAt))
	for _, address := range []string{"dead.example.com:8443", "inside.example.com:80"} {
		must(t, s.try(address, patience))
	}
	must(t, b.await(`!document.querySelector("tr.trouble[data-verdict=path-down]")`))
}

// playHairpins has a balancer map dials back to this host: one with a row, and one for each of
// the hostile names without. Their evidence is as hostile.
func playHairpins(t *testing.T, s *stage) {
	t.Helper()
	for i, name := range append([]string{"balancer.example.com"}, hostile...) {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 11, 12, byte(i)}), 80)
		if i == 0 {
			to = at(deadAt)
		}
		// As a dialer has it that the stage's dials by: to find it out takes a kernel of one's own.
		s.fail(to, &dialer.DialError{Verdict: dialer.Hairpin, Evidence: name, Err: errors.New("no answer")})
		if err := s.try(s.name(name, to), patience); dialer.VerdictOf(err) != dialer.Hairpin {
			t.Fatalf("%q: %v", name, err)
		}
	}
}

func TestHostileEvidenceStaysText(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	playEverything(t, s)
	playHairpins(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)
	if d := shown[document](t, b, readDocument); d.Scripts != 1 || d.Images != 0 || d.Handlers != 0 {
		t.Errorf("there are %d scripts, %d images, %d handlers", d.Scripts, d.Images, d.Handlers)
	}
	for _, part := range []string{".evidence", ".first"} {
		expectAsText(t, shown[string](t, b, `[...document.querySelectorAll("tr.trouble `+part+`")].map(e => e.textContent).join(" ")`))
	}
	if n := shown[int](t, b, `document.querySelectorAll("tr.trouble[data-verdict=hairpin]").length`); n != 1+len(hostile) {
		t.Errorf("%d hairpins are shown", n)
	}
	learn()
	audit(t, b, "hairpins")
	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(deadAt)))))
	must(t, b.await(isOpen))
	if !shown[bool](t, b, `document.querySelector("tr.drawer").previousElementSibling.matches("tr.trouble")`) {
		t.Error("the drawer is not below the trouble")
	}
	audit(t, b, "hairpins, with an open drawer")
}

func TestHostileEvidenceStaysTextInAFrozenPage(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	playHairpins(t, s)
	visit(t, b, freeze(t, &debug.Page{Ledger: s.ledger}))
	d := shown[document](t, b, readDocument)
	if d.Scripts != 2 || d.Images != 0 || d.Handlers != 0 {
		t.Errorf("there are %d scripts, %d images, %d handlers", d.Scripts, d.Images, d.Handlers)
	}
	expectAsText(t, shown[string](t, b, `[...document.querySelectorAll("tr.trouble .evidence")].map(e => e.textContent).join(" ")`))
}

func TestAxeFindsNothingWhereDialsFail(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	playTrouble(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	learn()
	settled(t, b)
	audit(t, b, "in trouble")
}
