package main

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

// answered is the status of what a browser gets at url.
func answered(t *testing.T, b *tab, url string) (status int64) {
	t.Helper()
	must(t, b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		answer, err := chromedp.Run(ctx, chromedp.NavigateResponse(url))
		if err == nil {
			status = answer.Status
		}
		return err
	})))
	return status
}

func TestAForeignHostIsRefused(t *testing.T) {
	// As an attacker's name server would have it, once the attacker's script is there.
	b := newTab(t, chromedp.Flag("host-resolver-rules", "MAP attacker.example 127.0.0.1"))
	s := setUp(t, ports)
	site := serve(t, &debug.Page{Ledger: s.ledger})

	if status := answered(t, b, site.url()); status != http.StatusOK {
		t.Errorf("by its address: %d", status)
	}
	_, port, err := net.SplitHostPort(site.address)
	must(t, err)
	foreign := "http://attacker.example:" + port + "/debug/natwise/"
	for _, url := range []string{foreign, foreign + "?format=json", foreign + "?format=text", foreign + "events"} {
		if status := answered(t, b, url); status != http.StatusForbidden {
			t.Errorf("%s: %d", url, status)
		}
	}
	expect(t, b, "403", "favicon.ico")
}

// A farListener has connections come from another machine.
type farListener struct{ net.Listener }

type farConn struct{ net.Conn }

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return farConn{c}, err
}

func (c farConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000}
}

func TestAnotherMachineIsRefused(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	site := serveOn(t, farListener{ln}, &debug.Page{Ledger: s.ledger})

	for _, what := range []string{"", "?format=json", "?format=text", "events", "page.js"} {
		if status := answered(t, b, site.url()+what); status != http.StatusForbidden {
			t.Errorf("%s: %d", site.url()+what, status)
		}
	}
	expect(t, b, "403", "favicon.ico")
}

func TestAnotherSitesPageGetsNothing(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	page := &debug.Page{Ledger: s.ledger}
	statuses := make(chan int, 10)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	site := serveHandler(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noted := &noted{ResponseWriter: w, status: http.StatusOK}
		page.ServeHTTP(noted, r)
		statuses <- noted.status
	}))
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	other := serveHandler(t, elsewhere, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><link rel=icon href=data:,>"))
	}))

	_, port, err := net.SplitHostPort(other.address)
	must(t, err)
	must(t, b.do(chromedp.Navigate("http://localhost:"+port+"/"))) // another name is another site
	for _, what := range []string{"?format=json", "events"} {
		if shown[bool](t, b, `fetch(`+marshal(site.url()+what)+`, {mode: "no-cors"}).then(() => true, () => false)`) {
			t.Errorf("another site's script has got %s", what)
		}
		if status := <-statuses; status != http.StatusForbidden {
			t.Errorf("%s: %d", what, status)
		}
	}
	expect(t, b, "NotSameOrigin")
}

// A noted is a ResponseWriter that remembers its status.
type noted struct {
	http.ResponseWriter
	status int
}

func (n *noted) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }
