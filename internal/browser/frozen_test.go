package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

// freeze writes a page to a file, and returns its URL.
func freeze(t *testing.T, p *debug.Page) (url string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "page.html")
	f, err := os.Create(file)
	must(t, err)
	must(t, p.WriteHTML(f))
	must(t, f.Close())
	return "file://" + file
}

func TestTheFrozenPageShowsTheSameWithoutANetwork(t *testing.T) {
	b := newTab(t, chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND"))
	s := setUp(t, ports)
	want := playEverything(t, s)
	url := freeze(t, &debug.Page{Ledger: s.ledger})
	visit(t, b, url)
	if bars := shown[map[string]bar](t, b, readBars); !maps.Equal(bars, want) {
		t.Errorf("the file shows\n\t%v, the ledger holds\n\t%v", bars, want)
	}
	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(busyAt)))))
	must(t, b.await(isOpen))
	expectConnections(t, b, s, busyAt)
	for _, asked := range b.requests() {
		if asked != url {
			t.Errorf("the file has asked for %s", asked)
		}
	}
}
