package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// other is another server, by its number.
func other(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(101 + i/250), byte(1 + i%250)}), 443)
}

// crowd has a crawler with a connection to each of many servers, and many workers that
// never look at what the server has closed.
func crowd(m *machine, servers, workers int) {
	m.process(shop, "crawler")
	for i := range servers {
		m.dial(shop, other(i), established)
	}
	for i := range workers {
		m.process(1000+i, "worker")
		for range few {
			m.dial(1000+i, other(i%40), closeWait)
		}
	}
}

func TestTheReportIsShortHoweverMuchThereIsAndBeginsWithWhatIsWrong(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		const servers, workers = 600, 100
		crowd(m, servers, workers)
		status, out, _ := m.examine(azure, terminal.Terminal{}, "-for 3s")
		if lines := strings.Count(out, "\n"); status != 1 || lines > 100 {
			t.Errorf("status %d, %d lines", status, lines)
		}
		last := -1
		for _, want := range []string{"What is wrong\n", "half-closed\n", " and 96 more.\n", "What it carries\n", " destinations more, ", "What the path does\n"} {
			at := strings.Index(out, want)
			if at <= last {
				t.Errorf("%q is missing, or in the wrong place:\n%s", want, out)
			}
			last = at
		}
		_, out, _ = m.examine(azure, terminal.Terminal{}, "-for 3s -json")
		if uses, findings := told[useLine](t, []byte(out), "use"), told[finding](t, []byte(out), "finding"); len(uses) != servers+workers || len(findings) != workers {
			t.Errorf("-json has %d uses and %d findings", len(uses), len(findings))
		}
	})
}

func TestWhatIsLeftOutOfTheTableIsSummedUp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		for i := range 30 {
			m.process(1000+i, "worker")
			m.dial(1000+i, server, established)
		}
		m.process(shop, "shop")
		for i := range 50 {
			m.dial(shop, other(i), established)
		}
		_, out, _ := m.examine(azure, terminal.Terminal{}, "-for 3s")
		for _, want := range []string{"\n  and 28 more             0    28 ", "\nand 34 destinations more, 34 taken\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing:\n%s", want, out)
			}
		}
	})
}

func TestKindsOfFindingsAreBoundedToo(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		for i := range 30 {
			m.process(1000+i, fmt.Sprint("program-", i))
			for range few {
				m.dial(1000+i, server, closeWait)
			}
		}
		_, out, _ := m.examine(azure, terminal.Terminal{}, "-for 3s")
		if n := strings.Count(out, "in CLOSE_WAIT"); n != mostKinds || !strings.Contains(out, fmt.Sprintf("  and %d kinds more\n", 30-mostKinds)) {
			t.Errorf("%d are told:\n%s", n, out)
		}
	})
}

func TestTheViewTellsWhatIsWrongFirstAndFillsTheWindow(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}} {
		inVirtualTime(t, func(t *testing.T, m *machine) {
			crowd(m, 100, 50)
			for i := range 8 {
				m.process(2000+i, fmt.Sprint("program-", i))
				for range few {
					m.dial(2000+i, server, closeWait)
				}
			}
			_, out, _ := m.examine(azure, terminal.Terminal{Live: true, Size: func() (int, int) { return size[0], size[1] }}, "-watch -for 4s")
			frame := out[strings.LastIndex(out, "\x1b[H"):strings.LastIndex(out, "\x1b[J")]
			if rows := strings.Count(frame, "\n"); rows >= size[1] || rows < size[1]-3 || strings.Contains(frame, "lines more") {
				t.Errorf("%v: %d rows:\n%s", size, rows, frame)
			}
			wrong, table, left := strings.Index(frame, ": half-closed"), strings.Index(frame, "   busy"), strings.Index(frame, "destinations more, ")
			if wrong < 0 || table < wrong || left < table || !strings.Contains(frame, " free\x1b[K\n") {
				t.Errorf("%v:\n%s", size, frame)
			}
			for i := range 8 {
				if want := fmt.Sprintf("program-%d(%d) to %v: half-closed", i, 2000+i, server); !strings.Contains(frame, want) {
					t.Errorf("%v: %q is missing:\n%s", size, want, frame)
				}
			}
		})
	}
}

func TestWhatThePathDoesNotCountIsSearchedForLeaksAndHasNoLimit(t *testing.T) {
	private := netip.MustParseAddrPort("10.0.0.9:5432")
	leak := func(m *machine) {
		for i := range 140 {
			c := m.dial(shop, private, established)
			c.ask(90 * time.Millisecond)
			if i%2 > 0 {
				c.set(func() { c.state = closeWait })
			}
		}
		for range 10 {
			c := m.dial(42, private, established)
			c.set(func() { c.keepalive, c.expires = false, 0 })
			c = m.dial(42, private, synSent)
			time.Sleep(2 * time.Second)
			c.end(unanswered)
			c = m.dial(42, private, established)
			c.ask(90 * time.Millisecond)
			c.end(finished)
		}
		time.Sleep(250 * time.Second)
	}
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		m.process(42, "api")
		uses, findings := m.watched(azure, "-for 290s -all", func() { time.Sleep(time.Millisecond); leak(m) })
		got := ""
		for _, f := range findings {
			got += f.Process + " " + f.Cause + " " + f.Destination + ";"
		}
		if want := "shop(41) half-closed 10.0.0.9:5432;"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		for _, u := range uses {
			if u.Counted || u.Limit != netpath.None || u.Cooling > 0 || u.Forgotten > 0 || u.Taken != 150 {
				t.Errorf("got %+v", u)
			}
		}
	})
	for args, want := range map[string][]string{
		"-for 290s":              {"No connection was seen that the path counts\n", "150 connections that the path does not count, as within this machine"},
		"-for 290s -all":         {"half-closed\n", "150 open, not counted\n", "what else is wrong with 150 connections"},
		"-for 290s -all -pid 42": {"No leak was seen in 10 connections, none of which the path counts\n"},
	} {
		inVirtualTime(t, func(t *testing.T, m *machine) {
			m.process(shop, "shop")
			m.process(42, "api")
			_, out, _ := m.examine(azure, terminal.Terminal{}, args, func() { time.Sleep(time.Millisecond); leak(m) })
			for _, text := range want {
				if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.TrimSpace(text)) {
					t.Errorf("%s: %q is missing:\n%s", args, text, out)
				}
			}
		})
	}
}

func TestWithAPidWhatMayBeItsIsMissedAllTheSame(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		m.process(42, "api")
		_, out, _ := m.examine(azure, terminal.Terminal{}, "-for 3s -pid 41", func() {
			time.Sleep(time.Millisecond)
			m.dial(shop, server, established)
			m.dial(42, server, established).set(func() { m.socks[1].uid = shop })
			time.Sleep(time.Second)
			for range 9 {
				m.dial(shop, server, established).end(finished)
			}
		})
		for _, want := range []string{"Nothing wrong was seen in 1 connection that the path counts\n", "whose 9 connections were"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing:\n%s", want, out)
			}
		}
	})
}

func TestALimitOfAllDestinationsTogetherCanBeCrowded(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		m.process(42, "api")
		for i := range 30 {
			m.dial(shop, other(i), established)
			m.dial(42, server, established)
		}
		path := newPathway(netpath.Profile{Name: "small", Limits: []netpath.Limit{{Scope: netpath.Sockets, N: 70}}}, true)
		_, findings := m.watched(path, "-for 3s")
		if len(findings) != 1 || findings[0].Cause != "crowded" || findings[0].PID != 42 || !strings.HasPrefix(findings[0].What, "60 of 70 are taken (open connections)") {
			t.Errorf("got %+v", findings)
		}
	})
}

func TestAProcessThatHidIsForgottenWhenItEnds(t *testing.T) {
	m := newMachine(t)
	m.process(77, "box")
	p := newProc(m.root)
	p.hidden[77], p.hidden[78] = true, true
	if p.bury(); len(p.hidden) != 1 || !p.hidden[77] {
		t.Errorf("hidden: %v", p.hidden)
	}
	// It shows what it has: another program has its number.
	if p.search(77, map[uint32]*flow{1: {}}); len(p.hidden) != 0 {
		t.Errorf("hidden: %v", p.hidden)
	}
}

func TestTheHintNamesAProgramThatIsThereWhenItIsFollowed(t *testing.T) {
	for called, want := range map[string]string{
		"/tmp/go-build3316/b001/exe/doctor":      "doctor",
		"/root/.cache/go-build/ab/ab01-d/doctor": "doctor",
		"/usr/local/bin/doctor":                  "/usr/local/bin/doctor",
		"./doctor":                               "./doctor",
	} {
		if got := again(called); got != want {
			t.Errorf("%s: %q, want %q", called, got, want)
		}
	}
}

func TestWhereNobodyKnowsALimitItIsNotSaidThatThePortsSuffice(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		m.dial(shop, server, established)
		for path, want := range map[string]bool{"unknown": true, "azure-app-service": false} {
			_, out, _ := m.examineAs(pathOf, terminal.Terminal{}, "-for 3s -path "+path)
			if got := strings.Contains(out, "whether the ports run out: nobody knows"); got != want {
				t.Errorf("%s: said is %v:\n%s", path, got, out)
			}
		}
	})
}

func TestWhatBeginsAfterTheLastLookIsNotMissed(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		m.cost = 200 * time.Millisecond // so that it looks every 4 s
		for watch, missed := range map[string]bool{"-for 10s": false, "-for 14s": true} {
			_, out, _ := m.examine(azure, terminal.Terminal{}, watch, func() {
				time.Sleep(9 * time.Second)
				m.dial(shop, server, established).end(reset) // never seen before, it leads nowhere
			})
			if got := strings.Contains(out, "1 connection of the 1 that the kernel has counted"); got != missed {
				t.Errorf("%s: told is %v:\n%s", watch, got, out)
			}
		}
	})
}

func TestABarIsFullWhereThereIsNoPortLeft(t *testing.T) {
	path := newPathway(netpath.Profile{Name: "tight", Limits: []netpath.Limit{{Scope: netpath.Destination, N: 12}}}, true)
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		for range 12 {
			m.dial(shop, server, established)
		}
		_, out, _ := m.examine(path, terminal.Terminal{}, "-for 3s")
		if !strings.Contains(out, "▓ 12 of 12\n") {
			t.Error(out)
		}
	})
}
