package debug

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/natwise/natwise/keepalive/netpath"
)

// text is what a terminal shows of a state or a detail; wide has a line with all numbers for
// each destination.
func text(shown any, wide bool) []byte {
	rows := rowsText
	if wide {
		rows = rowsWide
	}
	var b bytes.Buffer
	switch s := shown.(type) {
	case state:
		s.text(&b, rows)
	case *detail:
		s.text(&b, rows)
	}
	return b.Bytes()
}

func (s state) text(b *bytes.Buffer, rows func(*bytes.Buffer, []row)) {
	fmt.Fprintf(b, "%s %s, %s\n", plain(s.Process), plain(s.Version), clock(s.At))
	if s.Ledger != "" {
		fmt.Fprintf(b, "ledger %s\n", plain(s.Ledger))
	}
	fmt.Fprintf(b, "path %s (%s)\n", plain(s.Path.Name), s.Path.Grade)
	if s.Problem != "" {
		fmt.Fprintf(b, "every dial is refused: %s\n", plain(s.Problem))
	}
	if s.Shadow {
		fmt.Fprintf(b, "shadow: nothing waits for a port; %d dials would have\n", s.Exceeded)
	}
	for _, e := range s.Shared {
		e.text(b, allTogether)
	}
	if s.Fullest != nil {
		fmt.Fprintf(b, "fullest %s, %s\n", s.Fullest.Destination, percent(&s.Fullest.Utilization))
	}
	if len(s.Destinations) > 0 {
		fmt.Fprintf(b, "ports %s: %s\n", s.Ports.takenText(), s.Ports.text())
	}
	fmt.Fprintf(b, "waiting %d, oldest %s; black holes %d\n\n", s.Waiting, short(&s.OldestWait), s.Blackholes)
	for _, t := range s.troubles() {
		t.text(b, s.At)
	}
	if len(s.Destinations) == 0 {
		b.WriteString("No port is taken. Each destination has a line here once something was dialed, but for loopback\nand private addresses, which cross no NAT (netpath.Profile.Exempt).\n")
	} else {
		rows(b, s.Destinations)
	}
	for i, e := range s.Events {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%s  %s, %s", clock(e.At), e.Kind, plain(e.About))
		if e.Times > 1 {
			fmt.Fprintf(b, ", %d times", e.Times)
		}
		fmt.Fprintf(b, "\n  %s\n", cut(e.Text, 4*longest))
	}
}

// rowsText has a few lines for each row, none of which a terminal has to break unless a name is
// long.
func rowsText(b *bytes.Buffer, rows []row) {
	for _, r := range rows {
		fmt.Fprintf(b, "%s  %s\n", r.Destination, plain(namesText(r)))
		parts := []string{r.Ports.text()}
		if r.Next != nil {
			parts = append(parts, "next in "+short(r.Next), "all in "+short(r.All))
		}
		fmt.Fprintf(b, "  %s%s: %s\n", r.Ports.bar(), r.Ports.takenText(), strings.Join(parts, ", "))
		lines(b, r.more())
	}
}

// more is what there is to say of a row besides its ports.
func (r *row) more() (parts []string) {
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if r.Exceeded > 0 {
		say("%d dials would have waited", r.Exceeded)
	}
	if r.Waiting > 0 {
		say("%d waiting, the first for %s", r.Waiting, short(&r.OldestWait))
	}
	if r.Wait99 != nil {
		say("waits for a connection %s, p99 %s", short(r.Wait50), short(r.Wait99))
	}
	if r.Rate != nil {
		say("%s dials/s", strconv.FormatFloat(*r.Rate, 'f', -1, 64))
	}
	if r.Counts != nil && r.Counts.Uses != nil {
		uses := " uses each"
		if *r.Counts.Uses == 1 {
			uses = " use each"
		}
		say("%s", strconv.FormatFloat(*r.Counts.Uses, 'f', -1, 64)+uses)
	}
	if r.Counts != nil && r.Counts.Blackholes > 0 {
		say("%d black holes", r.Counts.Blackholes)
	}
	if limit := limitText(*r); strings.Contains(limit, " ") {
		say("limit %s", limit)
	}
	if r.Idle == netpath.None {
		say("the path never forgets (%s)", r.IdleFrom)
	} else {
		say("the path forgets after %s (%s)", short(&r.Idle), r.IdleFrom)
	}
	return parts
}

// lines has the parts follow each other, each line of them as long as a terminal is wide.
func lines(b *bytes.Buffer, parts []string) {
	const wide = 80
	line := " "
	for i, part := range parts {
		if i < len(parts)-1 {
			part += ","
		}
		if len(line)+1+len(part) > wide {
			fmt.Fprintln(b, line)
			line = " "
		}
		line += " " + part
	}
	fmt.Fprintln(b, line)
}

const cells = 20 // of a bar

// bar shows what is taken of the limit, by state. Whatever there is has a cell, while there are any.
func (p ports) bar() string {
	if p.Limit == netpath.None {
		return ""
	}
	whole, sum, at := max(int(p.Limit), p.Taken, 1), 0, 0
	var bar strings.Builder
	for _, s := range []struct {
		n    int
		cell string
	}{{p.Active, "#"}, {p.Idle, "="}, {p.Dialing, "+"}, {p.Cooling, "~"}} {
		if s.n == 0 {
			continue
		}
		sum += s.n
		to := min(cells, max(at+1, (2*sum*cells+whole)/(2*whole)))
		bar.WriteString(strings.Repeat(s.cell, to-at))
		at = to
	}
	return "[" + bar.String() + strings.Repeat(".", cells-at) + "] "
}

func (p ports) takenText() string {
	if p.Limit == netpath.None {
		return fmt.Sprintf("%d, no limit", p.Taken)
	}
	return fmt.Sprintf("%d of %d", p.Taken, p.Limit)
}

// text is "2 active, 4 cooling".
func (p ports) text() string {
	var parts []string
	for _, s := range []struct {
		n    int
		what string
	}{{p.Active, "active"}, {p.Idle, "idle"}, {p.Dialing, "dialing"}, {p.Cooling, "cooling"}} {
		if s.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", s.n, s.what))
		}
	}
	if len(parts) == 0 {
		return "none taken"
	}
	return strings.Join(parts, ", ")
}

// rowsWide has a line for each row.
func rowsWide(b *bytes.Buffer, rows []row) {
	table(b, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "DESTINATION\tNAMES\tUSED\tTAKEN\tLIMIT\tACTIVE\tIDLE\tDIALING\tCOOLING\tFREE\tNEXT\tALL\t"+
			"WAITING\tOLDEST\tP50\tP99\tDIALS/S\tUSES\tHOLES\tFORGETS\tEXCEEDED")
		for _, r := range rows {
			rate, uses, holes := unknown, unknown, unknown
			if r.Rate != nil {
				rate = strconv.FormatFloat(*r.Rate, 'f', -1, 64)
			}
			if r.Counts != nil {
				holes = strconv.FormatUint(r.Counts.Blackholes, 10)
				if r.Counts.Uses != nil {
					uses = strconv.FormatFloat(*r.Counts.Uses, 'f', -1, 64)
				}
			}
			p := r.Ports
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s %s\t%d\n",
				r.Destination, plain(namesText(r)), percent(r.Utilization), p.Taken, limitText(r),
				p.Active, p.Idle, p.Dialing, p.Cooling, p.Free.text(), short(r.Next), short(r.All),
				r.Waiting, short(&r.OldestWait), short(r.Wait50), short(r.Wait99), rate, uses, holes,
				short(&r.Idle), r.IdleFrom, r.Exceeded)
		}
	})
}

// limitText marks a limit that is not the path's own.
func limitText(r row) string {
	if learned := netpath.Learned.String(); r.LimitFrom != nil && *r.LimitFrom == learned {
		return r.Ports.Limit.text() + " " + learned
	}
	return r.Ports.Limit.text()
}

func namesText(r row) string {
	const most = 2
	names := r.Names[:min(most, len(r.Names))]
	if more := len(r.Names) - len(names) + r.MoreNames; more > 0 {
		return strings.Join(names, " ") + " and " + strconv.Itoa(more) + " more"
	}
	return strings.Join(names, " ")
}

func (d *detail) text(b *bytes.Buffer, rows func(*bytes.Buffer, []row)) {
	if d.Trouble != nil {
		d.Trouble.text(b, d.At)
	}
	rows(b, []row{d.row})
	for _, e := range d.Shared {
		e.text(b, "")
	}
	b.WriteByte('\n')
	table(b, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "LOCAL\tNAME\tSTATE\tENDING\tFREE\tAGE\tPROOF\tRTT\tUNACKED\tIN FLIGHT\tUSES\tTRACE")
		for _, c := range d.Connections {
			unacked := unknown
			if c.Unacked != nil {
				unacked = strconv.Itoa(*c.Unacked)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", orUnknown(c.Local), plain(c.Name), c.State,
				orUnknown(c.Ending), short(c.Free), short(c.Age), short(c.LastProof), short(c.RTT), unacked, c.Serves, c.Uses, orUnknown(c.Trace))
		}
	})
	if d.More > 0 {
		fmt.Fprintf(b, "and %d more\n", d.More)
	}
}

func table(b *bytes.Buffer, lines func(w *tabwriter.Writer)) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	lines(w)
	w.Flush()
}

const unknown = "-"

func orUnknown(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

func (c count) text() string {
	if c == netpath.None {
		return unknown
	}
	return strconv.Itoa(int(c))
}

// percent rounds down: 100% is what is full.
func percent(x *float64) string {
	if x == nil {
		return unknown
	}
	return strconv.Itoa(int(math.Floor(*x*100+1e-9))) + "%"
}

// short has three digits or so.
func short(s *seconds) string {
	if s == nil || *s == netpath.None {
		return unknown
	}
	d := time.Duration(*s)
	switch {
	case d == 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z") }

const longest = 80 // that a cell of text may be

// plain is s without what a terminal would obey, and not too long: a name is whatever
// somebody asked for.
func plain(s string) string { return cut(s, longest) }

func cut(s string, longest int) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
	if runes := []rune(clean); len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return clean
}
