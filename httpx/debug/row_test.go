package debug_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A table is as much of a state as these tests look at.
type table struct {
	Waiting    int
	OldestWait float64 `json:"oldest_wait_seconds"`
	Exceeded   uint64  `json:"would_have_waited"`
	Problem    string
	Ports      taken
	Rows       []line `json:"destinations"`
	Troubles   []trouble
	Events     []struct{ Kind, About, Text string }
	History    struct {
		Oldest []*float64 `json:"oldest_wait_seconds"`
	}
}

type taken struct {
	Limit, Free                           *int
	Taken, Active, Idle, Dialing, Cooling int
}

type line struct {
	Destination, Scope string
	Names              []string
	MoreNames          int `json:"more_names"`
	Ports              taken
	LimitFrom          string `json:"limit_grade"`
	Utilization        *float64
	NextFree           *float64 `json:"next_free_seconds"`
	AllFree            *float64 `json:"all_free_seconds"`
	Freed              []int
	Later              int `json:"freed_later"`
	Waiting            int
	Wait99             *float64 `json:"wait_p99_seconds"`
	Rate               *float64 `json:"dials_per_second"`
	Counts             *struct {
		Opened     uint64
		Uses       *float64 `json:"uses_per_connection"`
		Blackholes uint64
	}
	Idle     *float64 `json:"idle_timeout_seconds"`
	IdleFrom string   `json:"idle_timeout_grade"`
	Trend    []int
	Trouble  *trouble
}

// table is what the page shows; the latest look may be a quarter of a second old.
func (l *lab) table() table {
	l.Helper()
	time.Sleep(300 * time.Millisecond)
	synctest.Wait()
	return tableOf(l.T, l.get("?format=json").Body.Bytes())
}

func tableOf(t *testing.T, text []byte) (s table) {
	t.Helper()
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s table) row(destination string) line {
	for _, r := range s.Rows {
		if r.Destination == destination {
			return r
		}
	}
	return line{}
}

func TestARequestThatWaitsIsCountedOnce(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		l.web("api.example", "20.1.2.3:443", func() time.Duration { return 10 * time.Second })
		c := l.client()
		for range 6 {
			go func() {
				if resp, err := c.Get("http://api.example:443/"); err == nil {
					resp.Body.Close()
				}
			}()
		}
		l.get("") // from here on it looks
		time.Sleep(3 * time.Second)
		s := l.table()
		if s.Waiting != 4 || s.row("20.1.2.3:443").Waiting != 4 || s.OldestWait < 3 || s.OldestWait > 3.5 {
			l.Errorf("of six requests for two ports %d wait, %d in the row, the first for %v s", s.Waiting, s.row("20.1.2.3:443").Waiting, s.OldestWait)
		}
		if waits := s.History.Oldest; len(waits) < 3 || *waits[len(waits)-1] < 2 { // they are not over yet
			l.Errorf("the past knows no wait of 3 s: %v", waits)
		}
		time.Sleep(10 * time.Second)
		if s = l.table(); s.Waiting != 2 || s.row("20.1.2.3:443").Wait99 == nil {
			l.Errorf("10 s later %d wait, p99: %v", s.Waiting, s.row("20.1.2.3:443").Wait99)
		}
		if uses := s.row("20.1.2.3:443").Counts.Uses; uses == nil || *uses != 2 {
			l.Errorf("each connection was used %v times", uses)
		}
	})
}

func TestOneWhoWaitsForTwoAddressesIsOne(t *testing.T) {
	inLab(t, azure(1), func(l *lab) {
		l.raw("20.1.2.3:443")
		l.raw("20.1.2.4:443")
		l.dial("20.1.2.3:443")
		l.dial("20.1.2.4:443")
		l.dialer.Resolver = both{"20.1.2.3", "20.1.2.4"}
		go l.dialer.DialContext(l.Context(), "tcp", "two.example:443")
		if s := l.table(); s.Waiting != 1 || s.row("20.1.2.3:443").Waiting != 1 || s.row("20.1.2.4:443").Waiting != 1 {
			l.Errorf("%d wait, %d and %d in the rows", s.Waiting, s.row("20.1.2.3:443").Waiting, s.row("20.1.2.4:443").Waiting)
		}
	})
}

// both resolves any name.
type both [2]string

func (b both) LookupNetIP(_ context.Context, _, _ string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr(b[0]), netip.MustParseAddr(b[1])}, nil
}

func TestAccountsOfAllDestinationsHaveRowsOfTheirOwn(t *testing.T) {
	path := azure(8)
	path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.AllPorts, N: 10}, netpath.Limit{Scope: netpath.Sockets, N: 4})
	inLab(t, path, func(l *lab) {
		for _, at := range []string{"20.1.2.3:443", "20.1.2.4:443"} {
			l.raw(at)
			l.dial(at)
			l.dial(at).Close()
		}
		time.Sleep(time.Second)
		s := l.table()
		for name, want := range map[string][3]int{
			"20.1.2.3:443": {2, 1, 8}, "20.1.2.4:443": {2, 1, 8}, "all destinations": {4, 2, 10}, "open connections": {2, 0, 4},
		} {
			r := s.row(name)
			if r.Ports.Limit == nil || [3]int{r.Ports.Taken, r.Ports.Cooling, *r.Ports.Limit} != want {
				l.Errorf("%s: %+v, want %v", name, r.Ports, want)
			}
		}
		if s.Ports.Taken != 4 || s.Ports.Limit == nil || *s.Ports.Limit != 10 {
			l.Errorf("together: %+v", s.Ports)
		}
		if s.Rows[0].Destination != "open connections" {
			l.Errorf("the fullest is %s", s.Rows[0].Destination)
		}
		for name, connections := range map[string]int{"all destinations": 4, "open connections": 2} {
			var d struct{ Connections []struct{ Local string } }
			if err := json.Unmarshal(l.get("?format=json&destination="+strings.ReplaceAll(name, " ", "+")).Body.Bytes(), &d); err != nil || len(d.Connections) != connections {
				l.Errorf("%s: %d connections, %v", name, len(d.Connections), err)
			}
		}
	})
}

func TestEachSourceHasARowOfItsOwn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path := netpath.Profile{Exempt: netpath.NoExempt(), Limits: []netpath.Limit{{Scope: netpath.SourceDestination, N: 100}}}
	l := &dialer.Ledger{Path: path, Ramp: -1}
	for i := range 2 {
		d := &dialer.Dialer{Ledger: l, Sources: []dialer.Source{{Addr: netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)})}}}
		for range 3 + i {
			c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
	var html strings.Builder
	if err := (&debug.Page{Ledger: l}).WriteHTML(&html); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(html.String(), `id="frozen">`)
	data, _, _ := strings.Cut(rest, "</script>")
	var f struct {
		State   table
		Details map[string]struct{ Connections []struct{ Local string } }
	}
	if err := json.Unmarshal([]byte(data), &f); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		name := fmt.Sprintf("%v from 127.0.0.%d", ln.Addr(), 2+i)
		if r := f.State.row(name); r.Ports.Active != 3+i || len(f.Details[name].Connections) != 3+i {
			t.Errorf("%s: %+v, %d connections", name, r.Ports, len(f.Details[name].Connections))
		}
	}
}

func TestWithoutALimitNothingIsFreeOrFull(t *testing.T) {
	inLab(t, netpath.Unknown(), func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		s := l.table()
		if r := s.row("20.1.2.3:443"); r.Ports.Limit != nil || r.Ports.Free != nil || r.Utilization != nil || r.Ports.Taken != 1 {
			l.Errorf("%+v, used: %v", r.Ports, r.Utilization)
		}
		if s.Ports.Limit != nil || s.Ports.Free != nil {
			l.Errorf("together %+v", s.Ports)
		}
	})
}

func TestInShadowItIsShownWhatWouldHaveWaited(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		l.ledger.Shadow = true
		l.dialer.Dial = l.net.DialContext // a NAT that has more ports
		l.raw("20.1.2.3:443")
		for range 5 {
			l.dial("20.1.2.3:443")
		}
		s := l.table()
		if r := s.row("20.1.2.3:443"); s.Exceeded != 3 || *r.Ports.Free != 0 || *r.Utilization != 2.5 {
			l.Errorf("%d would have waited, %+v, used: %v", s.Exceeded, r.Ports, *r.Utilization)
		}
	})
}

func TestADialBeyondTwoLimitsWouldHaveWaitedOnce(t *testing.T) {
	path := azure(2)
	path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.AllPorts, N: 3}, netpath.Limit{Scope: netpath.Sockets, N: 4})
	inLab(t, path, func(l *lab) {
		l.ledger.Shadow = true
		l.dialer.Dial = l.net.DialContext // a NAT that has more ports
		l.raw("20.1.2.3:443")
		for range 5 {
			l.dial("20.1.2.3:443")
		}
		s := l.table()
		if s.Exceeded != 3 {
			l.Errorf("of five dials %d would have waited", s.Exceeded)
		}
		if text := l.get("?format=text").Body.String(); !strings.Contains(text, "shadow: nothing waits for a port; 3 dials would have\n") {
			l.Errorf("the text says\n%s", text)
		}
	})
}

func TestTheForecastCountsEachPortInItsTenSeconds(t *testing.T) {
	path := azure(50)
	path.Hold = netpath.Hold{FIN: 300 * time.Second, RST: 15 * time.Second, SYN: 30 * time.Second, Idle: 60 * time.Second}
	inLab(t, path, func(l *lab) {
		l.raw("20.1.2.3:443")
		for range 3 {
			l.dial("20.1.2.3:443").Close()
		}
		time.Sleep(40 * time.Second)
		for range 2 {
			c := l.dial("20.1.2.3:443")
			c.Conn.EndSoonest() // though ports are not scarce
			c.Close()
		}
		time.Sleep(5 * time.Second)
		l.dial("20.1.2.3:443").Close()
		time.Sleep(2 * time.Second)
		r := l.table().row("20.1.2.3:443")
		want := make([]int, 24)
		want[0] = 2                                            // in 8 s
		if !reflect.DeepEqual(r.Freed, want) || r.Later != 4 { // the others in 253 s and 298 s
			l.Errorf("it shows %v, later %d", r.Freed, r.Later)
		}
		if *r.NextFree < 7 || *r.NextFree > 9 || *r.AllFree < 296 || *r.AllFree > 300 {
			l.Errorf("the next in %v s, all in %v s", *r.NextFree, *r.AllFree)
		}
		time.Sleep(20 * time.Second)
		want[0], want[23] = 0, 3
		if r = l.table().row("20.1.2.3:443"); !reflect.DeepEqual(r.Freed, want) || r.Later != 1 {
			l.Errorf("20 s later it shows %v, later %d", r.Freed, r.Later)
		}
	})
}

func TestThePathsMemoryIsShownAsItIsKnown(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		if r := l.table().row("20.1.2.3:443"); r.Idle == nil || *r.Idle != 240 || r.IdleFrom != "documented" {
			l.Errorf("at first: %v, %s", r.Idle, r.IdleFrom)
		}
		learner := new(keepalive.Learner)
		page := &debug.Page{Ledger: l.ledger, Learner: learner}
		key := netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:443"), Network: "tcp"}
		for range 2 {
			began := time.Now()
			time.Sleep(time.Minute)
			learner.Died(key, began, time.Minute)
		}
		l.page = page
		if r := l.table().row("20.1.2.3:443"); r.Idle == nil || *r.Idle != 30 || r.IdleFrom != "learned" {
			l.Errorf("by a Learner that knows better: %v, %s", *r.Idle, r.IdleFrom)
		}
	})
	inLab(t, netpath.Profile{Idle: netpath.None}, func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		if r := l.table().row("20.1.2.3:443"); r.Idle != nil {
			l.Errorf("a path that never forgets does so after %v", *r.Idle)
		}
	})
	inLab(t, netpath.Profile{}, func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		if r := l.table().row("20.1.2.3:443"); *r.Idle != 230 || r.IdleFrom != "assumed" {
			l.Errorf("one that nobody knows: %v, %s", *r.Idle, r.IdleFrom)
		}
	})
}

func TestDialsPerSecondAreThoseOfTheLastTenSeconds(t *testing.T) {
	inLab(t, azure(128), func(l *lab) {
		l.raw("20.1.2.3:443")
		if r := l.table(); len(r.Rows) > 0 {
			l.Fatal("there is a row already")
		}
		for range 40 {
			l.dial("20.1.2.3:443")
			time.Sleep(484 * time.Millisecond) // and 16 for the handshake
		}
		if r := l.table().row("20.1.2.3:443"); r.Rate == nil || *r.Rate < 1.8 || *r.Rate > 2.2 {
			l.Errorf("at two a second it shows %v", *r.Rate)
		}
		time.Sleep(12 * time.Second)
		if r := l.table().row("20.1.2.3:443"); r.Rate == nil || *r.Rate != 0 || r.Counts.Opened != 40 {
			l.Errorf("a while later it shows %v", *r.Rate)
		}
	})
}

func TestALedgerThatRefusesEveryDialSaysWhy(t *testing.T) {
	inLab(t, netpath.Profile{Idle: -5}, func(l *lab) {
		if s := l.table(); !strings.Contains(s.Problem, "Idle") {
			l.Errorf("it says %q", s.Problem)
		}
		if w := l.get("?format=text"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "every dial is refused") {
			l.Errorf("the text says %s", w.Body)
		}
	})
}

func TestHistoryIsKeptOfTheFullestThirtyTwoOnly(t *testing.T) {
	inLab(t, azure(100), func(l *lab) {
		l.get("")
		for i := range 100 {
			at := fmt.Sprintf("20.1.2.%d:443", i+1)
			l.raw(at)
			for range 1 + i/10 {
				l.dial(at)
			}
		}
		for range 20 * 60 {
			time.Sleep(time.Second)
		}
		l.get("") // nobody has looked for 15 minutes
		time.Sleep(20 * time.Second)
		s, with := l.table(), 0
		for i, r := range s.Rows {
			if len(r.Trend) > 0 {
				with++
				if i >= 64 { // from 33 to 64 they keep what they have
					l.Errorf("number %d has a past", i+1)
				}
			}
		}
		if with != 32 {
			l.Errorf("%d have a past", with)
		}
		if rings, samples := l.page.Remembers(); rings != 33 || samples > 33*900 {
			l.Errorf("%d samples of %d are kept", samples, rings)
		}
	})
}

func TestATrendShowsTheMostOfEachFiveSeconds(t *testing.T) {
	inLab(t, azure(100), func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		l.get("")
		time.Sleep(time.Minute)
		for range 7 {
			c := l.dial("20.1.2.3:443")
			c.EndSoonest()
			c.Close()
		}
		time.Sleep(time.Minute)
		trend := l.table().row("20.1.2.3:443").Trend
		if n := len(trend); n < 24 || n > 26 {
			l.Fatalf("two minutes have %d parts", n)
		}
		if trend[0] != 1 || trend[14] != 8 {
			l.Errorf("it goes %v", trend)
		}
	})
}
