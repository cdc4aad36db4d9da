package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

// hostile are names that want to be more than text.
var hostile = []string{
	`<script>alert(1)</script>`,
	`" onerror=alert(2) x="`,
	`'><img src=x onerror=alert(3)>`,
	`</script><svg onload=alert(4)>`,
	`&lt;b&gt;`,
	turn + "gro.elpmaxe" + turnBack,
	"мир.例え.مثال.🧭",
	strings.Repeat("very-long-label-", 15) + ".example",
}

// Characters that nobody sees, but by what they do to their neighbours.
const turn, turnBack = "\u202e", "\u202c"

var inert = strings.NewReplacer(turn, "\ufffd", turnBack, "\ufffd")

// A document is what it consists of, besides text.
type document struct {
	Scripts, Images, Handlers int
	Text                      string
}

const readDocument = `({
	scripts: document.scripts.length,
	images: document.images.length,
	handlers: [...document.querySelectorAll("*")].filter(e => [...e.attributes].some(a => a.name.startsWith("on"))).length,
	text: document.body.textContent,
})`

func TestThePolicyStopsWhatTheNamesWouldWant(t *testing.T) {
	b := newTab(t)
	visit(t, b, serve(t, &debug.Page{Ledger: setUp(t, ports).ledger}).url())
	if shown[bool](t, b, `(() => {
		const script = document.createElement("script");
		script.textContent = "window.hasRun = true";
		document.body.append(script);
		document.body.insertAdjacentHTML("beforeend", '<img src="http://127.0.0.1:9/x.png" onerror="window.hasRun = true">');
		return "hasRun" in window;
	})()`) {
		t.Error("an inline script has run")
	}
	var heard []string
	eventually(t, "the browser tells of three violations", func() bool {
		heard = append(heard, b.wrong()...)
		return violations(heard) >= 3 // the script, the image, its handler
	})
}

func violations(heard []string) (n int) {
	for _, w := range heard {
		if strings.Contains(w, "policy: ") {
			n++
		}
	}
	return n
}

// playHostile has a connection to each of the hostile names, and a warning about it.
func playHostile(t *testing.T, s *stage) {
	t.Helper()
	for i, name := range hostile {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i)}), 443)
		must(t, s.use(s.name(name, to), 1))
		s.ledger.Telemetry().Warn("refused", name, "%s", name)
	}
}

// expectAsText has every hostile name be in a text, but for what turns others around.
func expectAsText(t *testing.T, text string) {
	t.Helper()
	for _, name := range hostile {
		if name = inert.Replace(name); !strings.Contains(text, name) {
			t.Errorf("not on the page: %q", name)
		}
	}
	if strings.Contains(text, turn) {
		t.Error("a name may turn around what stands beside it")
	}
}

func TestHostileNamesStayText(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	s.ledger.Name = hostile[0]
	site := serve(t, &debug.Page{Ledger: s.ledger})
	visit(t, b, site.url())
	before := shown[document](t, b, readDocument)

	playHostile(t, s)
	settled(t, b)
	must(t, b.do(chromedp.Click(chromedp.CSS("[data-destination] button")))) // a name stands there, too
	must(t, b.await(`document.querySelector("[data-local]")`))

	after := shown[document](t, b, readDocument)
	if after.Scripts != before.Scripts || after.Images != before.Images || after.Handlers != 0 {
		t.Errorf("there are %d scripts, %d images, %d handlers; there were %d scripts and %d images",
			after.Scripts, after.Images, after.Handlers, before.Scripts, before.Images)
	}
	expectAsText(t, after.Text)
	must(t, b.wear(looks[0]))
	for _, wide := range shown[[]string](t, b, readSideways) {
		t.Errorf("with long names: %s", wide)
	}
	for _, url := range b.requests() {
		if !strings.HasPrefix(url, site.url()) {
			t.Errorf("the page has asked for %s", url)
		}
	}
}

func TestHostileNamesStayTextInAFrozenPage(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	s.ledger.Name = hostile[3] // ends a script
	playHostile(t, s)
	visit(t, b, freeze(t, &debug.Page{Ledger: s.ledger}))
	d := shown[document](t, b, readDocument)
	if d.Scripts != 2 || d.Images != 0 || d.Handlers != 0 { // the data, and the page's own
		t.Errorf("there are %d scripts, %d images, %d handlers", d.Scripts, d.Images, d.Handlers)
	}
	expectAsText(t, d.Text)
}
