package main

import (
	"fmt"
	"strings"

	"github.com/natwise/natwise/internal/terminal"
)

// A column is what the table says of each client.
type column struct {
	head  [2]string
	width int
	spare bool // it is left out where there is no room
	cell  func(result) string
	bad   func(r result, limit int) bool // nil: it never is
}

var (
	answeredColumn = column{head: [2]string{"ok"}, width: 6, cell: number(func(r result) int { return r.OK })}
	failedColumn   = column{head: [2]string{"failed"}, width: 7, cell: number(func(r result) int { return r.Failed }),
		bad: func(r result, _ int) bool { return r.Failed > 0 }}
	unsafeColumn = column{head: [2]string{"of these", "POSTs"}, width: 8, spare: true, cell: number(func(r result) int { return r.Unsafe })}
	flowsColumn  = column{head: [2]string{"flows", "opened"}, width: 6, cell: number(func(r result) int { return r.FlowsOpened })}
	peakColumn   = column{head: [2]string{"peak", "ports"}, width: 6, spare: true, cell: number(func(r result) int { return r.PeakPorts }),
		bad: func(r result, limit int) bool { return r.PeakPorts >= limit && r.RefusedSYN > 0 }}
	droppedColumn = column{head: [2]string{"SYNs", "dropped"}, width: 8, cell: number(func(r result) int { return r.RefusedSYN }),
		bad: func(r result, _ int) bool { return r.RefusedSYN > 0 }}
	slowestColumn = column{head: [2]string{"slowest", "answer"}, width: 8, spare: true, cell: quantity("%.0f ms", func(r result) float64 { return r.Slowest })}
	p99Column     = column{head: [2]string{"p99"}, width: 8, spare: true, cell: quantity("%.0f ms", func(r result) float64 { return r.P99 })}
	timeColumn    = column{head: [2]string{"time"}, width: 7, spare: true, cell: quantity("%.1f s", func(r result) float64 { return r.Seconds })}
)

// strayColumn counts the flows to which that has happened.
func strayColumn(what, happened string) column {
	return column{head: [2]string{what, happened}, width: max(6, len(happened)+1), cell: number(func(r result) int { return r.Astray })}
}

// keptColumn is for how long the client had such flows, and what is to be said of that.
func keptColumn(said string) column {
	return column{head: [2]string{said, "for"}, width: 7, cell: quantity("%.1f s", func(r result) float64 { return r.AstraySeconds })}
}

func number(of func(result) int) func(result) string {
	return func(r result) string { return terminal.Thousands(of(r)) }
}

func quantity(format string, of func(result) float64) func(result) string {
	return func(r result) string { return fmt.Sprintf(format, of(r)) }
}

// results prints the table, without what there is no room for.
func (s *screen) results(all []column, v verdict) {
	cols := fitting(all, s.width()-nameWidth-2)
	s.printf("\n")
	for i := range 2 {
		line := strings.Repeat(" ", nameWidth+1)
		for _, c := range cols {
			line += fmt.Sprintf(" %*s", c.width, c.head[i])
		}
		if line = strings.TrimRight(line, " "); line != "" {
			s.printf("%s\n", terminal.Clip(s.Paint(terminal.Faint, line), s.width()))
		}
	}
	for _, r := range v.Clients {
		line := "  " + s.name(r.Name)
		for i, c := range cols {
			text := fmt.Sprintf("%*s", c.width, c.cell(r))
			if c.bad != nil && c.bad(r, v.Limit) {
				text = s.Paint(terminal.Red, text)
			}
			if i > 0 {
				line += " "
			}
			line += text
		}
		s.printf("%s\n", terminal.Clip(line, s.width()))
	}
}

// fitting leaves out spare columns, the last first, until the rest has room.
func fitting(all []column, room int) (fit []column) {
	used := -1
	for _, c := range all {
		used += 1 + c.width
	}
	left := len(all)
	for ; left > 0 && used > room; left-- {
		if all[left-1].spare {
			used -= 1 + all[left-1].width
		}
	}
	for i, c := range all {
		if i < left || !c.spare {
			fit = append(fit, c)
		}
	}
	return fit
}
