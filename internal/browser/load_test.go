package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/httpx/debug"
)

const (
	manyDestinations = 500
	manyConnections  = 2000

	rounds    = 5
	roundLast = 2 * time.Second
	frameMost = 50.0  // ms, of the 95th percentile
	hopeless  = 5     // times a bound, and nobody could use it
	drawnMost = 100.0 // ms, of those that draw an update: 1 of 60, so that it is no percentile of all
)

// crowd fills a stage with many destinations, and returns their addresses.
func crowd(t *testing.T, s *stage) (addresses []string) {
	t.Helper()
	const each = manyConnections / manyDestinations
	for i := range manyDestinations {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(113 + i/250), byte(1 + i%250)}), 443)
		address := s.name(fmt.Sprintf("host-%03d.example.com", i), to)
		must(t, s.use(address, each-i%each))
		must(t, s.rest(address, i%each))
		addresses = append(addresses, address)
	}
	return addresses
}

// stir has connections, of one destination after the other, be put back, used and closed,
// some 200 a second, until the test ends.
func stir(t *testing.T, s *stage, addresses []string) {
	ended := make(chan struct{})
	tick := time.NewTicker(5 * time.Millisecond)
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				return
			}
			address := addresses[i*7%len(addresses)]
			s.putBack(address, 1)
			if i%10 == 0 {
				s.finish(address, 1)
			}
			s.use(address, 1)
		}
	}()
	t.Cleanup(func() { <-ended; tick.Stop() })
}

// A round is what a page did for a while, times in ms.
type round struct {
	Frames []float64 // from one to the next
	Drawn  []float64 // those of them in which an update was drawn
	Ages   []float64 // of what an update shows, when it does
	Delays []float64 // of what has changed just after the look that the update before shows
	Long   []float64 // tasks of 50 ms and more
	Heap   float64   // bytes
}

// readRound is an expression for a round that lasts so many ms.
const readRound = `(async lasts => {
	const frames = [], drawn = [], ages = [], delays = [], long = [];
	const tasks = new PerformanceObserver(list => list.getEntries().forEach(e => long.push(e.duration)));
	tasks.observe({ type: "longtask" });
	let before, fresh = false;
	const updates = new MutationObserver(() => {
		const seen = performance.timeOrigin + performance.now(), looked = Number(document.documentElement.dataset.updated);
		fresh = true;
		ages.push(seen - looked);
		if (before) delays.push(seen - before);
		before = looked;
	});
	updates.observe(document.documentElement, { attributeFilter: ["data-updated"] });
	const frame = () => new Promise(requestAnimationFrame);
	const end = await frame() + lasts;
	for (let last = await frame(); last < end;) {
		const at = await frame();
		frames.push(at - last);
		if (fresh) drawn.push(at - last);
		fresh = false;
		last = at;
	}
	tasks.disconnect();
	updates.disconnect();
	return { frames, drawn, ages, delays, long, heap: performance.memory.usedJSHeapSize };
})(%d)`

func TestFiveHundredDestinationsStayUsable(t *testing.T) {
	b := newTab(t, chromedp.Flag("enable-precise-memory-info", true))
	s := setUp(t, 128)
	addresses := crowd(t, s)
	stir(t, s, addresses)
	must(t, b.wear(look{width: 1440, height: 1000}))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	must(t, b.await(countRows+` > 10`))
	t.Run("as it opens", func(t *testing.T) { watch(t, b, s) })

	shown[chromedp.Void](t, b, `document.querySelector("#all").click()`)
	must(t, b.await(fmt.Sprint(countRows, ` >= `, manyDestinations)))
	shown[chromedp.Void](t, b, `scrollTo(0, 0)`)
	t.Run("all rows", func(t *testing.T) { watch(t, b, s) })
}

const countRows = `document.querySelectorAll("[data-destination]").length`

// add has r tell of o's while, too. What the heap was in the end is the later one's.
func (r *round) add(o round) {
	r.Frames, r.Drawn = append(r.Frames, o.Frames...), append(r.Drawn, o.Drawn...)
	r.Ages, r.Delays = append(r.Ages, o.Ages...), append(r.Delays, o.Delays...)
	r.Long, r.Heap = append(r.Long, o.Long...), o.Heap
}

// watch measures the page for a while, and holds it to the bounds.
func watch(t *testing.T, b *tab, s *stage) {
	var all round
	var p95s []float64
	for range rounds {
		r := shown[round](t, b, fmt.Sprintf(readRound, roundLast.Milliseconds()))
		p95s = append(p95s, percentile(r.Frames, 95))
		all.add(r)
	}
	late := changed(t, b, s)
	p95 := percentile(p95s, 50)
	ok := p95 < frameMost && percentile(all.Drawn, 50) < drawnMost && slices.Max(all.Delays) <= ms(atMost) && late <= atMost
	tell(t, map[string]any{
		"bench": "browser", "figure": "frames",
		"destinations": manyDestinations, "connections": manyConnections, "rows": shown[int](t, b, countRows),
		"ours_p50_ms": tenths(percentile(all.Frames, 50)), "ours_p95_ms": tenths(p95), "ours_max_ms": tenths(slices.Max(all.Frames)),
		"updates": len(all.Drawn), "ours_update_p50_ms": tenths(percentile(all.Drawn, 50)), "ours_update_max_ms": tenths(slices.Max(all.Drawn)),
		"long_tasks": len(all.Long), "longest_task_ms": tenths(slices.Max(append(all.Long, 0))),
		"age_max_ms": tenths(slices.Max(all.Ages)), "delay_max_ms": tenths(slices.Max(all.Delays)), "change_ms": late.Milliseconds(),
		"heap_mb": tenths(all.Heap / 1e6),
		"bound": fmt.Sprintf("p95 below %v ms, the median of %d rounds; below %v ms where an update is drawn, in the middle; no change later than %v",
			frameMost, rounds, drawnMost, atMost),
		"status": status(ok),
	})
	// By how little a bound is missed is a matter of the machine. This is not.
	if p95 > hopeless*frameMost || percentile(all.Drawn, 50) > hopeless*drawnMost || late > hopeless*atMost {
		t.Errorf("frames: p95 of each round %v ms, with an update %v ms; changes are seen after %v ms at most, one was after %v",
			p95s, all.Drawn, slices.Max(all.Delays), late)
	}
}

// changed returns after how long a change is seen in the fullest destination, which is always
// shown.
func changed(t *testing.T, b *tab, s *stage) time.Duration {
	t.Helper()
	const fullest = "198.51.100.9:443"
	address := s.name("fullest.example.com", at(fullest))
	must(t, s.use(address, 40))
	n := booked(s.ledger)[fullest].Active
	must(t, b.await(fmt.Sprintf(`document.querySelector('[data-destination="%s"] [data-active="%d"]')`, fullest, n)))
	return delay(t, b, s, address, fullest, n)
}

// percentile is the p-th, by nearest rank.
func percentile(values []float64, p int) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
