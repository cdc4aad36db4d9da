package main

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A lent budget is one of this process, and says that it is shared: of one account what it says
// of all together, since there is only one.
type lent struct {
	*budget.Limit

	mu   sync.Mutex // guards says
	says budget.Report
}

var _ budget.Engine = (*lent)(nil)

func (b *lent) Reports(netpath.Key) []budget.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	return []budget.Report{b.says}
}

func (*lent) SetHold(time.Duration) {}

// degrade has it say so from now on; "": it is well.
func (b *lent) degrade(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.says.Degraded = why
}

// share has the ports of a stage be shared by two engines.
func share(s *stage) (redis *lent) {
	host := &lent{Limit: budget.PerKey(ports), says: budget.Report{Engine: "host", Sharers: 8, Limit: 128, Floor: 16, Leased: 16, Held: 7, Quarantined: 12}}
	redis = &lent{Limit: budget.PerKey(ports), says: budget.Report{
		Engine: "redis", Sharers: 2, Limit: 1000, Floor: 25, Leased: 7, Held: 7, Age: 1200 * time.Millisecond, Renewals: 40, Failures: 3,
	}}
	s.ledger.Budget = budget.All(host, redis)
	return redis
}

const (
	readShared      = `[...document.querySelectorAll("#shared li")].map(e => e.innerText).join("\n")`
	readDegraded    = `document.getElementById("degraded").innerText`
	readEnginesTile = `[...document.querySelectorAll("#tiles > div")].find(t => t.textContent.startsWith("In trouble")).textContent`
)

func TestWithWhomThePortsAreSharedIsToldAndWhatIsWrongWithThat(t *testing.T) {
	b, learn := newTabWithAxe(t)
	s := setUp(t, ports)
	redis := share(s)
	must(t, s.use(s.name("api.example.com", at(busyAt)), 7))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)
	const want = "shared by host with 7 others · 128 ports to each destination · all together floor 16, leased 16, kept 12\n" +
		"shared by redis with 1 other · 1,000 ports to each destination · all together floor 25, leased 7, kept 0, lease 1.2 s old"
	if told := shown[string](t, b, readShared); told != want {
		t.Errorf("the header says\n%s\nwant\n%s", told, want)
	}
	if shown[bool](t, b, `document.getElementById("degraded").checkVisibility()`) {
		t.Error("something is degraded where nothing is")
	}
	must(t, b.do(chromedp.Click(chromedp.CSS(buttonOf(busyAt)))))
	must(t, b.await(isOpen))
	must(t, b.await(`document.querySelector(".facts").textContent.includes("shared by redis with 1 other, 1,000 ports: held 7, floor 25, leased 7, kept 0, lease 1.2 s old, 3 of 43 calls failed")`))
	learn()
	audit(t, b, "a shared budget")

	redis.degrade("no answer for 12s: " + hostile[0] + strings.Repeat("x", 200))
	settled(t, b)
	told := shown[string](t, b, readDegraded)
	for _, words := range []string{"degraded This process is lent no port", "redis: no answer for 12s: <script>alert(1)</script>", "see whether Redis runs"} {
		if !strings.Contains(told, words) {
			t.Errorf("it does not say %q: %s", words, told)
		}
	}
	if told := shown[string](t, b, readShared); !strings.Contains(told, "degraded shared by redis") || strings.Contains(told, "degraded shared by host") {
		t.Errorf("the header says\n%s", told)
	}
	if tile := shown[string](t, b, readEnginesTile); tile != "In trouble1degraded: redis" {
		t.Errorf("the tile says %q", tile)
	}
	if d := shown[document](t, b, readDocument); d.Scripts != 1 || d.Handlers != 0 {
		t.Errorf("there are %d scripts, %d handlers", d.Scripts, d.Handlers)
	}
	audit(t, b, "a degraded budget")

	redis.degrade("")
	must(t, b.await(`!document.getElementById("degraded").checkVisibility()`))
	if told := shown[string](t, b, readShared); told != want {
		t.Errorf("when it is well again the header says\n%s", told)
	}
}

func TestWhereNobodySharesNothingIsSaidOfIt(t *testing.T) {
	b := newTab(t)
	s := setUp(t, ports)
	must(t, s.use(s.name("api.example.com", at(busyAt)), 7))
	visit(t, b, serve(t, &debug.Page{Ledger: s.ledger}).url())
	settled(t, b)
	if shown[bool](t, b, `[...document.querySelectorAll("#shared, #degraded")].some(e => e.checkVisibility())`) {
		t.Error("there is something")
	}
}
