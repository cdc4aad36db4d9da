// Browser looks at the live page of httpx/debug with a real browser: its tests prove what the
// page shows, how soon, to whom, and how it feels; the program takes the pictures of it that
// the documentation has.
//
//	go -C internal/browser test ./...
//	go -C internal/browser run . -o ../../httpx/debug [-for 5m] [-all]
//
// It is a module of its own, so that what drives the browser is no dependency of natwise. It
// needs Chromium (apt-get install chromium); the tests also need axe-core, which they have
// from npm's registry, once, and keep in the user's cache. Where either is missing the tests
// that need it are skipped, unless the environment says NATWISE_LAB=must.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

func main() {
	args := os.Args[1:]
	os.Args[0] = "checkout" // whose page it is to be, in the pictures
	os.Exit(run(args, os.Stderr))
}

// run returns the exit status: 2 for bad arguments.
func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("browser", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("o", ".", "the `directory` for the pictures")
	lasts := flags.Duration("for", 5*time.Minute, "how long the demonstration runs before they are taken")
	all := flags.Bool("all", false, "take those that the documentation does not have, too: narrow, and with an open drawer")
	if flags.Parse(args) != nil {
		return 2
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil { // now, and not after five minutes
		fmt.Fprintln(stderr, "browser: -o:", err)
		return 2
	}
	wanted := pictures[:documented]
	if *all {
		wanted = pictures
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := take(ctx, *dir, wanted, *lasts); err != nil {
		fmt.Fprintln(stderr, "browser:", err)
		return 1
	}
	return 0
}

// A picture is one to be taken.
type picture struct {
	file string
	look look
	open bool // with the drawer of the first destination
}

const documented = 2 // pictures are in the documentation, the first ones

var pictures = []picture{
	{"page-light.png", look{width: 1440, height: 1000}, false},
	{"page-dark.png", look{width: 1440, height: 1000, dark: true}, false},
	{"page-light-narrow.png", look{width: 360, height: 740}, false},
	{"page-dark-narrow.png", look{width: 360, height: 740, dark: true}, false},
	{"page-light-open.png", look{width: 1440, height: 1000}, true},
	{"page-dark-narrow-open.png", look{width: 360, height: 740, dark: true}, true},
}

// take has a demonstration run for a while, and takes the pictures.
func take(ctx context.Context, dir string, pictures []picture, lasts time.Duration) error {
	d, err := play(lasts)
	if err != nil {
		return err
	}
	defer d.close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: &debug.Page{Ledger: d.stage.ledger}}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	defer func() { server.Close(); <-ended }()

	t, err := open(chromedp.Flag("hide-scrollbars", true))
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.do(chromedp.Navigate("http://" + ln.Addr().String() + "/")); err != nil {
		return err
	}
	select {
	case <-time.After(lasts):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, p := range pictures {
		if err := t.take(p, dir); err != nil {
			return fmt.Errorf("%s: %w", p.file, err)
		}
	}
	return nil
}

const (
	openDrawer = `document.querySelector("[data-destination] button[aria-expanded]").click()`
	nextUpdate = `new Promise(done => new MutationObserver((_, seen) => { seen.disconnect(); requestAnimationFrame(() => done(true)); })
		.observe(document.documentElement, { attributeFilter: ["data-updated"] }))`
)

// take takes a picture, just after an update.
func (t *tab) take(p picture, dir string) error {
	if err := t.wear(p.look); err != nil {
		return err
	}
	if !p.open {
		// Down to where the timelines end.
		end, err := eval[float64](t, `document.querySelector("#past").getBoundingClientRect().bottom + scrollY`)
		if err != nil {
			return err
		}
		p.look.height = int64(end) + 24
	}
	if err := t.wear(p.look); err != nil {
		return err
	}
	if p.open {
		if _, err := eval[chromedp.Void](t, openDrawer); err != nil {
			return err
		}
		defer eval[chromedp.Void](t, openDrawer)
	}
	for range 2 { // the first may have begun before
		if _, err := eval[bool](t, nextUpdate); err != nil {
			return err
		}
	}
	var taken []byte
	err := within(t, func(ctx context.Context) (err error) {
		taken, err = chromedp.Run(ctx, chromedp.CaptureScreenshot())
		return err
	})
	if err != nil {
		return err
	}
	small, err := shrink(taken)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, p.file), small, 0o644)
}
