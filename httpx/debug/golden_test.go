package debug_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Errorf("%s, line %d:\ngot  %s\nwant %s\n-update writes it anew", name, i+1, g[i], w[i])
			return
		}
	}
	t.Errorf("%s has %d lines, want %d", name, len(g), len(w))
}

// troubled has dials fail to a destination that has a row, and to what has none.
func (l *lab) troubled() {
	l.names["partner.example"], l.names["inside.example"] = "20.7.7.7", "10.0.0.9"
	l.fails["10.0.0.9:80"] = &dialer.DialError{ // as a dialer has it that this one dials by
		Verdict: dialer.Hairpin, Evidence: "8 of 8 SYNs came back to this host, which listens on 8080", Err: errors.New("no answer"),
	}
	l.net.BlackHole("20.7.7.7:8443")
	time.Sleep(500 * time.Millisecond) // so that nothing happens while the page looks
	for _, address := range []string{"partner.example:8443", "inside.example:80", "typo.exmaple:443", "partner.example:8443"} {
		l.fail(address)
		time.Sleep(time.Second) // longer than a first backoff, which is as long as chance has it
	}
}

// busy books something in every state to one destination, and a little to another.
func (l *lab) busy() {
	l.raw("20.1.2.3:443")
	l.raw("20.9.9.9:5432")
	l.names["api.example"], l.names["db.example"] = "20.1.2.3", "20.9.9.9"
	ctx := l.Context()
	for i := range 6 {
		c := l.dial("api.example:443")
		c.Serve(ctx, time.Time{})
		c.Serve(ctx, time.Time{})
		switch i {
		case 1, 2:
			c.Park(c.Turn())
		case 3:
			c.Close()
			time.Sleep(30 * time.Second)
		case 4:
			c.EndSoonest()
			c.Close()
		}
	}
	parked := l.dial("db.example:5432")
	parked.Park(parked.Turn())
	l.dial("db.example:5432")
	time.Sleep(500 * time.Millisecond) // FINs are on their way
	go l.wait("api.example:443")       // for one of three that are left, which are kept for others
	go l.wait("api.example:443")
	go l.wait("api.example:443")
	time.Sleep(2500 * time.Millisecond)
	synctest.Wait()
}

// wait dials, and closes what it gets.
func (l *lab) wait(address string) {
	if c, err := l.dialer.DialContext(dialer.WithOwner(l.Context(), "a pool of somebody's"), "tcp", address); err == nil {
		c.Close()
	}
}

func TestWhatIsShown(t *testing.T) {
	inLab(t, azure(6), func(l *lab) {
		l.ledger.MaxWait = -1
		l.ledger.Name = "egress-a"
		l.ledger.Budget = budget.All(lentByHost(), lentByRedis("no answer for 12s: dial tcp 10.0.0.5:6379: connect: connection refused"))
		l.get("?format=json") // from here on it looks
		l.troubled()
		l.busy()
		var indented bytes.Buffer
		for _, destination := range []string{"", "20.1.2.3:443"} {
			asks := "?format=json&destination=" + destination
			if err := json.Indent(&indented, l.get(asks).Body.Bytes(), "", "\t"); err != nil {
				l.Error(err)
			}
		}
		golden(l.T, "page.json", compact(indented.Bytes()))
		golden(l.T, "page.txt", append(l.get("?format=text").Body.Bytes(), l.get("?format=text&destination=20.1.2.3:443").Body.Bytes()...))
		golden(l.T, "wide.txt", l.get("?format=wide").Body.Bytes())
		golden(l.T, "page.html", l.skeleton())
	})
}

func TestNoRowOfTheTextIsWiderThanATerminal(t *testing.T) {
	inLab(t, azure(6), func(l *lab) {
		l.ledger.MaxWait = -1
		l.get("")
		l.busy()
		_, rows, _ := strings.Cut(l.get("?format=text").Body.String(), "\n\n")
		rows, _, _ = strings.Cut(rows, "\n\n")
		for line := range strings.Lines(rows) {
			if n := len([]rune(line)); n > 100 {
				l.Errorf("%d characters: %s", n, line)
			}
		}
		for _, says := range []string{"20.1.2.3:443  api.example:443\n  [#######~~~~~~~~~~~~~] 6 of 6: 2 active, 4 cooling, next in 12", "3 waiting, the first for "} {
			if !strings.Contains(rows, says) {
				l.Errorf("it does not say %q:\n%s", says, rows)
			}
		}
		if wide := l.get("?format=wide").Body.String(); !strings.Contains(wide, "DESTINATION  ") || !strings.Contains(wide, "FORGETS  ") {
			l.Errorf("wide it says\n%s", wide)
		}
	})
}

func TestWhatIsShownOfNothing(t *testing.T) {
	inLab(t, azure(6), func(l *lab) {
		golden(l.T, "empty.json", l.get("?format=json").Body.Bytes())
		golden(l.T, "empty.txt", l.get("?format=text").Body.Bytes())
	})
}

// compact writes lists of numbers in one line.
func compact(indented []byte) []byte {
	return regexp.MustCompile(`\[[-\d.\s,nul]*\]`).ReplaceAllFunc(indented, func(list []byte) []byte {
		return bytes.Join(bytes.Fields(list), nil)
	})
}

// skeleton is the frozen page without its style, script and data, which have their own tests.
func (l *lab) skeleton() []byte {
	html := l.frozen()
	for _, part := range []string{"(<style>).*?(</style>)", `(id="frozen">).*?(</script>)`, "(<script>).*?(</script>)", "('sha256-)[^']*(')"} {
		of := regexp.MustCompile("(?s)" + part)
		if !of.Match(html) {
			l.Fatalf("there is no %s", part)
		}
		html = of.ReplaceAll(html, []byte("$1...$2"))
	}
	return html
}

func (l *lab) frozen() []byte {
	l.Helper()
	var b bytes.Buffer
	if err := l.page.WriteHTML(&b); err != nil {
		l.Fatal(err)
	}
	return b.Bytes()
}

func TestAFrozenPageNeedsNothingElse(t *testing.T) {
	inLab(t, azure(6), func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		html := string(l.frozen())
		for _, found := range regexp.MustCompile(`(?:src|href)="([^"?]*)[^"]*"`).FindAllStringSubmatch(html, -1) {
			if to := found[1]; to != "" && !strings.HasPrefix(to, "#") {
				l.Errorf("it asks for %s", to)
			}
		}
		for _, whole := range []string{"page.css", "page.js"} {
			text, err := os.ReadFile(whole)
			if err != nil {
				l.Fatal(err)
			}
			if !strings.Contains(html, ">"+string(text)+"</") {
				l.Errorf("%s is not in it as it is", whole)
			}
		}
		if n := strings.Count(html, "</script>"); n != 2 {
			l.Errorf("scripts end %d times in it", n)
		}
	})
}

// The numbers of a row are those of the account, in a ledger whose connections come and go.
func TestTheNumbersAreTheLedgers(t *testing.T) {
	inLab(t, azure(16), func(l *lab) {
		l.ledger.MaxWait = -1
		end := time.Now().Add(10 * time.Minute)
		for i := range 5 {
			at := fmt.Sprintf("20.1.2.%d:443", i+1)
			l.raw(at)
			for w := range 4 * (i + 1) { // the last ones have to wait
				go l.churn(at, w, end)
			}
		}
		compared, waiting := 0, 0
		l.get("?format=json")
		time.Sleep(500 * time.Millisecond) // so that what is shown below was not seen before
		for time.Now().Before(end) {
			time.Sleep(time.Second)
			synctest.Wait()
			var s struct {
				Destinations []struct {
					Destination string
					Ports       struct{ Limit, Taken, Active, Idle, Dialing, Cooling, Free int }
					CoolingBy   map[string]int `json:"cooling_by"`
					NextFree    *float64       `json:"next_free_seconds"`
					Waiting     int
				}
			}
			accounts := l.ledger.Accounts()
			if err := json.Unmarshal(l.get("?format=json").Body.Bytes(), &s); err != nil {
				l.Fatal(err)
			}
			if len(s.Destinations) != len(accounts) {
				l.Fatalf("%d rows of %d accounts", len(s.Destinations), len(accounts))
			}
			for _, d := range s.Destinations {
				for _, a := range accounts {
					if a.Key.Dest.String() != d.Destination {
						continue
					}
					cooling, by := a.Closing, make(map[string]int)
					for how, n := range a.Cooling {
						if cooling += n; n > 0 {
							by[keepalive.How(how).String()] = n
						}
					}
					want := fmt.Sprint(a.Limit, a.Taken(), a.Active, a.Idle, a.Asked+a.Dialing, cooling, a.Limit-a.Taken(), a.Waiting, by)
					got := fmt.Sprint(d.Ports.Limit, d.Ports.Taken, d.Ports.Active, d.Ports.Idle, d.Ports.Dialing, d.Ports.Cooling, d.Ports.Free, d.Waiting, d.CoolingBy)
					if got != want {
						l.Fatalf("%s: it shows %s, the ledger has %s", d.Destination, got, want)
					}
					if next := a.NextFree.Round(time.Microsecond).Seconds(); (d.NextFree != nil) != (cooling > a.Closing) || d.NextFree != nil && *d.NextFree != next {
						l.Fatalf("%s: the next port comes free in %v, says the ledger: %v", d.Destination, *d.NextFree, a.NextFree)
					}
					compared++
					waiting += a.Waiting
				}
			}
		}
		if compared < 1000 || waiting < 100 {
			l.Errorf("only %d rows were compared, in which %d waited", compared, waiting)
		}
	})
}

// churn dials, uses, parks and closes, in a rhythm of its own.
func (l *lab) churn(at string, rhythm int, end time.Time) {
	for n := rhythm; time.Now().Before(end); n++ {
		c, err := l.dialer.DialContext(l.Context(), "tcp", at)
		if err != nil {
			return // the test is over
		}
		time.Sleep(time.Duration(300+n*131%900) * time.Millisecond)
		flow := c.(*dialer.Conn)
		if n%3 == 0 && flow.Park(flow.Turn()) {
			time.Sleep(time.Duration(n%5) * time.Second)
		}
		if n%2 == 0 {
			flow.EndSoonest()
		}
		c.Close()
		time.Sleep(time.Duration(n%7) * time.Second)
	}
}

func TestNamesStayText(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		hostile(l)
		html := string(l.frozen())
		if n := strings.Count(html, "<script"); n != 2 {
			l.Errorf("the frozen page has %d scripts", n)
		}
		_, rest, _ := strings.Cut(html, `id="frozen">`)
		data, _, _ := strings.Cut(rest, "</script>")
		if at := strings.IndexAny(data, "<>&\u2028"); at >= 0 {
			l.Errorf("the data of the frozen page have %q", data[at:at+20])
		}
		var f struct {
			State struct{ Destinations []struct{ Names []string } }
		}
		if err := json.Unmarshal([]byte(data), &f); err != nil {
			l.Fatal(err)
		}
		names := make(map[string]bool)
		for _, d := range f.State.Destinations {
			names[d.Names[0]] = true
		}
		for _, name := range nasty {
			if !names[name+":443"] {
				l.Errorf("%q is not in it", name)
			}
		}
		text := l.get("?format=text").Body.String()
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if want := 6 + 3*len(nasty); len(lines) != want {
			l.Errorf("the text has %d lines, want %d:\n%s", len(lines), want, text)
		}
		if at := strings.IndexAny(text, "\x1b\t\r\u202e"); at >= 0 {
			l.Errorf("a terminal would obey %q", text[at:at+5])
		}
		for _, line := range lines {
			if n := len([]rune(line)); n > 400 {
				l.Errorf("a line has %d characters", n)
			}
		}
	})
}
