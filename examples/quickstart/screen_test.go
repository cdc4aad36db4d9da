package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/internal/terminal"
)

func TestOnPaperThereIsNoCodeAndNoLineIsTooLong(t *testing.T) {
	_, out, _ := runFor(t.Context(), "-requests", "30", "-concurrency", "10", "-service", "1ms")
	if strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("codes in %q", out)
	}
	fits(t, out, 79)
	for _, want := range []string{"60 times as fast", "These sizes do not exhaust 128 ports", "netpath.AzureAppService()", "30 ok,"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestATerminalGetsItsCursorBack(t *testing.T) {
	out := onTerminal(t, 80, 24, true, "-requests", "30", "-concurrency", "10", "-service", "1ms")
	hidden, shown := strings.LastIndex(out, "\x1b[?25l"), strings.LastIndex(out, "\x1b[?25h")
	if hidden < 0 || shown < hidden {
		t.Errorf("hidden at %d, shown at %d", hidden, shown)
	}
	if !strings.Contains(out, "\x1b[8A") {
		t.Error("nothing was redrawn")
	}
}

func TestWithoutColoursATerminalIsStillDrawnOver(t *testing.T) {
	out := onTerminal(t, 80, 24, false, "-requests", "30", "-concurrency", "10", "-service", "1ms")
	if !strings.Contains(out, "\x1b[8A") {
		t.Error("nothing was redrawn")
	}
	if painted := regexp.MustCompile(`\x1b\[[0-9;]*m`).FindString(out); painted != "" {
		t.Errorf("painted with %q", painted)
	}
}

func TestEverySceneFitsItsTerminal(t *testing.T) {
	for _, cols := range []int{40, 60, 80, 120, 200} {
		for _, rows := range []int{24, 6} {
			for _, sc := range scenes {
				s, err := sc.open(work{requests: 9, concurrency: 3, ports: 128})
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				screen := newScreen(&out, terminal.Terminal{Live: true, Size: func() (int, int) { return cols, rows }})
				screen.opening(s)
				lanes := standIns(t, s)
				screen.progress(s, lanes)
				frame := screen.drawn
				screen.settle()
				v := newVerdict(s, lanes)
				v.Status = "ok"
				if err := screen.closing(s, v, lanes); err != nil {
					t.Fatal(err)
				}
				fits(t, strings.TrimSuffix(out.String(), s.advice+"\n"), min(cols, 120)-1) // code is not cut
				fits(t, s.advice, 79)
				if frame >= rows {
					t.Errorf("%s: the frame has %d lines on a terminal of %d", s.name, frame, rows)
				}
			}
		}
	}
}

func TestNoMoreThanTenFramesASecond(t *testing.T) {
	s := idle(visits{times: 2, atOnce: 1, scale: 1})
	inMemory(t, func(t *testing.T, on network) {
		var w counting
		screen := newScreen(&w, terminal.Terminal{Live: true})
		start := time.Now()
		if _, err := race(t.Context(), s, on, func(lanes []*lane) { screen.progress(s, lanes) }); err != nil {
			t.Fatal(err)
		}
		lasted := time.Since(start)
		if most := int(lasted.Seconds()*10) + 2; w.n > most || w.n < most/2 {
			t.Errorf("%d frames in %v", w.n, lasted)
		}
	})
}

func TestAScreenThatCannotBeWrittenToIsAnError(t *testing.T) {
	var errs bytes.Buffer
	if status := run(t.Context(), []string{"-requests", "1"}, full{}, &errs, terminal.Terminal{}); status != 1 || errs.String() != "quickstart: disk full\n" {
		t.Errorf("status %d, error %q", status, &errs)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWhatIsNoTerminalIsPaper(t *testing.T) {
	for _, name := range []string{os.DevNull, os.Args[0]} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if term := terminal.Of(f); term.Live || term.Colour {
			t.Errorf("%s is taken for a terminal", name)
		}
	}
}

func TestATerminalThatDoesNotKnowItsSizeHasTheUsualOne(t *testing.T) {
	for _, term := range []terminal.Terminal{{}, {Size: func() (int, int) { return 0, 0 }}} {
		if cols, rows := term.Room(); cols != 79 || rows != 24 {
			t.Errorf("%d columns, %d rows", cols, rows)
		}
	}
}

func TestNumbersAsPeopleWriteThem(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := terminal.Thousands(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 ms", 1500 * time.Microsecond: "1.5 ms", 250 * time.Millisecond: "250 ms", 240 * time.Second: "240 s"} {
		if got := span(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// onTerminal is what a run prints on a terminal of that size.
func onTerminal(t *testing.T, cols, rows int, colour bool, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	term := terminal.Terminal{Live: true, Colour: colour, Size: func() (int, int) { return cols, rows }}
	if status := run(t.Context(), args, &out, &out, term); status != 0 {
		t.Fatalf("status %d: %s", status, &out)
	}
	return out.String()
}

// fits checks that no line of out is wider than so many columns.
func fits(t *testing.T, out string, cols int) {
	t.Helper()
	codes := regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]|\r`)
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(codes.ReplaceAllString(line, ""), "\n")); n > cols {
			t.Errorf("%d columns, want %d: %s", n, cols, line)
		}
	}
}

func TestWhenTheWindowIsResizedTheViewBeginsAnew(t *testing.T) {
	s, err := scenes[0].open(work{requests: 9, concurrency: 3, ports: 128})
	if err != nil {
		t.Fatal(err)
	}
	cols, rows := 80, 24
	var out bytes.Buffer
	screen := newScreen(&out, terminal.Terminal{Live: true, Size: func() (int, int) { return cols, rows }})
	lanes := standIns(t, s)
	drawnOver := func(want string, when string) {
		t.Helper()
		out.Reset()
		screen.progress(s, lanes)
		if got := regexp.MustCompile(`^(\x1b\[\d+A)?`).FindString(out.String()); got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	drawnOver("", "first")
	drawnOver("\x1b[8A", "again")
	cols = 60
	drawnOver("", "narrower")
	drawnOver("\x1b[8A", "again")
	rows = 6 // a line a client
	drawnOver("\x1b[8A", "lower")
	if !strings.HasSuffix(out.String(), "\x1b[J") {
		t.Error("what is left below is not taken away")
	}
	drawnOver("\x1b[3A", "again")
}
