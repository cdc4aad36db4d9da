package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/keepalive/netpath"
)

// lively reports whether f is a terminal that may be painted.
func lively(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	if runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return false // a console that may print the codes instead of obeying them
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Everything fits 80 columns.
const (
	columns    = 79
	nameWidth  = 21 // http.DefaultTransport
	barWidth   = 20
	chartWidth = columns - nameWidth - 4
)

// A screen tells people what happens: in colour and in place on a live
// terminal, in plain lines on paper.
type screen struct {
	out   io.Writer
	live  bool
	drawn int // lines of progress that the next ones replace

	reported time.Time       // on paper: when all lines were printed last
	over     map[string]bool // on paper: whose end was printed
	err      error           // the first that out returned
}

func newScreen(out io.Writer, live bool) *screen {
	return &screen{out: out, live: live, reported: time.Now(), over: make(map[string]bool)}
}

func (s *screen) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.out, format, args...)
	}
}

// A colour is the number of its code.
type colour int

const (
	bold  colour = 1
	faint colour = 2
	red   colour = 31
	green colour = 32
	cyan  colour = 36
)

func (s *screen) paint(c colour, text string) string {
	if !s.live || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

func (s *screen) opening(w work, entrants []contender) {
	path := netpath.AzureAppService()
	s.printf("\n%s requests, %d at a time, to a server that answers after %s.\n",
		s.paint(bold, thousands(w.requests)), w.concurrency, span(w.service))
	s.printf("Each client has a NAT with the numbers of Azure App Service: %s.\n",
		s.paint(bold, fmt.Sprintf("%d ports", w.ports)))
	for _, line := range []string{
		fmt.Sprintf("The NAT's timers run %d times as fast here: a port is held %s after a FIN, not", scale, span(path.Hold.FIN/scale)),
		fmt.Sprintf("%s, and %s after a RST, not %s. A request has %s, which is not scaled.",
			span(path.Hold.FIN), span(path.Hold.RST/scale), span(path.Hold.RST), span(w.timeout())),
	} {
		s.printf("%s\n", s.paint(faint, line))
	}
	s.printf("\n")
	for _, c := range entrants {
		s.printf("  %s  %s\n", s.name(c.name), s.paint(faint, c.what))
	}
	s.printf("\n")
	if s.live {
		s.printf("\x1b[?25l\x1b[?7l") // no cursor; cut long lines instead of wrapping
	}
}

// settle ends the progress, however it ended.
func (s *screen) settle() {
	if s.live {
		s.printf("\x1b[?7h\x1b[?25h")
	}
}

func (s *screen) name(name string) string {
	padded := fmt.Sprintf("%-*s", nameWidth, name)
	if name == natwise {
		return s.paint(green, padded)
	}
	return padded
}

// progress redraws one line a client; on paper, it prints them every 3 s and
// when a client is over.
func (s *screen) progress(lanes []*lane) {
	if s.live {
		s.redraw(lanes)
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
		s.printf("  %-*s %5.1f s %6s of %s, %3d ports, %6s failed%s\n", nameWidth, l.name, p.ran.Seconds(),
			thousands(p.back), thousands(l.work.requests), p.ports, thousands(p.failed), end)
	}
}

func (s *screen) redraw(lanes []*lane) {
	var frame bytes.Buffer // one write a frame, or it flickers
	if s.drawn > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", s.drawn)
	}
	for _, l := range lanes {
		p := l.standing()
		filled := barWidth * p.back / l.work.requests
		bad := barWidth * p.failed / l.work.requests
		bar := s.paint(green, strings.Repeat("━", filled-bad)) + s.paint(red, strings.Repeat("━", bad)) +
			s.paint(faint, strings.Repeat("─", barWidth-filled))
		ports := fmt.Sprintf("%4d ports", p.ports)
		if p.ports >= l.work.ports {
			ports = s.paint(red, ports)
		}
		failed := fmt.Sprintf("%6s failed", thousands(p.failed))
		switch {
		case p.failed > 0:
			failed = s.paint(red, failed)
		case p.over:
			failed = s.paint(green, "     ✓ done  ")
		default:
			failed = ""
		}
		fmt.Fprintf(&frame, "\r\x1b[2K  %s  %s %6s %s %s\n", s.name(l.name), bar, thousands(p.back), ports, failed)
	}
	s.drawn = len(lanes)
	s.printf("%s", frame.Bytes())
}

// A standing is how far a lane has come.
type standing struct {
	back, failed, ports int
	over                bool
	ran                 time.Duration
}

func (l *lane) standing() standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := standing{back: l.ok + l.failed, failed: l.failed, over: l.over, ran: l.ran}
	if n := len(l.held); n > 0 {
		p.ports = l.held[n-1].held
	}
	return p
}

// closing prints the table, the chart and what they mean.
func (s *screen) closing(w work, v verdict, lanes []*lane) error {
	s.table(v)
	s.printf("\n  %s\n", s.paint(bold, "Ports held, over time"))
	for _, line := range s.chart(curves(lanes), v.Limit) {
		s.printf("%s\n", line)
	}
	s.printf("\n%s\n", s.paint(bold, wrap(happened(v))))
	for _, l := range lanes {
		if unsent := w.requests - len(l.took); unsent > 0 {
			s.printf("%s\n", wrap(fmt.Sprintf("%s was cut off after %v; %s requests that it had not sent count as failed.",
				l.name, span(patience), thousands(unsent))))
		}
	}
	s.printf("\nIn your program on App Service:\n\n    %s\n    %s\n\n",
		s.paint(cyan, "dialer.DefaultLedger.Path = netpath.AzureAppService()"),
		s.paint(cyan, "client := httpx.NewClient(nil) // an *http.Client"))
	return s.err
}

func (s *screen) table(v verdict) {
	s.printf("\n")
	for _, h := range [][]any{
		{"", "ok", "failed", "flows", "peak", "SYNs", "p99", "time"},
		{"", "", "", "opened", "ports", "dropped", "", ""},
	} {
		line := fmt.Sprintf("  %[1]*[2]s %7[3]s %7[4]s %6[5]s %6[6]s %8[7]s %8[8]s %7[9]s", append([]any{nameWidth - 2}, h...)...)
		s.printf("%s\n", s.paint(faint, strings.TrimRight(line, " ")))
	}
	for _, r := range v.Clients {
		failed, peak, dropped := fmt.Sprintf("%7s", thousands(r.Failed)), fmt.Sprintf("%6d", r.PeakPorts), fmt.Sprintf("%8s", thousands(r.RefusedSYN))
		if r.Failed > 0 {
			failed = s.paint(red, failed)
		}
		if r.PeakPorts >= v.Limit && r.RefusedSYN > 0 {
			peak = s.paint(red, peak)
		}
		if r.RefusedSYN > 0 {
			dropped = s.paint(red, dropped)
		}
		s.printf("  %s%6s %s %6s %s %s %8s %7s\n", s.name(r.Name), thousands(r.OK), failed, thousands(r.FlowsOpened), peak, dropped,
			fmt.Sprintf("%.0f ms", r.P99), fmt.Sprintf("%.1f s", r.Seconds))
	}
}

// A curve is what the chart shows of one client.
type curve struct {
	name string
	held []sample // in order of time
	ran  time.Duration
}

func curves(lanes []*lane) (cs []curve) {
	for _, l := range lanes {
		l.mu.Lock()
		cs = append(cs, curve{l.name, l.held, l.ran})
		l.mu.Unlock()
	}
	return cs
}

// chart returns a row a client, an axis, and how to read them. Only a column in
// which every port was taken is a full block.
func (s *screen) chart(curves []curve, limit int) []string {
	var longest time.Duration
	for _, c := range curves {
		longest = max(longest, c.ran)
	}
	longest = max(longest, time.Millisecond)
	var lines []string
	for _, c := range curves {
		// A column that has begun is a column.
		width := max(1, int((c.ran*chartWidth+longest-1)/longest))
		row := s.row(buckets(c.held, width, longest/chartWidth), limit)
		if note := fmt.Sprintf(" over after %.1f s", c.ran.Seconds()); width+len(note) <= chartWidth {
			row += s.paint(faint, note)
		}
		lines = append(lines, fmt.Sprintf("  %s  %s", s.name(c.name), row))
	}
	end := fmt.Sprintf(" %.1f s", longest.Seconds())
	indent := strings.Repeat(" ", nameWidth+4)
	return append(lines,
		s.paint(faint, indent+"0 s "+strings.Repeat("─", chartWidth-len("0 s ")-len(end))+end),
		s.paint(faint, fmt.Sprintf("%s%s all %d ports taken: the limit", indent, blocks[7], limit)))
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
			row.WriteString(s.paint(red, run.String()))
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

// happened says in a sentence or two what the numbers show, and no more.
func happened(v verdict) string {
	var lost []string
	var dropped, failed int
	var ours result
	for _, r := range v.Clients {
		if r.Name == natwise {
			ours = r
			continue
		}
		dropped += r.RefusedSYN
		failed += r.Failed
		if r.Failed > 0 {
			lost = append(lost, fmt.Sprintf("%s lost %s", r.Name, thousands(r.Failed)))
		}
	}
	switch {
	case v.Status != "ok":
		return "This run did not show what it should: " + v.Bound + "."
	case dropped == 0 && failed == 0:
		return fmt.Sprintf("These sizes do not exhaust %d ports: no SYN was dropped and no request failed, so this run shows no difference. "+
			"Try the defaults, or more at a time.", v.Limit)
	case dropped == 0:
		return fmt.Sprintf("%s, but not for want of ports: no SYN was dropped. Is this machine too busy?", strings.Join(lost, " and "))
	case failed == 0:
		return fmt.Sprintf("The NAT ran out of ports and dropped %s SYNs of the others, but all their requests were answered in time: "+
			"at these sizes exhaustion costs time, not requests. natwise opened %s flows and was never refused.",
			thousands(dropped), thousands(ours.FlowsOpened))
	}
	return fmt.Sprintf("Of %s requests, %s: the NAT had no port left and dropped %s SYNs. "+
		"natwise did the same work through as many ports, on %s connections: none lost, none refused.",
		thousands(ours.Requests), strings.Join(lost, " and "), thousands(dropped), thousands(ours.FlowsOpened))
}

// wrap breaks text into lines that fit the screen.
func wrap(text string) string {
	var out strings.Builder
	used := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > columns:
			out.WriteByte('\n')
			used = 0
		default:
			out.WriteByte(' ')
			used++
		}
		out.WriteString(word)
		used += n
	}
	return out.String()
}

// span returns d as people write it: 250 ms, 4 s.
func span(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%g ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%g s", d.Seconds())
}

// thousands returns n as people write it: 20,000.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
