package main

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/internal/terminal"
)

func TestABarShowsEachStateInItsPlace(t *testing.T) {
	s := newScreen(nil, terminal.Terminal{})
	for _, c := range []struct {
		p     ports
		width int
		want  string
	}{
		{ports{limit: 128}, 8, "········"},
		{ports{active: 32, idle: 32, dialing: 32, cooling: 32, limit: 128}, 8, "██▓▓▒▒░░"},
		{ports{active: 64, cooling: 32, limit: 128}, 8, "████░░··"},
		{ports{cooling: 128, limit: 128}, 8, "░░░░░░░░"},
		{ports{cooling: 127, limit: 128}, 16, "░░░░░░░░░░░░░░░░"},
		{ports{active: 1, limit: 128}, 8, "█·······"},                                    // whatever there is has a cell
		{ports{active: 125, idle: 1, dialing: 1, cooling: 1, limit: 128}, 8, "█████▓▒░"}, // and takes it from the largest
		{ports{active: 1, idle: 1, dialing: 1, cooling: 1, limit: 128}, 8, "█▓▒░····"},
		{ports{active: 200, limit: 128}, 8, "████████"}, // in Shadow there may be more
		{ports{active: 1, limit: 128}, 3, ""},
		{ports{active: 1, limit: -1}, 8, ""},
	} {
		if got := s.bar(c.p, c.width); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}

func TestPortsComeFromTheLedgerOrElseFromTheNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		s := exhaustion(work{requests: 1, concurrency: 1, ports: 128})
		for _, c := range []client{standard, ours} {
			ln, err := n.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			servers := &origins{names: hosts{"api.example": netip.MustParseAddr("127.0.0.1")}, ended: make(chan error, 1)}
			servers.add(s.sites[0], ln, nil, time.Second)
			l := newLane(c, s, servers, &fauxnat.NAT{Path: s.path, Dial: n.DialContext, Hosts: servers.names})
			shows := func(want ports, when string) {
				t.Helper()
				synctest.Wait()
				want.limit = 128
				if got := l.ports()[0]; got != want {
					t.Errorf("%s, %s: %+v, want %+v", c.name, when, got, want)
				}
			}
			shows(ports{}, "before")
			ctx := t.Context()
			go l.exchange(ctx, get, servers.urls[0])
			shows(ports{active: 1}, "asked")
			time.Sleep(time.Second)
			shows(ports{idle: 1}, "answered")
			l.user.closeIdle()
			shows(ports{cooling: 1}, "closed")
			time.Sleep(time.Minute)
			l.endDial()
			servers.close()
		}
	})
}

func TestADialThatIsNotAnsweredIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		at := netip.MustParseAddrPort("127.0.0.1:7")
		n.BlackHole(at.String())
		s := exhaustion(work{requests: 1, concurrency: 1, ports: 128})
		l := newLane(standard, s, &origins{at: []netip.AddrPort{at}}, &fauxnat.NAT{Path: s.path, Dial: n.DialContext})
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := l.dial(t.Context(), "tcp", at.String()); err == nil {
				c.Close()
			}
		}()
		synctest.Wait()
		if got := l.ports()[0]; got != (ports{dialing: 1, limit: 128}) {
			t.Errorf("got %+v", got)
		}
		l.endDial() // no dial outlives it
		<-done
	})
}

func TestTheViewEndsWithTheNumbersOfTheTable(t *testing.T) {
	s := idle(visits{times: 4, atOnce: 1, scale: 1})
	inMemory(t, func(t *testing.T, on network) {
		var last []ports // of the client that is over before its last flow is forgotten
		lanes, err := race(t.Context(), s, on, func(lanes []*lane) { last = lanes[0].ports() })
		if err != nil {
			t.Fatal(err)
		}
		if r := lanes[0].result(); last[0].astray != 3 || r.Astray != 3 {
			t.Errorf("the view ends with %d forgotten flows, the table has %d, want 3", last[0].astray, r.Astray)
		}
	})
}

func TestTheHeadSaysWhatCameOfTheRequests(t *testing.T) {
	s := newScreen(nil, terminal.Terminal{})
	working := standing{ok: 1200, failed: 34, waiting: 5, ran: 3 * time.Second}
	over := working
	over.over = true
	for _, c := range []struct {
		p    standing
		cols int
		want string
	}{
		{working, 79, "  natwise                 1,200 ok      34 failed     5 waiting"},
		{over, 79, "  natwise                 1,200 ok      34 failed    done 3.0 s"},
		{working, 59, "  natwise                1,200 ok     34 failed"},
	} {
		if got := s.head(natwise, c.p, c.cols); got != c.want {
			t.Errorf("got\n%q, want\n%q", got, c.want)
		}
	}
}

func TestThePulseIsWhatCameBackLately(t *testing.T) {
	s := newScreen(nil, terminal.Terminal{})
	var ends []end
	for i := range 40 { // ten seconds: answers, nothing, failures
		at := time.Duration(i)*beat + beat/2
		switch {
		case i < 20:
			ends = append(ends, end{at, 0, false}, end{at, 1, false})
		case i >= 30:
			ends = append(ends, end{at, 0, true}, end{at, 1, false})
		}
	}
	p := standing{ends: ends, ran: 10*time.Second + beat/2}
	if got, want := s.pulse(p, 0, 26), "  ████··········××××××××××"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := s.pulse(p, 1, 26), "  ████··········██████████"; got != want {
		t.Errorf("of the other site: got %q, want %q", got, want)
	}
	p.ran = beat
	if got := s.pulse(p, 0, 26); got != "  █" {
		t.Errorf("in the beginning: %q", got)
	}
	if got := s.pulse(p, 0, 5); got != "" {
		t.Errorf("where there is no room: %q", got)
	}
}

func TestAnAlarmIsWhatTheNATCounted(t *testing.T) {
	s := newScreen(nil, terminal.Terminal{})
	for name, c := range map[string]struct {
		p    ports
		want string
	}{
		"exhaustion":  {ports{dropped: 3091, astray: 7, limit: 128}, "  3,091 dropped"},
		"idle":        {ports{dropped: 3091, astray: 7, limit: 128}, "  7 forgotten"},
		"blackhole":   {ports{astray: 1, limit: 128}, "  1 dark"},
		"lying-proxy": {ports{astray: 1, limit: 128}, "  1 lied to"},
	} {
		for _, sc := range scenes {
			if sc.name != name {
				continue
			}
			made, _ := sc.open(work{requests: 1, concurrency: 1, ports: 128})
			line := s.site(made, 0, c.p, 79)
			if !strings.HasSuffix(strings.TrimRight(line, " "), " 0 of 128"+c.want) || utf8.RuneCountInString(line) != 79 {
				t.Errorf("%s: %q", name, line)
			}
		}
	}
}

// standIns are lanes that are over, with numbers as large as they come.
func standIns(t *testing.T, s *scene) (lanes []*lane) {
	t.Helper()
	for _, c := range s.clients {
		servers := new(origins)
		for i := range s.sites {
			servers.at = append(servers.at, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)))
		}
		l := newLane(c, s, servers, &fauxnat.NAT{Path: s.path})
		l.sent, l.ok, l.failed, l.unsafe = 4_000, 20_000, 20_000, 20_000
		l.slowest, l.ran, l.over = 29999*time.Millisecond, 29900*time.Millisecond, c.name == natwise
		for i := range 3000 {
			at := time.Duration(i) * 10 * time.Millisecond
			l.took = append(l.took, at)
			l.ends = append(l.ends, end{at, i % len(s.sites), i%3 == 0})
			l.held = append(l.held, sample{at, i % 129, i % 3})
		}
		l.counts = fauxnat.Stats{Counts: fauxnat.Counts{Peak: 128, Opened: 20_000, RefusedSYNs: 99_999, Strayed: 20_000}}
		lanes = append(lanes, l)
	}
	return lanes
}

// counting counts what is written to it, a frame at a time.
type counting struct{ n int }

func (c *counting) Write(b []byte) (int, error) {
	c.n++
	return len(b), nil
}
