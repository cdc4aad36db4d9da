package main

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

// looks are those that everything is looked at with.
var looks = []look{
	{width: 360, height: 740}, {width: 360, height: 740, dark: true},
	{width: 1440, height: 1000}, {width: 1440, height: 1000, dark: true},
}

// runAxe is an expression for what axe-core finds, a line each.
const runAxe = `axe.run(document, { resultTypes: ["violations"] }).then(found => found.violations.flatMap(rule =>
	rule.nodes.map(node => rule.id + ": " + rule.help + ": " + node.target.join(" ") + ": " +
		[...node.any, ...node.all, ...node.none].map(why => why.message).join("; "))))`

// readSideways is one for what is wider than its place, or can be scrolled sideways.
const readSideways = `(() => {
	const name = e => e.tagName.toLowerCase() + (e.id && "#" + e.id) + [...e.classList].map(c => "." + c).join("");
	const root = document.documentElement, found = [];
	if (root.scrollWidth > root.clientWidth) found.push("the page: " + root.scrollWidth + " in " + root.clientWidth + " px");
	for (const e of document.body.querySelectorAll("*")) {
		const scrolls = ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.tagName !== "INPUT";
		if (scrolls && e.scrollWidth > e.clientWidth) found.push(name(e) + " scrolls: " + e.scrollWidth + " in " + e.clientWidth + " px");
	}
	return found;
})()`

// readCut is one for words that are cut, but for those that can be as long as somebody likes.
const readCut = `[...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && e.children.length === 0 &&
	!e.closest(".connections, .hidden") && e.textContent.length < 100 && getComputedStyle(e).overflow === "hidden" &&
	(e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)).map(e => e.className + ": " + e.textContent)`

// expectWhole has no words be cut at any width.
func expectWhole(t *testing.T, b *tab, what string) {
	t.Helper()
	for _, width := range []int64{360, 700, 1024, 1341, 1440} {
		must(t, b.wear(look{width: width, height: 1000}))
		for _, cut := range shown[[]string](t, b, readCut) {
			t.Errorf("%s, %d px: it is cut: %s", what, width, cut)
		}
	}
}

// audit looks at what the page shows now, with all looks.
func audit(t *testing.T, b *tab, what string) {
	t.Helper()
	for _, l := range looks {
		must(t, b.wear(l))
		for _, violation := range shown[[]string](t, b, runAxe) {
			t.Errorf("%s, %v: %s", what, l, violation)
		}
		for _, cut := range shown[[]string](t, b, readCut) {
			t.Errorf("%s, %v: it is cut: %s", what, l, cut)
		}
		for _, wide := range shown[[]string](t, b, readSideways) {
			t.Errorf("%s, %v: %s", what, l, wide)
		}
	}
}

// newTabWithAxe opens a browser; learn gives the page that it shows axe-core.
func newTabWithAxe(t *testing.T) (b *tab, learn func()) {
	t.Helper()
	script, err := axe(t.Context())
	need(t, err)
	b = newTab(t)
	return b, func() {
		t.Helper()
		shown[chromedp.Void](t, b, script)
		if v := shown[string](t, b, `axe.version`); v != axeVersion {
			t.Fatalf("axe-core is %s", v)
		}
	}
}

func TestAxeFindsNothing(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	playEverything(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	learn()
	settled(t, b)
	audit(t, b, "the list")

	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(busyAt)))))
	must(t, b.await(isOpen))
	audit(t, b, "with an open drawer")
}

func TestAxeFindsNothingWhereNothingIsBooked(t *testing.T) {
	b, learn := newTabWithAxe(t)
	visit(t, b, serve(t, &debug.Page{Ledger: setUp(t, ports).ledger}).url())
	learn()
	audit(t, b, "empty")
	if n := shown[int](t, b, `document.querySelectorAll("[data-destination]").length`); n != 0 {
		t.Errorf("%d rows in an empty ledger", n)
	}
}

func TestAxeFindsSomethingWhereThereIs(t *testing.T) {
	b, learn := newTabWithAxe(t)
	must(t, b.do(chromedp.Navigate(`data:text/html,<link rel=icon href=data:,><body style="width:500px;color:%23aaa;background:%23fff">pale<button></button>`)))
	learn()
	must(t, b.wear(looks[0]))
	if found := shown[[]string](t, b, runAxe); len(found) < 3 {
		t.Errorf("only %q", found)
	}
	if wide := shown[[]string](t, b, readSideways); len(wide) == 0 {
		t.Error("the page is not found too wide")
	}
}
