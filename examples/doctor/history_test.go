package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// shop is a process that talks to the server.
const shop = 41

func TestAPortCoolsForTheHoldOfItsEnding(t *testing.T) {
	for _, c := range []struct {
		how  ending
		hold time.Duration
	}{
		{finished, 240 * time.Second}, {reset, 15 * time.Second}, {refused, 15 * time.Second}, {unanswered, 240 * time.Second},
		{unclear, 240 * time.Second}, // the longer of the two that it may be
	} {
		for _, late := range []time.Duration{-time.Second, time.Second} {
			inVirtualTime(t, func(t *testing.T, m *machine) {
				m.process(shop, "shop")
				uses, _ := m.watched(azure, fmt.Sprintf("-for %v", 2*time.Second+c.hold+late), func() {
					time.Sleep(time.Second)
					c1 := m.dial(shop, server, established)
					time.Sleep(time.Second)
					c1.end(c.how)
				})
				want := []int{1, 0}[max(0, late/time.Second)]
				got := 0
				for _, u := range uses {
					got += u.Cooling
				}
				if got != want || len(uses) > 0 && uses[0].Taken != want {
					t.Errorf("ending %d, %v after its hold: %+v", c.how, late, uses)
				}
			})
		}
	}
}

// What two looks have missed is gone. How it went is not known then, and the longer hold is
// booked, unless its last state tells.
func TestAKernelThatDoesNotTellOfEndsIsReadByItsStates(t *testing.T) {
	for _, c := range []struct {
		last uint8
		hold time.Duration
	}{{established, 15 * time.Second}, {lastAck, 12 * time.Second}, {synSent, 20 * time.Second}} {
		inVirtualTime(t, func(t *testing.T, m *machine) {
			m.deaf = true
			m.process(shop, "shop")
			path := azure.said
			path.Hold = netpath.Hold{FIN: 12 * time.Second, RST: 15 * time.Second, SYN: 20 * time.Second}
			h := newHistory(newPathway(path, true), time.Second)
			one := m.dial(shop, server, c.last)
			var s sight
			look := func() {
				m.look(&s)
				h.look(time.Now(), &s)
			}
			look()
			one.set(func() { one.state = closed })
			for range 2 {
				time.Sleep(time.Second)
				look()
			}
			booked := time.Now()
			for _, f := range h.flows {
				if f.free.Sub(booked) != c.hold {
					t.Errorf("after state %d the port is held for %v, want %v", c.last, f.free.Sub(booked), c.hold)
				}
			}
		})
	}
}

func TestOneLookMayMissWhatIsThere(t *testing.T) {
	h := newHistory(azure, time.Second)
	there := sight{seen: []sock{{local: netip.MustParseAddrPort("192.0.2.7:20000"), remote: server, cookie: 1, state: established}}}
	now := time.Now()
	for i, s := range []sight{there, {}, there, {}, {}} {
		h.look(now.Add(time.Duration(i)*time.Second), &s)
		for _, f := range h.flows {
			if gone := !f.ended.IsZero(); gone != (i == 4) {
				t.Errorf("look %d: gone is %v", i, gone)
			}
		}
	}
	if h.opened != 0 {
		t.Errorf("it was opened %d times", h.opened)
	}
}

// The TIME_WAIT has a cookie of its own, and may be seen first.
func TestTheEndThatIsToldAfterItsTimeWaitIsNoOtherConnection(t *testing.T) {
	h := newHistory(azure, time.Second)
	one := sock{local: netip.MustParseAddrPort("192.0.2.7:20000"), remote: server, cookie: 1, state: timeWait, expires: 59 * time.Second}
	now := time.Now()
	h.look(now, &sight{})
	h.look(now.Add(time.Second), &sight{seen: []sock{one}})
	one.cookie, one.state, one.how = 2, closed, finished
	h.look(now.Add(2*time.Second), &sight{gone: []sock{one}})
	if len(h.flows) != 1 || h.opened != 1 {
		t.Errorf("%d flows, opened %d times", len(h.flows), h.opened)
	}
}

// A port that was listened on once may be a client's later.
func TestAPortIsAServersOnlyWhileSomebodyListensAndForWhatCameThen(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.7:40000")
	listener := sock{local: local, cookie: 1, state: listening}
	came := sock{local: local, remote: netip.MustParseAddrPort("203.0.113.9:51000"), cookie: 2, state: established}
	left := came
	left.cookie, left.state, left.expires = 3, timeWait, timeWaitFor
	gone := came
	gone.state, gone.how = closed, finished
	goes := sock{local: local, remote: server, cookie: 4, state: established}

	h := newHistory(azure, time.Second)
	now := time.Now()
	for i, s := range []sight{
		{seen: []sock{listener}}, {seen: []sock{came}}, {}, {seen: []sock{came, goes}}, // one look may miss it
		{seen: []sock{left, goes}, gone: []sock{gone}}, {seen: []sock{goes}}, {seen: []sock{goes}},
	} {
		h.look(now.Add(time.Duration(i)*time.Second), &s)
	}
	if h.opened != 1 || len(h.flows) != 1 || h.flows[goes.tuple()] == nil || len(h.came) > 0 {
		t.Errorf("%d opened, %d kept, %d left behind", h.opened, len(h.flows), len(h.came))
	}
}

func TestItLooksAsOftenAsThatPays(t *testing.T) {
	for name, c := range map[string]struct {
		cost     time.Duration
		unseen   bool
		min, max int // looks in six seconds
	}{
		"as told":                          {0, false, 24, 25},
		"seldom where a look costs 50 ms":  {50 * time.Millisecond, false, 6, 7},
		"often where the owner is gone":    {0, true, 200, 301},
		"but not where a look costs 50 ms": {50 * time.Millisecond, true, 6, 7},
	} {
		inVirtualTime(t, func(t *testing.T, m *machine) {
			m.cost = c.cost
			m.process(shop, "shop")
			m.examine(azure, terminal.Terminal{}, "-for 6s", func() {
				for end := time.Now().Add(6 * time.Second); c.unseen && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					m.dial(shop, server, established).end(finished)
				}
			})
			if m.looks < c.min || m.looks > c.max {
				t.Errorf("%s: %d looks, want %d to %d", name, m.looks, c.min, c.max)
			}
		})
	}
}

func TestWhatIsCountedAndWhose(t *testing.T) {
	const other = 42
	private := netip.MustParseAddrPort("10.0.0.9:5432")
	closedLately := func(m *machine) {
		c := m.dial(shop, server, established)
		c.end(finished)
		c.closed = c.closed.Add(-55 * time.Second)
		m.gone = nil
	}
	for name, c := range map[string]struct {
		args   string
		before func(m *machine)
		do     func(m *machine)
		want   string
	}{
		"what was closed before the watch counts from its end": {args: "-for 50s", before: closedLately, want: "unknown 0+1;"},
		"what was closed longer ago is free":                   {args: "-for 200s", before: closedLately},
		"a port that is used again is one port": {args: "-for 5s", do: func(m *machine) {
			a := m.dial(shop, server, established)
			time.Sleep(time.Second)
			a.end(reset)
			b := m.dial(shop, server, established)
			b.set(func() { b.local = a.local })
		}, want: "shop(41) 1+0;"},
		"what nobody was seen to hold is the only one's who talks to it": {args: "-for 5s", do: func(m *machine) {
			m.dial(shop, server, established)
			time.Sleep(time.Second)
			m.dial(shop, server, established).end(finished)
		}, want: "shop(41) 1+1 guessed 1;"},
		"what may be two processes' is nobody's": {args: "-for 5s", do: func(m *machine) {
			m.dial(shop, server, established)
			for _, c := range []*conn{m.dial(other, server, established), m.dial(shop, server, established)} {
				c.set(func() { c.uid = shop })
			}
			time.Sleep(time.Second)
			m.socks[2].end(finished)
			brief := m.dial(shop, server, established)
			brief.end(reset) // nobody knows even where to
			m.dial(shop, server, established).end(finished)
		}, want: "shop(41) 1+1;other(42) 1+0;unknown 0+1;"},
		"who runs as somebody else is not guessed": {args: "-for 5s", do: func(m *machine) {
			m.dial(shop, server, established)
			time.Sleep(time.Second)
			m.dial(other, server, established).end(finished)
		}, want: "shop(41) 1+0;unknown 0+1;"},
		"a client costs its server nothing": {args: "-for 5s -all", do: func(m *machine) {
			l := m.dial(shop, netip.AddrPort{}, listening)
			c := m.dial(shop, server, established)
			c.set(func() { c.local = l.local })
		}, want: ""},
		"what the path does not count is not told": {args: "-for 5s", do: func(m *machine) { m.dial(shop, private, established) }, want: ""},
		"except with -all":                         {args: "-for 5s -all", do: func(m *machine) { m.dial(shop, private, established) }, want: "shop(41) 1+0 not counted;"},
		"which do not cool": {args: "-for 5s -all", do: func(m *machine) {
			c := m.dial(shop, private, established)
			time.Sleep(time.Second)
			c.end(finished)
		}, want: "shop(41) 0+0 not counted;"},
		"but not what is over, and nobody's": {args: "-for 50s -all", before: func(m *machine) {
			m.dial(shop, private, established).end(finished)
			m.gone = nil
		}, want: ""},
		"all runs of a program that ended are one": {args: "-for 9s", do: func(m *machine) {
			for pid := 50; pid < 53; pid++ {
				m.process(pid, "curl")
				c := m.dial(pid, server, established)
				time.Sleep(time.Second)
				c.end(finished)
				m.exit(pid)
			}
		}, want: "curl(ended) 0+3;"},
		"what ends after the path forgot it is free": {args: "-for 250s", do: func(m *machine) {
			c := m.dial(shop, server, established)
			time.Sleep(245 * time.Second)
			c.end(finished)
		}, want: "shop(41) 0+0;"},
		"a process that becomes another program has ended": {args: "-for 5s", do: func(m *machine) {
			m.dial(shop, server, established)
			time.Sleep(time.Second)
			m.process(shop, "curl")
			m.dial(shop, server, established)
		}, want: "curl(41) 1+0;shop(ended) 1+0;"},
		"with -pid there is nobody else": {args: "-for 5s -pid 42", do: func(m *machine) {
			m.dial(shop, server, established)
			m.dial(other, server, established)
		}, want: "other(42) 1+0;"},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, m *machine) {
				m.process(shop, "shop")
				m.process(other, "other")
				if c.before != nil {
					c.before(m)
				}
				uses, _ := m.watched(azure, c.args, func() {
					time.Sleep(time.Millisecond) // after the first look
					if c.do != nil {
						c.do(m)
					}
				})
				got := ""
				for _, u := range uses {
					got += fmt.Sprintf("%s %d+%d", u.Process, u.Busy+u.Idle, u.Cooling)
					if u.Guessed > 0 {
						got += fmt.Sprintf(" guessed %d", u.Guessed)
					}
					if !u.Counted {
						got += " not counted"
					}
					got += ";"
				}
				if got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestWhatThePathHasForgottenTakesNoPort(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		path := azure.said
		path.Hold.Idle = 30 * time.Second
		for _, at := range []struct {
			watch           string
			taken, departed int
		}{{"239s", 1, 0}, {"10s", 1, 1}, {"30s", 0, 1}} {
			if at.taken == 1 && at.departed == 0 {
				m.dial(shop, server, established)
			}
			uses, _ := m.watched(newPathway(path, true), "-for "+at.watch)
			if len(uses) != 1 || uses[0].Taken != at.taken || uses[0].Forgotten != at.departed {
				t.Errorf("after another %s: %+v", at.watch, uses)
			}
		}
	})
}
