package main

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

const minute = time.Minute

// The habits of programs, each for a minute.
func oneARequest(m *machine, pid int) {
	for end := time.Now().Add(minute); time.Now().Before(end); time.Sleep(410 * time.Millisecond) {
		c := m.dial(pid, server, established)
		c.ask(90 * time.Millisecond)
		c.end(finished)
	}
}

// slowOverTLS hears something of its server long before the answer.
func slowOverTLS(m *machine, pid int) {
	var all sync.WaitGroup
	for end := time.Now().Add(minute); time.Now().Before(end); time.Sleep(3 * time.Second) {
		for i := range 6 {
			all.Go(func() {
				c := m.dial(pid, server, established)
				c.ask(90 * time.Millisecond)
				time.Sleep(4 * time.Second * time.Duration(i/5)) // the last of them
				c.end(finished)
			})
		}
	}
	all.Wait()
}

func closedByItsServer(m *machine, pid int) {
	for end := time.Now().Add(minute); time.Now().Before(end); time.Sleep(410 * time.Millisecond) {
		c := m.dial(pid, server, established)
		c.ask(90 * time.Millisecond)
		c.set(func() { c.state = closeWait })
		time.Sleep(500 * time.Millisecond)
		c.end(finished)
	}
}

func neverClosing(m *machine, pid int) {
	for end := time.Now().Add(minute); time.Now().Before(end); time.Sleep(800 * time.Millisecond) {
		go func() {
			c := m.dial(pid, server, established)
			c.ask(90 * time.Millisecond)
			c.set(func() { c.unread = 4096 })
		}()
	}
	time.Sleep(time.Second)
}

// pooled sends bursts of ten over a pool that keeps some.
func pooled(m *machine, pid, kept int) {
	var idle []*conn
	for end := time.Now().Add(minute); time.Now().Before(end); time.Sleep(4 * time.Second) {
		var all sync.WaitGroup
		for i := range 10 {
			if i >= len(idle) {
				idle = append(idle, m.dial(pid, server, established))
			}
			one := idle[i]
			all.Go(func() { one.ask(300 * time.Millisecond) })
		}
		all.Wait()
		for _, c := range idle[:10-kept] {
			c.end(finished)
		}
		idle = idle[10-kept:] // as Go does, whichever are done first
	}
}

// replacing uses each connection three times, with rests.
func replacing(m *machine, pid int) {
	for range 8 {
		c := m.dial(pid, server, established)
		for range 3 {
			c.ask(90 * time.Millisecond)
			time.Sleep(2 * time.Second)
		}
		c.end(finished)
	}
}

// resting has a pool whose connections idle out before they are used again.
func resting(m *machine, pid int) {
	busy := m.dial(pid, server, established)
	for range 2 {
		busy.ask(90 * time.Millisecond)
		var all sync.WaitGroup
		for range 6 {
			c := m.dial(pid, server, established)
			all.Go(func() {
				c.ask(90 * time.Millisecond)
				time.Sleep(20 * time.Second)
				c.end(finished)
			})
		}
		all.Wait()
	}
}

// filling opens what it needs, and then needs less.
func filling(m *machine, pid int) {
	for range 12 {
		c := m.dial(pid, server, established)
		c.ask(90 * time.Millisecond)
	}
	time.Sleep(50 * time.Second)
}

func abandoning(m *machine, pid int) {
	for range 8 {
		c := m.dial(pid, server, established)
		time.Sleep(time.Second)
		c.set(func() { c.state = closeWait })
	}
}

func hanging(m *machine, pid int) {
	m.dial(pid, server, established)
	for range 8 {
		c := m.dial(pid, server, synSent)
		time.Sleep(3 * time.Second)
		c.end(unanswered)
	}
}

func TestEachCauseIsToldAndNoOther(t *testing.T) {
	silent := func(edit func(*conn)) func(*machine, int) {
		return func(m *machine, pid int) {
			c := m.dial(pid, server, established)
			c.ask(time.Second)
			c.set(func() { edit(c) })
			time.Sleep(150 * time.Second)
		}
	}
	forSocketsOnly := azure
	forSocketsOnly.counted.Counts = netpath.Bytes
	tight := newPathway(netpath.Profile{Name: "tight", Limits: []netpath.Limit{{Scope: netpath.Destination, N: 12}}}, true)
	for name, c := range map[string]struct {
		path  pathway
		habit func(*machine, int)
		cause string
		what  []string // of what is said
	}{
		"one connection a request":       {azure, oneARequest, "short-lived", []string{"one use: 120 closed", "240 s more", "at this rate it takes 4"}},
		"one a request, slowly":          {azure, slowOverTLS, "short-lived", []string{"119 closed, open for"}},
		"closed by its server":           {azure, closedByItsServer, "short-lived", []string{"the server closes after one use: 60 closed"}},
		"never closed":                   {azure, neverClosing, "never-closed", []string{"75 opened, 0 closed", "nobody has read to its end", "128 ports are gone in 44 s"}},
		"two kept of ten":                {azure, func(m *machine, pid int) { pooled(m, pid, 2) }, "small-pool", []string{"up to 10 connections at once, of which it keeps 2", "MaxIdleConnsPerHost is 2", "closes the others after use: 86 closed"}},
		"three kept of ten":              {azure, func(m *machine, pid int) { pooled(m, pid, 3) }, "small-pool", []string{"it keeps 3"}},
		"a pool that fills up":           {azure, filling, "", nil},
		"a pool that is right":           {azure, func(m *machine, pid int) { pooled(m, pid, 10) }, "", nil},
		"replaced in its pool":           {azure, replacing, "replaced", []string{"8 closed, open for 6.", "240 s more"}},
		"idled out":                      {azure, resting, "short-lived", []string{"one use: 12 closed, open for 20 s"}},
		"so few that they do not matter": {newPathway(netpath.AWSNATGateway(1), true), resting, "", nil},
		"left in CLOSE_WAIT":             {azure, abandoning, "half-closed", []string{"8 connections in CLOSE_WAIT"}},
		"dials that hang":                {azure, hanging, "unanswered", []string{"8 dials got no answer, while 1 connection to the same place lives"}},
		"keepalive is off":               {azure, silent(func(c *conn) { c.keepalive, c.expires = false, 0 }), "too-silent", []string{"after 240 s of silence", "1 connection without keepalive"}},
		"keepalive comes too late":       {azure, silent(func(c *conn) { c.expires = 7050 * time.Second }), "too-silent", []string{"1 connection probed too late"}},
		"keepalive is in time":           {azure, silent(func(c *conn) { c.expires = time.Second }), "", nil},
		"keepalive that does not count":  {forSocketsOnly, silent(func(c *conn) { c.keepalive = false }), "", nil},
		"all that the path has":          {tight, func(m *machine, pid int) { pooled(m, pid, 10) }, "crowded", []string{"10 of 12 ports"}},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, m *machine) {
				m.process(shop, "shop")
				watch := "-for 61s"
				if strings.Contains(name, "keepalive") {
					watch = "-for 151s"
				}
				_, findings := m.watched(c.path, watch, func() {
					time.Sleep(time.Millisecond) // after the first look
					c.habit(m, shop)
				})
				switch {
				case c.cause == "" && len(findings) == 0:
					return
				case len(findings) != 1 || findings[0].Cause != c.cause:
					t.Fatalf("got %+v, want %q", findings, c.cause)
				}
				f := findings[0]
				if f.PID != shop || f.Process != "shop(41)" || netip.MustParseAddrPort(f.Destination) != server || f.Change == "" {
					t.Errorf("got %+v", f)
				}
				for _, what := range c.what {
					if !strings.Contains(f.What, what) {
						t.Errorf("%q is missing in %q", what, f.What)
					}
				}
			})
		})
	}
}

// What it keeps of a burst is not yet seen to rest, and was not used before it.
func TestAPoolIsKnownRightAfterABurstToo(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.process(shop, "shop")
		_, findings := m.watched(azure, "-for 47800ms", func() {
			time.Sleep(time.Millisecond)
			pooled(m, shop, 2)
		})
		if len(findings) != 1 || findings[0].Cause != "small-pool" || !strings.Contains(findings[0].What, "it keeps 2 ") {
			t.Errorf("got %+v", findings)
		}
	})
}
