package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

// Everything fits these columns, or those of a narrower terminal; a wider one is used
// up to mostCols.
const (
	columns   = 79
	mostCols  = 119
	nameWidth = 21 // http.DefaultTransport
)

// A screen tells people what happens: in place on a live terminal, in plain lines on
// paper.
type screen struct {
	terminal.Terminal
	out    io.Writer
	hidden bool // the cursor
	drawn  int  // lines of progress that the next ones replace
	cols   int  // that they were drawn for

	reported time.Time       // on paper: when all lines were printed last
	over     map[string]bool // on paper: whose end was printed
	err      error           // the first that out returned
}

func newScreen(out io.Writer, term terminal.Terminal) *screen {
	return &screen{Terminal: term, out: out, reported: time.Now(), over: make(map[string]bool)}
}

func (s *screen) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.out, format, args...)
	}
}

// width is how many columns text, tables and charts may have.
func (s *screen) width() int {
	cols, _ := s.Room()
	return min(cols, columns)
}

func (s *screen) name(name string) string {
	padded := fmt.Sprintf("%-*s", nameWidth, name)
	if name == natwise {
		return s.Paint(terminal.Green, padded)
	}
	return padded
}

// opening says what is about to happen.
func (s *screen) opening(sc *scene) {
	s.printf("\n")
	for _, n := range sc.intro {
		for line := range strings.Lines(terminal.Wrap(n.text, "", s.width())) {
			line = strings.TrimSuffix(line, "\n")
			if n.quiet {
				line = s.Paint(terminal.Faint, line)
			}
			s.printf("%s\n", line)
		}
	}
	s.printf("\n")
	for _, c := range sc.clients {
		s.printf("  %s  %s\n", s.name(c.name), s.Paint(terminal.Faint, terminal.Clip(c.what, s.width()-nameWidth-4)))
	}
	s.printf("\n")
	if s.Live {
		s.hidden = true
		s.printf("\x1b[?25l\x1b[?7l") // no cursor; cut long lines instead of wrapping
	}
}

// settle ends the progress, however it ended.
func (s *screen) settle() {
	if s.hidden {
		s.hidden = false
		s.printf("\x1b[?7h\x1b[?25h")
	}
}

// progress draws the frame anew; on paper, it prints a line a client every 3 s and when
// one is over.
func (s *screen) progress(sc *scene, lanes []*lane) {
	if s.Live {
		cols, rows := s.Room()
		if cols != s.cols { // the terminal has laid out anew what is there: nobody knows where it is
			s.cols, s.drawn = cols, 0
		}
		s.draw(s.frame(sc, lanes, min(cols, mostCols), rows-1))
		return
	}
	due := time.Since(s.reported) >= 3*time.Second
	if due {
		s.reported = time.Now()
	}
	for _, l := range lanes {
		p := l.standing()
		if s.over[l.name] || !due && !p.over {
			continue
		}
		s.over[l.name] = p.over
		end := ""
		if p.over {
			end = ", over"
		}
		s.printf("  %-*s %5.1f s %6s ok, %6s failed, %3d ports held%s\n", nameWidth, l.name, p.ran.Seconds(),
			terminal.Thousands(p.ok), terminal.Thousands(p.failed), p.ports, end)
	}
}

// draw replaces the lines that were drawn last.
func (s *screen) draw(lines []string) {
	for i, line := range lines {
		lines[i] = terminal.Clip(line, s.cols)
	}
	s.printf("%s", terminal.Frame(s.drawn, lines))
	s.drawn = len(lines)
}

// closing prints the table, the chart and what they mean.
func (s *screen) closing(sc *scene, v verdict, lanes []*lane) error {
	if v.Status == "skipped" {
		s.printf("%s\n\n", terminal.Wrap("This machine cannot show that: "+v.Reason+".", "", s.width()))
		return s.err
	}
	s.results(sc.table, v)
	s.printf("\n")
	for _, line := range sc.chart(s, lanes) {
		s.printf("%s\n", terminal.Clip(line, s.width()))
	}
	said := sc.told(v)
	if v.Status != "ok" {
		said = "This run did not show what it should: " + v.Bound + "."
	}
	s.printf("\n")
	for line := range strings.Lines(terminal.Wrap(said, "", s.width())) {
		s.printf("%s\n", s.Paint(terminal.Bold, strings.TrimSuffix(line, "\n")))
	}
	for _, l := range lanes {
		if unsent := l.unsent(); unsent > 0 {
			s.printf("%s\n", terminal.Wrap(fmt.Sprintf("%s was cut off after %v; %s requests that it had not sent count as failed.",
				l.name, span(sc.limit), terminal.Thousands(unsent)), "", s.width()))
		}
	}
	s.printf("\n")
	for line := range strings.Lines(sc.advice) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "    ") {
			line = "    " + s.Paint(terminal.Cyan, line[4:])
		}
		s.printf("%s\n", line)
	}
	s.printf("\n")
	return s.err
}
