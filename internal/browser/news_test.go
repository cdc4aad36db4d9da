package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

// A stall is a listener what is written to whose connections vanishes while it is on, as where a
// tunnel has lost its far end.
type stall struct {
	net.Listener
	on atomic.Bool
}

type stalled struct {
	net.Conn
	by *stall
}

func (s *stall) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	return stalled{c, s}, err
}

func (c stalled) Write(b []byte) (int, error) {
	if c.by.on.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

const (
	isLost  = `document.querySelector("#status[data-is=lost]")`
	isLive  = `document.querySelector("#status[data-is=live]")`
	isFaded = `getComputedStyle(document.querySelector("main")).filter !== "none"`
)

func TestWhatIsOldDoesNotLookLive(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	playEverything(t, s)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	silent := &stall{Listener: ln}
	visit(t, b, serveOn(t, silent, &debug.Page{Ledger: s.ledger}).url())
	learn()
	settled(t, b)
	must(t, b.await(isLive+` && !(`+isFaded+`)`))

	silent.on.Store(true)
	must(t, b.await(isLost+` && `+isFaded))
	since := shown[string](t, b, `clock(`+updatedAt+`)`)
	if said := shown[string](t, b, readStatus); said != "No news since "+since+", trying again" {
		t.Errorf("it says %q, and what it shows is of %s", said, since)
	}
	if title := shown[string](t, b, `document.title`); !strings.HasPrefix(title, "no news · ") {
		t.Errorf("the tab says %q", title)
	}
	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(busyAt)))))
	must(t, b.await(`document.querySelector(".facts").textContent === "Its connections could not be asked for."`))
	audit(t, b, "old")

	silent.on.Store(false)
	must(t, b.await(isLive+` && !(`+isFaded+`)`))
	settled(t, b)
	expect(t, b, "net::ERR_")
}

func TestWhereNoEventsGetThroughThePageAsks(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	must(t, s.use(s.name("api.example.com", at(busyAt)), 3))
	page := &debug.Page{Ledger: s.ledger}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	site := serveHandler(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "events") { // what stands between keeps them until they end
			<-r.Context().Done()
			return
		}
		page.ServeHTTP(w, r)
	}))
	must(t, b.do(chromedp.Navigate(site.url())))
	if claims := shown[[]string](t, b, `[...document.querySelectorAll("main > *")].filter(e => e.checkVisibility()).map(e => e.id)`); len(claims) != 1 || claims[0] != "first" {
		t.Errorf("before it knows anything it shows %q", claims)
	}
	visit(t, b, site.url())
	if said := shown[string](t, b, readStatus); said != "Every 5 s: no events get through" {
		t.Errorf("it says %q", said)
	}
	first := shown[float64](t, b, updatedAt)
	must(t, b.await(fmt.Sprintf(`%s > %f`, updatedAt, first)))
	must(t, b.await(isLive))
}

// A bare ResponseWriter is as most middleware has it: nobody can flush it.
type bare struct{ http.ResponseWriter }

func TestBehindAMiddlewareThatCannotFlushThePageIsLive(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 1))
	page := &debug.Page{Ledger: s.ledger}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	visit(t, b, serveHandler(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page.ServeHTTP(bare{w}, r)
	})).url())
	for n := range 3 {
		must(t, s.use(address, 1))
		must(t, b.await(fmt.Sprintf(`document.querySelector('[data-active="%d"]')`, n+2)))
		if said := shown[string](t, b, readStatus); said != "Live" {
			t.Errorf("it says %q", said)
		}
	}
}

const readPorts = `document.querySelector("#charts figure output").textContent`

func TestWhatIsPausedShowsThatMoment(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 3))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	learn()
	settled(t, b)
	must(t, b.do(chromedp.Click(chromedp.CSS("#pause"))))
	before := shown[string](t, b, readPorts)
	must(t, s.use(address, 20))
	must(t, b.await(fmt.Sprintf(`%s > %f + 3500`, now, shown[float64](t, b, now)))) // three updates have come

	must(t, b.do(chromedp.Click(chromedp.CSS(`[data-minutes="1"]`)))) // which draws the charts
	must(t, b.await(`[...document.querySelectorAll("#charts text")].some(e => e.textContent === "1 min ago")`))
	if after := shown[string](t, b, readPorts); after != before {
		t.Errorf("of the moment it says %q, and later %q", before, after)
	}
	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(busyAt)))))
	must(t, b.await(`document.querySelector(".facts").textContent.startsWith("as it was at")`))
	if title := shown[string](t, b, `document.title`); !strings.HasPrefix(title, "paused · ") {
		t.Errorf("the tab says %q", title)
	}
	audit(t, b, "paused")

	must(t, b.do(chromedp.Click(chromedp.CSS("#pause"))))
	must(t, b.await(readPorts+`.startsWith("23 active")`))
	if path := shown[string](t, b, `document.querySelector("#charts svg path.area-active").getAttribute("d")`); strings.Count(path, "M") != 1 {
		t.Errorf("the past has a gap: %s", path)
	}
}

func TestALinkOnAnotherSiteLeadsToThePage(t *testing.T) {
	b := newTab(t)
	site := serve(t, &debug.Page{Ledger: setUp(t, ports).ledger})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	other := serveHandler(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><link rel=icon href=data:,><a href="%s">ports</a>`, site.url())
	}))
	_, port, err := net.SplitHostPort(other.address)
	must(t, err)
	must(t, b.do(chromedp.Navigate("http://localhost:"+port+"/"))) // another name is another site
	must(t, b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		answer, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS("a")))
		if err == nil && answer.Status != http.StatusOK {
			t.Errorf("the link leads to %d", answer.Status)
		}
		return err
	})))
	must(t, b.await(`document.documentElement.dataset.updated`))
	must(t, b.do(chromedp.Navigate("about:blank")))
}

func TestWhereSixteenOthersLookThePageAsksUntilOneLeaves(t *testing.T) {
	b := newTab(t)
	site := serve(t, &debug.Page{Ledger: setUp(t, ports).ledger})
	var others []*http.Response
	for range 16 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.url()+"events", nil)
		must(t, err)
		other, err := http.DefaultClient.Do(r)
		must(t, err)
		defer other.Body.Close()
		others = append(others, other)
	}
	visit(t, b, site.url())
	if said := shown[string](t, b, readStatus); said != "Every 5 s: many others look" {
		t.Errorf("it says %q", said)
	}
	first := shown[float64](t, b, updatedAt)
	must(t, b.await(fmt.Sprintf(`%s > %f`, updatedAt, first)))
	if said := shown[string](t, b, readStatus); said != "Every 5 s: many others look" {
		t.Errorf("later it says %q", said)
	}
	others[0].Body.Close()
	must(t, b.await(readStatus+` === "Live"`))
	expect(t, b, "503")
}
