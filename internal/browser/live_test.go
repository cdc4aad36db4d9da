package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/natwise/natwise/httpx/debug"
)

const atMost = 1500 * time.Millisecond // until a change is seen

// now is an expression for the browser's clock, in ms since 1970: that of the wall when the
// page was opened, and one that never jumps since then.
const now = `(performance.timeOrigin + performance.now())`

// ahead is how far the browser's clock is ahead of ours, to within half the time that asking
// takes.
func ahead(t *testing.T, b *tab) (by, within time.Duration) {
	t.Helper()
	before := time.Now()
	theirs := shown[float64](t, b, now)
	took := time.Since(before)
	return time.UnixMicro(int64(theirs * 1000)).Sub(before.Add(took / 2)), took / 2
}

// delay has one more connection to address be used, which has n in use, and returns how much
// later the page has shown that.
func delay(t *testing.T, b *tab, s *stage, address, destination string, n int) time.Duration {
	t.Helper()
	offset, _ := ahead(t, b)
	began := time.Now()
	must(t, s.use(address, 1))
	at := shown[float64](t, b, fmt.Sprintf(`new Promise(done => {
		const row = () => document.querySelector('[data-destination=%s] [data-active]');
		const look = () => row()?.dataset.active === "%d" ? done(%s) : requestAnimationFrame(look);
		look();
	})`, marshal(destination), n+1, now))
	return time.UnixMicro(int64(at*1000)).Sub(began) - offset
}

func TestAChangeIsSeenWithinOneAndAHalfSeconds(t *testing.T) {
	b := newTab(t)
	s := setUp(t, 128)
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 1))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())

	var delays []time.Duration
	for i := range 8 {
		// At another moment between two updates each time: a change that comes just after
		// one waits for longest.
		phase := fmt.Sprintf(`Math.floor(%s %% 1000 / 125) === %d`, now, i)
		must(t, b.await(phase))
		delays = append(delays, delay(t, b, s, address, busyAt, i+1))
	}
	slices.Sort(delays)
	offset, within := ahead(t, b)
	tell(t, map[string]any{
		"bench": "browser", "figure": "delay", "changes": len(delays),
		"ours_p50_ms": delays[len(delays)/2].Milliseconds(), "ours_max_ms": delays[len(delays)-1].Milliseconds(),
		"clocks_apart_ms": offset.Milliseconds(), "clocks_within_ms": within.Milliseconds(),
		"bound": fmt.Sprintf("max at most %v", atMost), "status": status(delays[len(delays)-1] <= atMost),
	})
	if delays[len(delays)-2] > atMost { // one alone is a matter of the machine, too
		t.Errorf("changes were seen after more than %v: %v", atMost, delays)
	}
}

const readStatus = `document.querySelector("#status").textContent.trim()`

// readPast is an expression for how long the path is that the first timeline draws: it grows with
// each moment that is remembered.
const readPast = `document.querySelector("#charts svg path[class*=area]").getAttribute("d").length`

func TestThePageGoesOnWhenTheServerComesBack(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	address := s.name("api.example.com", at(busyAt))
	must(t, s.use(address, 3))
	site := serve(t, &debug.Page{Ledger: s.ledger})
	visit(t, b, site.url())
	settled(t, b)
	live, before, past := shown[string](t, b, readStatus), shown[map[string]bar](t, b, readBars), shown[int](t, b, readPast)

	site.stop()
	must(t, b.await(readStatus+` !== `+marshal(live)))
	t.Logf("status: %q, and without the server %q", live, shown[string](t, b, readStatus))
	if after := shown[map[string]bar](t, b, readBars); !maps.Equal(after, before) {
		t.Errorf("without the server the page shows %v, before it was %v", after, before)
	}

	must(t, s.use(address, 2))
	ln, err := net.Listen("tcp", site.address)
	must(t, err)
	serveOn(t, ln, &debug.Page{Ledger: s.ledger}) // another process would have another page
	must(t, b.await(readStatus+` === `+marshal(live)))
	settled(t, b)
	if after, want := shown[map[string]bar](t, b, readBars), booked(s.ledger); !maps.Equal(after, want) {
		t.Errorf("the server is back, and the page shows %v instead of %v", after, want)
	}
	if after := shown[int](t, b, readPast); after <= past {
		t.Errorf("the timeline had %d letters, and has %d", past, after)
	}
	expect(t, b, "net::ERR_", "503")
}

func TestThePageGoesOnAfterAProxyHasSaidThatTheServerIsAway(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	must(t, s.use(s.name("api.example.com", at(busyAt)), 3))
	site := serve(t, &debug.Page{Ledger: s.ledger})
	visit(t, b, site.url())
	live := shown[string](t, b, readStatus)

	site.stop()
	ln, err := net.Listen("tcp", site.address)
	must(t, err)
	asked := make(chan bool, 100)
	away := serveHandler(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable) // after which an EventSource never asks again by itself
		asked <- true
	}))
	<-asked
	must(t, b.await(readStatus+` !== `+marshal(live)))
	away.stop()

	ln, err = net.Listen("tcp", site.address)
	must(t, err)
	serveOn(t, ln, &debug.Page{Ledger: s.ledger})
	must(t, b.await(readStatus+` === `+marshal(live)))
	settled(t, b)
	expect(t, b, "net::ERR_", "503")
}
