package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/internal/terminal"
)

func someView() view {
	v := view{limit: 128, live: 96, held: 112, kept: 16, refused: 12_345, ran: 12340 * time.Millisecond}
	for i := range 8 {
		v.rows = append(v.rows, line{held: 12, waiting: 52, served: 1234 * i, failed: i, p99: 2004 * time.Millisecond, killed: i == 3})
	}
	return v
}

func TestAFrameFitsWhatThereIsOfTheTerminal(t *testing.T) {
	for cols := 60; cols <= mostCols; cols++ {
		lines := newScreen(nil, terminal.Terminal{}).frame(someView(), cols, 24)
		if len(lines) != 11 {
			t.Fatalf("%d columns: %d lines", cols, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > cols {
				t.Errorf("%d columns: %d in %q", cols, n, line)
			}
		}
	}
	for rows := 4; rows < 11; rows++ {
		if lines := newScreen(nil, terminal.Terminal{}).frame(someView(), 79, rows); len(lines) > rows+1 {
			t.Errorf("%d rows: %d lines\n%s", rows, len(lines), strings.Join(lines, "\n"))
		}
	}
}

func TestAFrameSaysWhoHoldsThePorts(t *testing.T) {
	lines := newScreen(nil, terminal.Terminal{}).frame(someView(), 79, 24)
	for at, want := range map[int]string{
		0:  "  process      held                           waiting  served  failed  p99 wait",
		4:  "  4  restarted   12 ███·······················     52   3,702       3  2,004 ms",
		9:  "  gateway       112 ███████████████████░░░··· of 128 ports, 12,345 SYNs refused",
		10: "  █ in use  ░ held after the end  · free  16 kept for the killed one     12.3 s",
	} {
		if lines[at] != want {
			t.Errorf("line %d is\n%q, want\n%q", at, lines[at], want)
		}
	}
}

func TestALiveFrameReplacesTheLastOne(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, terminal.Terminal{Live: true})
	s.begin(with)
	s.draw([]string{"a", "b"})
	s.draw([]string{"c"})
	s.settle()
	if got := out.String(); !strings.HasSuffix(got, "\r\x1b[2Ka\n\r\x1b[2Kb\n\x1b[2A\r\x1b[2Kc\n\x1b[J\x1b[?7h\x1b[?25h") {
		t.Errorf("got %q", got)
	}
}

func TestTheClosingSaysWhatTheNumbersSay(t *testing.T) {
	alone := result{Scenario: without, Ports: 128, RefusedSYNs: 400, Failed: 900, LeastServed: 6, MostServed: 3105, Status: "ok"}
	shared := result{Scenario: with, Ports: 128, PeakPorts: 128, LeastServed: 1537, MostServed: 1736, Status: "ok"}
	idle := alone
	idle.RefusedSYNs, idle.Failed = 0, 0
	missed := shared
	missed.Status, missed.Bound = "missed", "refused_syn 1, want 0"
	for want, played := range map[string][]result{
		"400 SYNs refused and lost 900 requests, and one of them got 6 answers while another got 3,105. " +
			"With a shared budget they had no SYN refused, lost no request, and got 1,537 to 1,736 answers each.": {alone, shared},
		"Each for itself, the processes had 400 SYNs refused and lost 900 requests.":                                {alone},
		"With a shared budget the processes held at most 128 of 128 ports, had no SYN refused and lost no request.": {shared},
		"These sizes do not exhaust 128 ports":                                                                      {idle, shared},
		"did not show what it should: The processes share a budget, budget.Host: refused_syn 1, want 0.":            {alone, missed},
	} {
		if got := told(played); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWhatAMachineCannotShowIsSkippedWithTheReason(t *testing.T) {
	var out bytes.Buffer
	err := newScreen(&out, terminal.Terminal{}).closing([]result{{Scenario: with, Status: "skipped", Reason: "no such locks"}})
	if err != nil || !strings.Contains(out.String(), "no such locks.") || strings.Contains(out.String(), "SYN") {
		t.Errorf("%v: %s", err, &out)
	}
}
