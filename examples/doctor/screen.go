package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/internal/terminal"
)

// room is how many columns may be written to, at most as many as read well, and how many rows.
func room(t terminal.Terminal) (cols, rows int) {
	cols, rows = t.Room()
	return min(cols, 110), rows
}

// A screen shows what is taken while we watch: in place on a terminal, and below each
// other on paper. A terminal's old contents come back with settle.
type screen struct {
	terminal.Terminal
	out   io.Writer
	drawn bool
	err   error // the first that out returned
}

func newScreen(out io.Writer, term terminal.Terminal) screen { return screen{Terminal: term, out: out} }

// pause is how long to wait between two frames.
func (s *screen) pause() time.Duration {
	if s.Live {
		return frameEvery
	}
	return lineEvery
}

// show draws a frame.
func (s *screen) show(c *chart) {
	cols, rows := room(s.Terminal)
	var frame bytes.Buffer // one write a frame, or it flickers
	if !s.Live {
		rows = onPaper
	} else if !s.drawn {
		frame.WriteString("\x1b[?1049h\x1b[?25l\x1b[?7l") // another page, no cursor, no wrapping
	}
	rows = max(rows, 4)
	lines := s.frame(c, cols, rows-1)
	if len(lines) > rows-1 { // a window that is too small for anything
		lines = append(lines[:rows-2], s.Paint(terminal.Faint, fmt.Sprintf("  and %d lines more", len(lines)-rows+2)))
	}
	if s.Live {
		frame.WriteString("\x1b[H")
	}
	for _, line := range lines {
		if s.Live {
			line += "\x1b[K"
		}
		frame.WriteString(line + "\n")
	}
	if s.Live {
		frame.WriteString("\x1b[J")
	}
	s.drawn = true
	if s.err == nil {
		_, s.err = s.out.Write(frame.Bytes())
	}
}

// settle gives the terminal back.
func (s *screen) settle() {
	if s.Live && s.drawn {
		fmt.Fprint(s.out, "\x1b[?7h\x1b[?25h\x1b[?1049l")
	}
}

// frame is the live view, in so many rows: what the path is, what is wrong, and what is
// taken. What is wrong may have half of them, or what the table leaves.
func (s *screen) frame(c *chart, cols, rows int) []string {
	name := c.path.said.Name
	if !c.path.known {
		name += " (say -path NAME)"
	}
	head := fmt.Sprintf("doctor: %s, holds a port for %s after its end", name, span(c.path.hold(finished)))
	clock := span(c.now.Sub(c.began).Truncate(time.Second))
	lines := []string{s.Paint(terminal.Bold, head) + fmt.Sprintf("%*s", max(2, cols-utf8.RuneCountInString(head)), clock), ""}
	room := rows - len(lines) - 1
	lines = append(append(lines, s.wrong(c, cols, max(room/2, room-len(table(s.Terminal, c, cols, room))))...), "")
	return append(lines, table(s.Terminal, c, cols, rows-len(lines))...)
}

// wrong is what is wrong, in so many rows: in full as far as there is room, then by title,
// then by number.
func (s *screen) wrong(c *chart, cols, rows int) (lines []string) {
	kinds := c.kinds()
	if len(kinds) == 0 {
		return []string{s.Paint(terminal.Faint, c.verdict())}
	}
	for i, k := range kinds {
		left, after := rows-len(lines), len(kinds)-i-1
		if left <= 1 && after > 0 {
			return append(lines, s.Paint(terminal.Faint, fmt.Sprintf("and %s", counted(after+1, "kind more", "kinds more"))))
		}
		title := k.title(s.Terminal)
		if len(k) > 1 {
			title += ", and " + terminal.Thousands(len(k)-1) + " more"
		}
		lines = append(lines, title)
		if full := strings.Split(terminal.Wrap(k[0].What, "  ", cols), "\n"); 1+len(full)+after <= left {
			lines = append(lines, full...)
		}
	}
	return lines
}

func legend(t terminal.Terminal) string {
	var line strings.Builder
	for _, state := range states {
		line.WriteString("  " + t.Paint(state.paint, state.cell) + " " + state.name)
	}
	return line.String() + "  " + t.Paint(terminal.Faint, freeCell) + " free"
}

// onPaper is how many rows a frame has where there is no window.
const onPaper = 60

// The states of a port, as they are drawn: told apart without colours too.
var states = [...]struct {
	name, cell string
	paint      terminal.Colour
	of         func(*use) int
}{
	{"busy", "█", terminal.Green, func(u *use) int { return u.busy }},
	{"idle", "▓", terminal.Blue, func(u *use) int { return u.idle }},
	{"dialing", "▒", terminal.Yellow, func(u *use) int { return u.dialing }},
	{"cooling", "░", terminal.Magenta, func(u *use) int { return u.cooling }},
}

const freeCell = "·"

// table is what is taken, in so many rows: a line an account, and below it one for each
// process. What there is no room for is summed up.
func table(t terminal.Terminal, c *chart, cols, rows int) []string {
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
	lines := []string{t.Paint(terminal.Faint, fmt.Sprintf("%-*s%s", width, "", title))}
	row := func(name string, u *use) {
		line := fmt.Sprintf("%-*s"+figures, width, cut("  "+name, width), u.busy, u.idle, u.dialing, u.cooling, c.rate(u))
		if len(u.wrong) > 0 {
			line += "  " + t.Paint(terminal.Red, cut(strings.Join(u.wrong, "  "), cols-width-len(title)-2))
		}
		lines = append(lines, line)
	}
	most := max(3, rows/max(1, len(c.accounts))-1) // of one account
	rows--                                         // the legend
	for i, a := range c.accounts {
		room := rows - len(lines)
		if i < len(c.accounts)-1 {
			room-- // what is left out
		}
		if room < min(2, 1+len(a.uses)) {
			taken := 0
			for _, a := range c.accounts[i:] {
				taken += a.taken
			}
			lines = append(lines, t.Paint(terminal.Faint, fmt.Sprintf("and %s, %s taken", counted(len(c.accounts)-i, "destination more", "destinations more"), terminal.Thousands(taken))))
			break
		}
		lines = append(lines, accountLine(t, a, width, cols))
		shown := len(a.uses)
		if room = min(most, room-1); shown > room {
			shown = room - 1
		}
		for _, u := range a.uses[:shown] {
			row(u.who.String(), u)
		}
		switch rest := a.uses[shown:]; {
		case len(rest) > 0 && shown > 0:
			row("and "+terminal.Thousands(len(rest))+" more", sum(rest))
		case len(rest) > 0:
			row(terminal.Thousands(len(rest))+" processes", sum(rest))
		}
	}
	if len(c.accounts) == 0 {
		lines = append(lines, t.Paint(terminal.Faint, "  nothing"))
	}
	return append(lines, legend(t))
}

func (a *account) name() string { return strings.TrimPrefix(a.key.String(), "tcp ") }

// accountLine is the line of an account: a bar of what is taken, and of how many.
func accountLine(t terminal.Terminal, a *account, width, cols int) string {
	tail := fmt.Sprintf(" %s taken", terminal.Thousands(a.taken))
	switch {
	case a.exempt:
		tail = fmt.Sprintf(" %s open, not counted", terminal.Thousands(a.taken))
	case a.limit > 0:
		tail = fmt.Sprintf(" %s of %s", terminal.Thousands(a.taken), terminal.Thousands(a.limit))
	}
	bar := bar(t, a, cols-width-len(tail)-2)
	if a.limit > 0 && a.taken >= a.limit {
		tail = t.Paint(terminal.Red, tail)
	}
	return t.Paint(terminal.Bold, fmt.Sprintf("%-*s", width, cut(a.name(), width))) + "  " + bar + tail
}

// bar shows what is taken of the limit. Whatever there is has a cell at least.
func bar(t terminal.Terminal, a *account, width int) string {
	if width < 2*len(states) || a.limit <= 0 || len(a.uses) == 0 {
		return ""
	}
	var bar strings.Builder
	left, all, after := width, sum(a.uses), 0
	for _, state := range states {
		after += min(1, state.of(all))
	}
	for _, state := range states {
		n := state.of(all)
		if n == 0 {
			continue
		}
		after-- // whose cells are not to be taken
		cells := max(1, min(n*width/a.limit, left-after))
		left -= cells
		bar.WriteString(t.Paint(state.paint, strings.Repeat(state.cell, cells)))
	}
	return bar.String() + t.Paint(terminal.Faint, strings.Repeat(freeCell, left))
}

// cut shortens text to so many columns.
func cut(text string, cols int) string {
	if utf8.RuneCountInString(text) <= cols {
		return text
	}
	return string([]rune(text)[:max(0, cols-1)]) + "…"
}
