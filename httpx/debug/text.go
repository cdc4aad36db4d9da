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

// text is what a terminal shows of a state or a detail.
func text(shown any) []byte {
	var b bytes.Buffer
	switch s := shown.(type) {
	case state:
		s.text(&b)
	case *detail:
		s.text(&b)
	}
	return b.Bytes()
}

func (s state) text(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s %s, %s\n", plain(s.Process), plain(s.Version), clock(s.At))
	if s.Ledger != "" {
		fmt.Fprintf(b, "ledger %s\n", plain(s.Ledger))
	}
	fmt.Fprintf(b, "path %s (%s)\n", plain(s.Path.Name), s.Path.Grade)
	if s.Problem != "" {
		fmt.Fprintf(b, "every dial is refused: %s\n", plain(s.Problem))
	}
	if s.Shadow {
		fmt.Fprintf(b, "shadow: nothing is refused; %d would have been\n", s.Exceeded)
	}
	for _, e := range s.Shared {
		e.text(b, allTogether)
	}
	if s.Fullest != nil {
		fmt.Fprintf(b, "fullest %s, %s\n", s.Fullest.Destination, percent(&s.Fullest.Utilization))
	}
	fmt.Fprintf(b, "waiting %d, oldest %s\n\n", s.Waiting, short(&s.OldestWait))
	for _, t := range s.troubles() {
		t.text(b, s.At)
	}
	if len(s.Destinations) == 0 {
		b.WriteString("No port is taken. Each destination has a line here once something was dialed, but for loopback\nand private addresses, which cross no NAT (netpath.Profile.Exempt).\n")
	} else {
		rowsText(b, s.Destinations)
	}
	if len(s.Events) > 0 {
		b.WriteByte('\n')
		table(b, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "EVENT\tABOUT\tWHAT\tTIMES")
			for _, e := range s.Events {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", clock(e.At), plain(e.About), plain(e.Text), e.Times)
			}
		})
	}
}

func rowsText(b *bytes.Buffer, rows []row) {
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

func (d *detail) text(b *bytes.Buffer) {
	if d.Trouble != nil {
		d.Trouble.text(b, d.At)
	}
	rowsText(b, []row{d.row})
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
