package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"
)

// A terminal is what the output can do. The zero terminal is paper.
type terminal struct {
	live   bool                    // it can be drawn on
	colour bool                    // and painted
	size   func() (cols, rows int) // it may change; nil, or zeros: the usual size
}

// terminalOf looks at f and the environment: NO_COLOR takes the colours, TERM=dumb all.
func terminalOf(f *os.File) terminal {
	if _, _, ok := windowSize(f); !ok || os.Getenv("TERM") == "dumb" {
		return terminal{}
	}
	if runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return terminal{} // a console that may print the codes instead of obeying them
	}
	return terminal{live: true, colour: os.Getenv("NO_COLOR") == "", size: func() (cols, rows int) {
		cols, rows, _ = windowSize(f)
		return cols, rows
	}}
}

// room is how many columns may be written to, and how many rows.
func (t terminal) room() (cols, rows int) {
	if t.size != nil {
		cols, rows = t.size()
	}
	if cols <= 0 {
		cols = 80
	}
	if rows <= 0 {
		rows = 24
	}
	return min(cols-1, 110), rows // the last column is not to be relied on
}

// A colour is the number of its code.
type colour int

const (
	bold    colour = 1
	faint   colour = 2
	red     colour = 31
	green   colour = 32
	yellow  colour = 33
	blue    colour = 34
	magenta colour = 35
)

func (t terminal) paint(c colour, text string) string {
	if !t.colour || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

// A screen shows what is taken while we watch: in place on a terminal, and below each
// other on paper. A terminal's old contents come back with settle.
type screen struct {
	terminal
	out   io.Writer
	drawn bool
	err   error // the first that out returned
}

func newScreen(out io.Writer, term terminal) screen { return screen{terminal: term, out: out} }

// pause is how long to wait between two frames.
func (s *screen) pause() time.Duration {
	if s.live {
		return frameEvery
	}
	return lineEvery
}

// show draws a frame.
func (s *screen) show(c *chart) {
	cols, rows := s.room()
	var frame bytes.Buffer // one write a frame, or it flickers
	if !s.live {
		rows = 1 << 20
	} else if !s.drawn {
		frame.WriteString("\x1b[?1049h\x1b[?25l\x1b[?7l") // another page, no cursor, no wrapping
	}
	lines := s.frame(c, cols)
	rows = max(rows, 4)
	if len(lines) > rows-1 {
		lines = append(lines[:rows-2], s.paint(faint, fmt.Sprintf("  and %d lines more", len(lines)-rows+2)))
	}
	if s.live {
		frame.WriteString("\x1b[H")
	}
	for _, line := range lines {
		if s.live {
			line += "\x1b[K"
		}
		frame.WriteString(line + "\n")
	}
	if s.live {
		frame.WriteString("\x1b[J")
	}
	s.drawn = true
	if s.err == nil {
		_, s.err = s.out.Write(frame.Bytes())
	}
}

// settle gives the terminal back.
func (s *screen) settle() {
	if s.live && s.drawn {
		fmt.Fprint(s.out, "\x1b[?7h\x1b[?25h\x1b[?1049l")
	}
}

// frame is the live view: what the path is, what is taken of it, and what is wrong.
func (s *screen) frame(c *chart, cols int) []string {
	head := fmt.Sprintf("doctor: %s, holds a port for %s after its end", c.path.said.Name, span(c.path.hold(finished)))
	clock := span(c.now.Sub(c.began).Truncate(time.Second))
	lines := []string{s.paint(bold, head) + fmt.Sprintf("%*s", max(2, cols-utf8.RuneCountInString(head)), clock), ""}
	lines = append(append(lines, s.table(c, cols)...), "")
	for _, f := range c.findings {
		lines = append(lines, fmt.Sprintf("%s to %s: %s", s.paint(bold, f.Process), f.Destination, s.paint(red, f.Cause)))
		lines = append(lines, strings.Split(strings.TrimSuffix(wrap(f.What, "  ", cols), "\n"), "\n")...)
	}
	return lines
}

func (t terminal) legend() string {
	var line strings.Builder
	for _, state := range states {
		line.WriteString("  " + t.paint(state.paint, state.cell) + " " + state.name)
	}
	return line.String() + "  " + t.paint(faint, freeCell) + " free"
}

// The states of a port, as they are drawn: told apart without colours too.
var states = [...]struct {
	name, cell string
	paint      colour
	of         func(*use) int
}{
	{"busy", "█", green, func(u *use) int { return u.busy }},
	{"idle", "▓", blue, func(u *use) int { return u.idle }},
	{"dialing", "▒", yellow, func(u *use) int { return u.dialing }},
	{"cooling", "░", magenta, func(u *use) int { return u.cooling }},
}

const freeCell = "·"

// table is what is taken: a line an account, and below it one for each process.
func (t terminal) table(c *chart, cols int) []string {
	const figures = "  %5d %5d %5d %7d %7.1f"
	const title = "   busy  idle  dial cooling   new/s"
	width := 20
	for _, a := range c.accounts {
		width = max(width, len(a.name())+2)
		for _, u := range a.uses {
			width = max(width, len(u.who.String())+4)
		}
	}
	width = max(10, min(width, cols-len(title)-14))
	lines := []string{t.paint(faint, fmt.Sprintf("%-*s%s", width, "", title))}
	for _, a := range c.accounts {
		lines = append(lines, t.account(a, width, cols))
		for _, u := range a.uses {
			row := fmt.Sprintf("%-*s"+figures, width, cut("  "+u.who.String(), width), u.busy, u.idle, u.dialing, u.cooling, c.rate(u))
			for _, cause := range u.wrong {
				row += "  " + t.paint(red, cause)
			}
			lines = append(lines, row)
		}
	}
	if len(lines) == 1 {
		lines = append(lines, t.paint(faint, "  no connection that the path counts"))
	}
	return append(lines, t.legend())
}

func (a *account) name() string { return strings.TrimPrefix(a.key.String(), "tcp ") }

// account is the line of an account: a bar of what is taken, and of how many.
func (t terminal) account(a *account, width, cols int) string {
	tail := fmt.Sprintf(" %s taken", thousands(a.taken))
	switch {
	case a.exempt:
		tail = fmt.Sprintf(" %s, not counted", thousands(a.taken))
	case a.limit > 0:
		tail = fmt.Sprintf(" %s of %s", thousands(a.taken), thousands(a.limit))
	}
	bar := t.bar(a, cols-width-len(tail)-2)
	if a.limit > 0 && a.taken >= a.limit {
		tail = t.paint(red, tail)
	}
	return t.paint(bold, fmt.Sprintf("%-*s", width, cut(a.name(), width))) + "  " + bar + tail
}

// bar shows what is taken of the limit. Whatever there is has a cell at least.
func (t terminal) bar(a *account, width int) string {
	if width < 2*len(states) || a.limit <= 0 || len(a.uses) == 0 {
		return ""
	}
	var bar strings.Builder
	left := width
	for i, state := range states {
		n := 0
		for _, u := range a.uses {
			n += state.of(u)
		}
		if n == 0 {
			continue
		}
		cells := max(1, min(n*width/a.limit, left-(len(states)-1-i)))
		left -= cells
		bar.WriteString(t.paint(state.paint, strings.Repeat(state.cell, cells)))
	}
	return bar.String() + t.paint(faint, strings.Repeat(freeCell, left))
}

// cut shortens text to so many columns.
func cut(text string, cols int) string {
	if utf8.RuneCountInString(text) <= cols {
		return text
	}
	return string([]rune(text)[:max(0, cols-1)]) + "…"
}
