package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

// A chart returns lines about the lanes, over time.
type chart func(s *screen, lanes []*lane) []string

// A curve is what a chart of ports shows of one client.
type curve struct {
	name string
	held []sample // in order of time
	ran  time.Duration
}

func portsOverTime(s *screen, lanes []*lane) []string {
	var curves []curve
	limit := 0
	for _, l := range lanes {
		l.mu.Lock()
		curves = append(curves, curve{l.name, l.held, l.ran})
		l.mu.Unlock()
		for _, p := range l.ports() {
			limit = p.limit
		}
	}
	return append([]string{"  " + s.Paint(terminal.Bold, "Ports held, over time")}, s.ports(curves, limit)...)
}

// ports returns a row a client, an axis, and how to read them. Only a column in which
// every port was taken is a full block.
func (s *screen) ports(curves []curve, limit int) []string {
	longest := time.Millisecond
	for _, c := range curves {
		longest = max(longest, c.ran)
	}
	chartWidth := s.chartWidth()
	var lines []string
	for _, c := range curves {
		// A column that has begun is a column.
		width := max(1, int((c.ran*time.Duration(chartWidth)+longest-1)/longest))
		row := s.row(buckets(c.held, width, longest/time.Duration(chartWidth)), limit)
		if note := fmt.Sprintf(" over after %.1f s", c.ran.Seconds()); width+len(note) <= chartWidth {
			row += s.Paint(terminal.Faint, note)
		}
		lines = append(lines, fmt.Sprintf("  %s  %s", s.name(c.name), row))
	}
	return append(lines, s.axis(longest), s.Paint(terminal.Faint, fmt.Sprintf("%s%s all %d ports taken: the limit", indent, blocks[7], limit)))
}

// indent is where the rows of a chart begin.
var indent = strings.Repeat(" ", nameWidth+4)

func (s *screen) chartWidth() int { return s.width() - nameWidth - 4 }

func (s *screen) axis(longest time.Duration) string {
	end := fmt.Sprintf(" %.1f s", longest.Seconds())
	return s.Paint(terminal.Faint, indent+"0 s "+strings.Repeat("─", max(0, s.chartWidth()-len("0 s ")-len(end)))+end)
}

var blocks = [...]string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}

func (s *screen) row(held []int, limit int) string {
	var row strings.Builder
	for len(held) > 0 {
		full := held[0] >= limit
		n := 0
		var run strings.Builder
		for ; n < len(held) && (held[n] >= limit) == full; n++ {
			run.WriteString(block(held[n], limit))
		}
		if full {
			row.WriteString(s.Paint(terminal.Red, run.String()))
		} else {
			row.WriteString(run.String())
		}
		held = held[n:]
	}
	return row.String()
}

// block returns a full one for the limit only, and a blank for nothing only.
func block(held, limit int) string {
	switch {
	case held <= 0:
		return " "
	case held >= limit:
		return blocks[7]
	}
	return blocks[held*7/limit]
}

// buckets returns the most that was held in each of n spans of time. Nothing
// measured: what was last.
func buckets(held []sample, n int, span time.Duration) []int {
	most := make([]int, n)
	last, i := 0, 0
	for b := range most {
		until := span * time.Duration(b+1)
		most[b] = last
		for first := true; i < len(held) && (held[i].at < until || b == n-1); i++ {
			last = held[i].held
			if first {
				most[b], first = last, false
			}
			most[b] = max(most[b], last)
		}
	}
	return most
}

// answersOverTime shows when requests were back, and what of: a row a client, or for each
// of its sites.
func answersOverTime(s *screen, lanes []*lane) []string {
	longest := time.Millisecond
	for _, l := range lanes {
		longest = max(longest, l.standing().ran)
	}
	rows, most := answers(lanes, longest, s.chartWidth())
	lines := []string{"  " + s.Paint(terminal.Bold, "What came back, over time")}
	for _, r := range rows {
		line := s.spark(r.cells, most)
		if note := fmt.Sprintf(" over after %.1f s", r.ran.Seconds()); len(r.cells)+len(note) <= s.chartWidth() {
			line += s.Paint(terminal.Faint, note)
		}
		label := s.name(r.name)
		if r.site != "" {
			if r.first {
				lines = append(lines, strings.TrimRight("  "+label, " "))
			}
			label = fmt.Sprintf("  %-*s", nameWidth-2, r.site)
		}
		lines = append(lines, "  "+label+"  "+line)
	}
	return append(lines, s.axis(longest), s.Paint(terminal.Faint, indent+"× nothing but failures"))
}

// An answered is a row of the chart.
type answered struct {
	name, site string // site: if there are several
	first      bool   // of the sites
	ran        time.Duration
	cells      []tally
}

// answers returns the rows for a chart of such a width, and the most that is in a cell.
func answers(lanes []*lane, longest time.Duration, width int) (rows []answered, most int) {
	at := func(col int) time.Duration { return longest * time.Duration(col) / time.Duration(width) }
	for _, l := range lanes {
		p := l.standing()
		for i, site := range l.scene.sites {
			row := answered{name: l.name, first: i == 0, ran: p.ran}
			if len(l.scene.sites) > 1 {
				row.site = site.name
			}
			for col := 0; col < width && at(col) < p.ran; col++ {
				to := at(col + 1)
				if to >= p.ran {
					to = p.ran + 1 // what ended it belongs to it
				}
				t := tallied(p.ends, i, at(col), to)
				row.cells = append(row.cells, t)
				most = max(most, t.ok+t.failed)
			}
			rows = append(rows, row)
		}
	}
	return rows, most
}

// A tally is what became of requests in a span of time.
type tally struct{ ok, failed int }

// tallied counts those to a site that were over from one time up to another.
func tallied(ends []end, site int, from, to time.Duration) (t tally) {
	first, _ := slices.BinarySearchFunc(ends, from, func(e end, at time.Duration) int { return cmp.Compare(e.at, at) })
	for _, e := range ends[first:] {
		switch {
		case e.at >= to:
			return t
		case e.site != site:
		case e.failed:
			t.failed++
		default:
			t.ok++
		}
	}
	return t
}

// spark draws tallies, against the most of them or what is more.
func (s *screen) spark(cells []tally, most int) string {
	for _, t := range cells {
		most = max(most, t.ok+t.failed)
	}
	var line strings.Builder
	for _, t := range cells {
		switch {
		case t.ok+t.failed == 0:
			line.WriteString(s.Paint(terminal.Faint, freeCell))
		case t.ok == 0:
			line.WriteString(s.Paint(terminal.Red, "×"))
		default:
			line.WriteString(s.bad(t.failed, blocks[(t.ok+t.failed)*(len(blocks)-1)/most]))
		}
	}
	return line.String()
}
