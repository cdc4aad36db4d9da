package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestTheChartMarksTheLimitAndNothingElseInFull(t *testing.T) {
	second := func(held ...int) (ss []sample) {
		for i, n := range held {
			ss = append(ss, sample{time.Duration(i) * time.Second, n})
		}
		return ss
	}
	got := newScreen(nil, false).chart([]curve{
		{"client-per-request", second(0, 127, 128, 128, 64, 1, 0, 0, 18, 19), 9 * time.Second},
		{"natwise", second(100, 100, 20, 20), 3 * time.Second},
		{"never", nil, 0},
	}, 128)
	want := []string{
		"  client-per-request           ▇▇▇▇▇▇████████████▄▄▄▄▄▄▁▁▁▁▁▁            ▁▁▁▁▁▂",
		"  natwise                ▆▆▆▆▆▆▆▆▆▆▆▆▂▂▂▂▂▂ over after 3.0 s",
		"  never                    over after 0.0 s",
		"                         0 s ──────────────────────────────────────────── 9.0 s",
		"                         █ all 128 ports taken: the limit",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAPeakBetweenTwoColumnsIsNotLost(t *testing.T) {
	held := []sample{{0, 1}, {1, 128}, {2, 3}, {25, 7}}
	if got := buckets(held, 3, 10); got[0] != 128 || got[1] != 3 || got[2] != 7 {
		t.Errorf("got %v", got)
	}
}

func TestOnPaperThereIsNoCodeAndNoLineIsTooLong(t *testing.T) {
	_, out, _ := runFor(t.Context(), "-requests", "30", "-concurrency", "10", "-service", "1ms")
	if strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("codes in %q", out)
	}
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"60 times as fast", "These sizes do not exhaust 128 ports", "netpath.AzureAppService()", "30 of 30,"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestATerminalGetsItsCursorBack(t *testing.T) {
	var out bytes.Buffer
	if status := run(t.Context(), []string{"-requests", "30", "-concurrency", "10", "-service", "1ms"}, &out, &out, true); status != 0 {
		t.Fatalf("status %d: %s", status, &out)
	}
	hidden, shown := strings.LastIndex(out.String(), "\x1b[?25l"), strings.LastIndex(out.String(), "\x1b[?25h")
	if hidden < 0 || shown < hidden {
		t.Errorf("hidden at %d, shown at %d", hidden, shown)
	}
	if !strings.Contains(out.String(), "\x1b[3A") {
		t.Error("nothing was redrawn")
	}
}

func TestWhatHappenedIsWhatTheNumbersSay(t *testing.T) {
	other := func(failed, dropped int) result {
		return result{Name: "other", Requests: 1200, OK: 1200 - failed, Failed: failed, RefusedSYN: dropped, FlowsOpened: 128}
	}
	ours := result{Name: natwise, Requests: 1200, OK: 1200, FlowsOpened: 100}
	for _, c := range []struct {
		other result
		want  string
	}{
		{other(1000, 3000), "Of 1,200 requests, other lost 1,000: the NAT had no port left and dropped 3,000 SYNs."},
		{other(0, 3000), "costs time, not requests"},
		{other(0, 0), "no SYN was dropped and no request failed, so this run shows no difference"},
		{other(7, 0), "other lost 7, but not for want of ports"},
	} {
		if got := happened(verdict{Status: "ok", Limit: 128, Clients: []result{c.other, ours}}); !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestAScreenThatCannotBeWrittenToIsAnError(t *testing.T) {
	var errs bytes.Buffer
	if status := run(t.Context(), []string{"-requests", "1"}, full{}, &errs, false); status != 1 || errs.String() != "quickstart: disk full\n" {
		t.Errorf("status %d, error %q", status, &errs)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestNumbersAsPeopleWriteThem(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 ms", 1500 * time.Microsecond: "1.5 ms", 250 * time.Millisecond: "250 ms", 240 * time.Second: "240 s"} {
		if got := span(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
