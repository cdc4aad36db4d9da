package debug_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var scenes = flag.String("scenes", "", "write the page, as it is in some situations, to this `directory`")

// Scenes are for looking at: go test -run Scenes -scenes DIRECTORY ./httpx/debug
func TestScenes(t *testing.T) {
	dir := *scenes
	play := map[string]func(l *lab){"empty": func(*lab) {}, "shadow": shadowed, "hostile": hostile, "troubled": func(l *lab) { l.troubled(); l.busy() }}
	if dir == "" {
		dir = t.TempDir()
	} else { // these take their time
		play["normal"], play["exhausted"], play["many"] = normal, exhausted, many
	}
	for name, play := range play {
		t.Run(name, func(t *testing.T) {
			inLab(t, azure(128), func(l *lab) {
				ctx, cancel := context.WithCancel(l.Context())
				var recording sync.WaitGroup
				recording.Go(func() { l.page.Record(ctx) })
				play(l)
				var html bytes.Buffer
				if err := l.page.WriteHTML(&html); err != nil {
					l.Error(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name+".html"), html.Bytes(), 0o644); err != nil {
					l.Error(err)
				}
				cancel()
				recording.Wait()
			})
		})
	}
}

// ask asks a server now and then, on average so often, until then.
func (l *lab) ask(wg *sync.WaitGroup, c *http.Client, url string, each time.Duration, end time.Time, header ...string) {
	wg.Go(func() {
		for time.Now().Before(end) {
			time.Sleep(time.Duration(rand.ExpFloat64() * float64(each)))
			wg.Go(func() {
				r, _ := http.NewRequestWithContext(l.Context(), http.MethodGet, url, nil)
				if len(header) > 0 {
					r.Close = true
				}
				resp, err := c.Do(r)
				if err != nil {
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			})
		}
	})
}

func around(d time.Duration) func() time.Duration {
	return func() time.Duration { return d/2 + time.Duration(rand.ExpFloat64()*float64(d/2)) }
}

// normal is a service on a good day, which has had one a little worse.
func normal(l *lab) {
	end := time.Now().Add(14 * time.Minute)
	var wg sync.WaitGroup
	c := l.client()
	for _, s := range []struct {
		name, at    string
		takes, each time.Duration
	}{
		{"api.payments.example", "20.50.1.10:443", 400 * time.Millisecond, 12 * time.Millisecond},
		{"search.example", "20.50.2.20:443", 120 * time.Millisecond, 15 * time.Millisecond},
		{"mail.example", "20.60.7.7:443", 900 * time.Millisecond, 200 * time.Millisecond},
		{"vault.example", "[2603:1030:7::15]:443", 30 * time.Millisecond, 500 * time.Millisecond},
	} {
		l.web(s.name, s.at, around(s.takes))
		l.ask(&wg, c, "http://"+s.name+":443/", s.each, end)
	}
	l.web("eu.blob.example", "20.70.4.4:443", around(60*time.Millisecond))
	l.names["us.blob.example"] = l.names["eu.blob.example"]
	l.ask(&wg, c, "http://eu.blob.example:443/", 30*time.Millisecond, end)
	l.ask(&wg, c, "http://us.blob.example:443/", 50*time.Millisecond, end)
	l.web("legacy.example", "20.80.9.9:443", around(200*time.Millisecond))
	l.ask(&wg, c, "http://legacy.example:443/", 3500*time.Millisecond, end, "Connection: close")
	time.Sleep(6 * time.Minute)
	l.ask(&wg, c, "http://api.payments.example:443/", 6*time.Millisecond, time.Now().Add(2*time.Minute))
	l.ask(&wg, c, "http://legacy.example:443/", 900*time.Millisecond, time.Now().Add(time.Minute), "Connection: close")
	time.Sleep(time.Until(end) - 200*time.Millisecond)
	l.Cleanup(wg.Wait)
}

// exhausted is a service whose clients close every connection.
func exhausted(l *lab) {
	end := time.Now().Add(9 * time.Minute)
	var wg sync.WaitGroup
	c := l.client()
	l.web("legacy.example", "20.80.9.9:443", around(300*time.Millisecond))
	l.web("api.payments.example", "20.50.1.10:443", around(200*time.Millisecond))
	l.ask(&wg, c, "http://api.payments.example:443/", 40*time.Millisecond, end)
	time.Sleep(3 * time.Minute)
	l.ask(&wg, c, "http://legacy.example:443/", 700*time.Millisecond, end, "Connection: close")
	time.Sleep(time.Until(end) - time.Second)
	l.Cleanup(wg.Wait)
}

// many is a crawler.
func many(l *lab) {
	l.net.Latency = 0
	for i := range 500 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 1, byte(i / 250), byte(i%250 + 1)}), 443).String()
		l.raw(at)
		name := fmt.Sprintf("host-%03d.crawl.example", i)
		l.names[name] = netip.MustParseAddrPort(at).Addr().String()
		for n := range 1 + rand.IntN(7) {
			k := l.dial(name + ":443")
			if n%2 == 0 {
				k.Park(k.Turn())
			}
			if i%40 == 0 && n == 1 {
				for range 20 + rand.IntN(40) {
					l.dial(name + ":443").Close()
				}
			}
		}
	}
	time.Sleep(90 * time.Second)
}

// shadowed is a service that adopts natwise.
func shadowed(l *lab) {
	l.ledger.Shadow, l.ledger.Name = true, "egress-a"
	l.raw("20.80.9.9:443")
	l.names["legacy.example"] = "20.80.9.9"
	l.dialer.Dial = l.net.DialContext // a NAT that does what is asked of it
	for range 160 {
		l.dial("legacy.example:443")
	}
	time.Sleep(time.Minute)
}

// hostile has names that somebody made up to be a nuisance.
func hostile(l *lab) {
	for i, name := range nasty {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 9, 9, byte(i + 1)}), 443).String()
		l.raw(at)
		l.names[name] = netip.MustParseAddrPort(at).Addr().String()
		l.dial(name + ":443")
	}
	time.Sleep(5 * time.Second)
}

var nasty = []string{
	"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "it's & <b>bold</b>", "</script><script>alert(2)",
	"büro.example", "例え.テスト", "\u202egnp.exe", "tab\tand\nline\x1b31m", "--> <!-- &lt;", string(bytes.Repeat([]byte("long-"), 60)) + "example",
}
