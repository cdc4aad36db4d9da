package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/natwise/natwise/httpx/debug"
)

// press presses one key after the other. A letter is typed by the same event that goes to the
// page before, as a keyboard's are, so that the page may keep it from being typed.
func press(t *testing.T, b *tab, keys string) {
	t.Helper()
	must(t, b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		for _, r := range keys {
			for _, e := range kb.Encode(r) {
				switch {
				case e.Type == kb.KeyChar:
					continue
				case e.Type == kb.KeyDown:
					e.Text = kb.Keys[r].Text
				}
				if _, err := chromedp.Call(ctx, input.DispatchKeyEvent, *e); err != nil {
					return err
				}
			}
		}
		return nil
	})))
}

const (
	isOpen    = `document.querySelector("[data-destination] button[aria-expanded=true]")`
	isClosed  = `!` + isOpen
	readRows  = `[...document.querySelectorAll("[data-destination]")].filter(row => row.checkVisibility()).map(row => row.dataset.destination)`
	inRow     = `document.activeElement.matches("[data-destination] button")`
	whichRow  = `document.activeElement.closest("[data-destination]")?.dataset.destination ?? ""`
	isPaused  = `document.querySelector("#pause[aria-pressed=true]")`
	updatedAt = `Number(document.documentElement.dataset.updated)`
)

func TestEverythingIsDoneByKeyboard(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	playEverything(t, s)
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)
	all := shown[[]string](t, b, readRows)

	press(t, b, "/")
	must(t, b.await(`document.activeElement.matches("input")`))
	press(t, b, "cache")
	must(t, b.await(readRows+`.length < `+fmt.Sprint(len(all))))
	if rows := shown[[]string](t, b, readRows); len(rows) != 1 || rows[0] != idleAt {
		t.Errorf("filtered by cache: %q", rows)
	}
	press(t, b, " /p") // are letters there
	if typed := shown[string](t, b, `document.activeElement.value`); typed != "cache /p" {
		t.Errorf("the filter has %q", typed)
	}
	for range len(" /p") {
		press(t, b, kb.Backspace)
	}
	must(t, b.await(readRows+`.length === 1`))

	tabTo(t, b, inRow)
	press(t, b, kb.Enter)
	must(t, b.await(isOpen))
	press(t, b, kb.Tab) // and goes on from there
	if shown[bool](t, b, inRow) {
		t.Error("Tab stays at the button")
	}
	press(t, b, kb.Escape)
	must(t, b.await(isClosed))
	if row := shown[string](t, b, whichRow); row != idleAt {
		t.Errorf("after Escape the focus is in row %q", row)
	}
}

// tabTo presses Tab until an expression is true of what has the focus.
func tabTo(t *testing.T, b *tab, there string) {
	t.Helper()
	for range 40 {
		press(t, b, kb.Tab)
		if shown[bool](t, b, there) {
			return
		}
	}
	t.Fatalf("Tab never comes to %s", there)
}

func TestPStopsTheUpdatesAndLetsThemGoOn(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 1))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)

	press(t, b, "p")
	must(t, b.await(isPaused))
	before := shown[float64](t, b, updatedAt)
	must(t, s.use(address, 1))
	must(t, b.await(fmt.Sprintf(`%s > %f + 2500`, now, shown[float64](t, b, now)))) // two updates would have come
	if after := shown[float64](t, b, updatedAt); after != before {
		t.Errorf("the page was updated %v ms after it was paused", after-before)
	}
	press(t, b, "p")
	must(t, b.await(`!`+isPaused))
	settled(t, b)
}

// readMoving is an expression for what has moved within two and a half seconds.
const readMoving = `new Promise(done => {
	const moving = new Set(), end = ` + now + ` + 2500;
	const look = () => {
		for (const a of document.getAnimations()) {
			if (a.playState === "running") moving.add((a.transitionProperty ?? a.animationName ?? "something") + " of " + a.effect.target.className);
		}
		` + now + ` > end ? done([...moving]) : requestAnimationFrame(look);
	};
	look();
})`

func TestNothingMovesForWhoeverPrefersThat(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 1))
	still := looks[2]
	still.still = true
	must(t, b.wear(still))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())

	must(t, s.use(address, 9))
	for _, moves := range shown[[]string](t, b, readMoving) {
		t.Errorf("it moves: %s", moves)
	}
	settled(t, b)

	shown[chromedp.Void](t, b, `void document.body.animate([{ opacity: .9 }, { opacity: 1 }], 5000)`)
	if len(shown[[]string](t, b, readMoving)) == 0 {
		t.Error("what moves is not found")
	}
}
