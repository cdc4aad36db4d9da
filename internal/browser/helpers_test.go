package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/keepalive/netpath"
)

// need skips the test for want of what err says, or fails it where nothing may be skipped.
func need(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("NATWISE_LAB") == "must":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// newTab opens a browser for the test.
func newTab(t *testing.T, flags ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	b, err := open(flags...)
	if errors.Is(err, errNoChromium) {
		need(t, err)
	}
	must(t, err)
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Errorf("chromium did not end well: %v", err)
		}
	})
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// setUp returns an empty stage on a load balancer's path with this many ports.
func setUp(t *testing.T, ports int) *stage {
	t.Helper()
	s, err := newStage(netpath.AzureLoadBalancer(ports))
	must(t, err)
	t.Cleanup(s.close)
	return s
}

// A site is where a page is served.
type site struct {
	address string
	server  *http.Server
	ended   chan error
}

func (s *site) url() string { return "http://" + s.address + "/debug/natwise/" }

// serve serves a page until the test ends or stop is called.
func serve(t *testing.T, p *debug.Page) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return serveOn(t, ln, p)
}

func serveOn(t *testing.T, ln net.Listener, p *debug.Page) *site {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/debug/natwise/", p)
	return serveHandler(t, ln, mux)
}

func serveHandler(t *testing.T, ln net.Listener, h http.Handler) *site {
	t.Helper()
	s := &site{address: ln.Addr().String(), server: &http.Server{Handler: h}, ended: make(chan error, 1)}
	go func() { s.ended <- s.server.Serve(ln) }()
	t.Cleanup(s.stop)
	return s
}

// stop ends the server as a crash would, and returns when it has ended.
func (s *site) stop() {
	s.server.Close()
	if s.ended != nil {
		<-s.ended
	}
	s.ended = nil
}

// shown returns what an expression comes to in the page.
func shown[T any](t *testing.T, b *tab, expression string) T {
	t.Helper()
	v, err := eval[T](b, expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// visit opens a page and waits for what it shows first. The test fails if the page does
// something wrong that nobody has asked about in the end.
func visit(t *testing.T, b *tab, url string) {
	t.Helper()
	must(t, b.do(chromedp.Navigate(url)))
	must(t, b.await(`document.documentElement.dataset.updated`))
	t.Cleanup(func() { // before its server is stopped, which it would complain of
		expect(t, b)
		must(t, b.do(chromedp.Navigate("about:blank")))
	})
}

// expect fails the test for what the page has done wrong, but for what has to be so: of that
// it has one of these words.
func expect(t *testing.T, b *tab, words ...string) {
	t.Helper()
	for _, w := range b.wrong() {
		if !slices.ContainsFunc(words, func(word string) bool { return strings.Contains(w, word) }) {
			t.Errorf("the page: %s", w)
		}
	}
}

// settled waits until the page shows what was so when it was called.
func settled(t *testing.T, b *tab) {
	t.Helper()
	must(t, b.await(fmt.Sprint(`Number(document.documentElement.dataset.updated) >= `, time.Now().UnixMilli())))
}

func at(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }

// eventually waits for what happens in this process.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// marshal is v as JSON, and so as JavaScript: a string, a number, figures.
func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("browser: " + err.Error())
	}
	return string(b)
}

// tell prints what was measured, as one line of JSON.
func tell(t *testing.T, figures map[string]any) {
	t.Helper()
	fmt.Fprintln(t.Output(), marshal(figures))
}

func status(ok bool) string {
	if ok {
		return "ok"
	}
	return "missed"
}

// tenths is x with one decimal.
func tenths(x float64) float64 { return math.Round(x*10) / 10 }
