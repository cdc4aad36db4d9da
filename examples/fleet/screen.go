package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/internal/terminal"
)

// Everything fits these columns, or those of a narrower terminal; a wider one is used up to
// mostCols.
const (
	columns  = 79
	mostCols = 119
)

// lineEvery is how often there is news on paper.
const lineEvery = 4 * time.Second

// A screen tells people what happens: in place on a live terminal, in plain lines on paper.
type screen struct {
	terminal.Terminal
	out      io.Writer
	scenario string
	hidden   bool          // the cursor
	drawn    int           // lines that the next frame replaces
	cols     int           // that they were drawn for
	told     time.Duration // on paper: the time of the run when there was news last
	err      error         // the first that out returned
}

func newScreen(out io.Writer, term terminal.Terminal) *screen {
	return &screen{Terminal: term, out: out}
}

func (s *screen) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.out, format, args...)
	}
}

// width is how many columns text and tables may have.
func (s *screen) width() int {
	cols, _ := s.Room()
	return min(cols, columns)
}

// opening says what is about to happen.
func (s *screen) opening(p plan) {
	hold := natPath(p.ports, p.scale).Hold
	full := natPath(p.ports, 1).Hold
	s.printf("\n%s\n", terminal.Wrap(fmt.Sprintf("%d processes behind one NAT of %d ports. Each of them always has %d requests for a server that answers after %s. "+
		"Half way, the one that holds the most is killed and started again.", p.processes, p.ports, p.want(), span(p.service)), "", s.width()))
	for line := range strings.Lines(terminal.Wrap(fmt.Sprintf("The NAT's timers are those of Azure's load balancer and run %d times as fast here: "+
		"a port is held %s after a FIN, not %s, and %s after a RST, not %s. A request has %s, unscaled.",
		p.scale, span(hold.FIN), span(full.FIN), span(hold.RST), span(full.RST), span(p.timeout())), "", s.width())) {
		s.printf("%s\n", s.Paint(terminal.Faint, strings.TrimSuffix(line, "\n")))
	}
}

var titles = map[string]string{
	without: "Each process counts for itself",
	with:    "The processes share a budget, budget.Host",
}

// begin says which run begins.
func (s *screen) begin(scenario string) {
	s.printf("\n%s\n", s.Paint(terminal.Bold, titles[scenario]))
	s.scenario, s.drawn, s.told = scenario, 0, 0
	if s.Live {
		s.hidden = true
		s.printf("\x1b[?25l\x1b[?7l") // no cursor; cut long lines instead of wrapping
	}
}

// settle ends what begin began, however it ended.
func (s *screen) settle() {
	if s.hidden {
		s.hidden = false
		s.printf("\x1b[?7h\x1b[?25h")
	}
}

// progress draws the frame anew; on paper it prints one now and then.
func (s *screen) progress(f *fleet) {
	v := f.view()
	if s.Live {
		cols, rows := s.Room()
		if cols != s.cols { // the terminal has laid out anew what is there: nobody knows where it is
			s.cols, s.drawn = cols, 0
		}
		s.draw(s.frame(v, min(cols, mostCols), rows-1))
		return
	}
	if v.ran-s.told < lineEvery && (v.ran < f.lasts || s.told >= f.lasts) {
		return
	}
	s.told = v.ran
	for _, line := range s.frame(v, columns, len(v.rows)+3) {
		s.printf("%s\n", line)
	}
	s.printf("\n")
}

// draw replaces the lines that were drawn last.
func (s *screen) draw(lines []string) {
	s.printf("%s", terminal.Frame(s.drawn, lines))
	s.drawn = len(lines)
}

// A view is what a frame shows: a copy.
type view struct {
	rows    []line
	limit   int
	live    int // ports in use, as the NAT has it
	held    int // those included that it still holds
	kept    int // of these, by the budget for the killed process
	refused int // SYNs
	ran     time.Duration
}

// A line is a process in a view.
type line struct {
	held, waiting, served, failed int
	p99                           time.Duration
	killed                        bool
}

func (f *fleet) view() view {
	counts := f.counts()
	f.mu.Lock()
	defer f.mu.Unlock()
	v := view{
		limit: f.ports, live: counts.Live, held: counts.Held, refused: counts.RefusedSYNs,
		kept: f.keptLocked(), ran: time.Since(f.start),
	}
	for _, r := range f.rows {
		v.rows = append(v.rows, line{r.Held, r.Waiting, r.served, r.failed, p99(r.waits), r.killed})
	}
	return v
}

// The states of a port at the gateway, as they are drawn: told apart without colours too.
const (
	liveCell = "█"
	heldCell = "░"
	freeCell = "·"
)

const (
	nameWidth = len("  12 restarted ")
	tailWidth = len(" 1,234  12,345   1,234  12,345 ms")
	heldWidth = len(" 128 ")
)

// frame is the live view: who holds how many ports, what became of its requests, and what
// the gateway says. Where there is no room for all processes, the last are left out.
func (s *screen) frame(v view, cols, rows int) (lines []string) {
	bar := cols - nameWidth - tailWidth - heldWidth
	head := fmt.Sprintf("  %-*s%4s %*s%7s %7s %7s %9s", nameWidth-2, "process", "held", max(0, bar), "", "waiting", "served", "failed", "p99 wait")
	lines = append(lines, s.Paint(terminal.Faint, head))
	for i, r := range v.rows {
		if len(lines) == rows-2 && i < len(v.rows)-1 {
			lines = append(lines, s.Paint(terminal.Faint, fmt.Sprintf("  and %d more", len(v.rows)-i)))
			break
		}
		lines = append(lines, s.row(i, r, v.limit, bar))
	}
	return append(lines, s.total(v, cols), s.legend(v, cols))
}

func (s *screen) row(i int, r line, limit, bar int) string {
	name := fmt.Sprintf("  %-*s", nameWidth-2, strconv.Itoa(i+1))
	if r.killed {
		name = fmt.Sprintf("  %-3d", i+1) + s.Paint(terminal.Yellow, fmt.Sprintf("%-*s", nameWidth-5, "restarted"))
	}
	failed := fmt.Sprintf("%7s", terminal.Thousands(r.failed))
	if r.failed > 0 {
		failed = s.Paint(terminal.Red, failed)
	}
	return fmt.Sprintf("%s%4d %s%7s %7s %s %9s", name, r.held, s.bar(r.held, 0, limit, bar),
		terminal.Thousands(r.waiting), terminal.Thousands(r.served), failed, milliseconds(r.p99))
}

// total is the gateway's own count.
func (s *screen) total(v view, cols int) string {
	head := fmt.Sprintf("  %-*s%4d ", nameWidth-2, "gateway", v.held)
	tail := fmt.Sprintf(" of %d ports, %s SYNs refused", v.limit, terminal.Thousands(v.refused))
	bar := s.bar(v.live, v.held-v.live, v.limit, cols-len(head)-len(tail))
	if v.refused > 0 {
		tail = s.Paint(terminal.Red, tail)
	}
	return head + bar + tail
}

// bar shows what is in use and what is only held, of a limit.
func (s *screen) bar(live, held, limit, width int) string {
	if width < 4 {
		return strings.Repeat(" ", max(0, width))
	}
	cells := func(n int) int { return min(width, (n*width+limit-1)/limit) } // whatever there is has one
	first := cells(live)
	second := max(first, cells(live+held))
	return s.Paint(terminal.Green, strings.Repeat(liveCell, first)) +
		s.Paint(terminal.Magenta, strings.Repeat(heldCell, second-first)) +
		s.Paint(terminal.Faint, strings.Repeat(freeCell, width-second))
}

// legend says what the gateway's bar shows, what the budget keeps and how late it is, as far
// as there is room.
func (s *screen) legend(v view, cols int) string {
	parts := []struct {
		text  string
		paint terminal.Colour
	}{
		{"  " + liveCell + " in use  " + heldCell + " held after the end  " + freeCell + " free", terminal.Faint},
		{fmt.Sprintf("  %d kept for the killed one", v.kept), terminal.Yellow},
	}
	if v.kept == 0 {
		parts = parts[:1]
	}
	clock := fmt.Sprintf("  %.1f s", v.ran.Seconds())
	room := cols - len(clock)
	var line strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		if n := utf8.RuneCountInString(parts[i].text); n > room {
			parts[i].text = ""
		} else {
			room -= n
		}
	}
	for _, p := range parts {
		line.WriteString(s.Paint(p.paint, p.text))
	}
	return line.String() + strings.Repeat(" ", room) + clock
}
