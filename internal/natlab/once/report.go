package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A status is what became of a bound.
type status string

const (
	statusOK      status = "ok"
	statusMissed  status = "missed"
	statusSkipped status = "skipped"
)

// A Reading is a measured value: a number, or more than it, where the measurement
// ended before what it waited for.
type Reading struct {
	Value float64
	More  bool
}

func seconds(d time.Duration) Reading {
	return Reading{Value: math.Round(d.Seconds()*1000) / 1000}
}

func number(n int) Reading { return Reading{Value: float64(n)} }

// in is the reading as people read it.
func (v Reading) in(unit string) string {
	s := strings.TrimSpace(strconv.FormatFloat(v.Value, 'f', -1, 64) + " " + unit)
	if v.More {
		return "> " + s
	}
	return s
}

// A Measurement is one figure of a scenario.
type Measurement struct {
	Scenario  string   `json:"scenario"`
	Over      string   `json:"over,omitempty"` // what the client speaks
	Figure    string   `json:"figure"`
	Unit      string   `json:"unit,omitempty"` // s; of a number, none
	Ours      float64  `json:"ours_value"`
	OursMore  bool     `json:"ours_more,omitempty"` // more than that
	OursError string   `json:"ours_error,omitempty"`
	Peer      string   `json:"peer,omitempty"` // none: there is nothing to compare with
	Peers     *float64 `json:"peer_value,omitempty"`
	PeerMore  bool     `json:"peer_more,omitempty"`
	PeerError string   `json:"peer_error,omitempty"`
	Ratio     float64  `json:"ratio,omitempty"` // ours to the peer's, where both are known
	Bound     *float64 `json:"bound,omitempty"` // ours is at most that; nil: it is only told
	Status    status   `json:"status"`
	Why       string   `json:"why,omitempty"` // it was skipped, or missed although ours is within the bound
}

// told makes a Measurement of which nothing is asked.
func told(over, figure, unit string, ours Reading) Measurement {
	return Measurement{Over: over, Figure: figure, Unit: unit, Ours: ours.Value, OursMore: ours.More, Status: statusOK}
}

// atMost bounds what was told.
func (m Measurement) atMost(bound float64) Measurement {
	m.Bound = &bound
	if m.OursMore || m.Ours > bound {
		m.Status = statusMissed
	}
	return m
}

// beside adds the figure of a peer in the same run.
func (m Measurement) beside(peer string, value Reading) Measurement {
	m.Peer, m.Peers, m.PeerMore = peer, &value.Value, value.More
	if !m.OursMore && !value.More && value.Value != 0 {
		m.Ratio, _ = strconv.ParseFloat(strconv.FormatFloat(m.Ours/value.Value, 'g', 3, 64), 64)
	}
	return m
}

// miss notes what was not as it has to be.
func (m *Measurement) miss(format string, args ...any) {
	m.Status, m.Why = statusMissed, fmt.Sprintf(format, args...)
}

// said adds what the errors were.
func (m Measurement) said(ours, peer causes) Measurement {
	m.OursError, m.PeerError = ours.String(), peer.String()
	return m
}

// causes are errors, and how often each came.
type causes map[string]int

// unique are ports, durations and numbers, and what http.Client says of the URL: they make
// two errors of the same cause.
var unique = regexp.MustCompile(`:\d{4,5}\b|\b[\d.]+[mµ]?s\b|\b\d+ |"[^"]*": `)

func (c *causes) add(err error) {
	if *c == nil {
		*c = make(causes)
	}
	(*c)[unique.ReplaceAllString(err.Error(), "")]++
}

// commonest is how many causes are told.
const commonest = 4

func (c causes) String() string {
	texts := slices.SortedFunc(maps.Keys(c), func(a, b string) int { return cmp.Or(c[b]-c[a], cmp.Compare(a, b)) })
	var said []string
	for _, text := range texts[:min(commonest, len(texts))] {
		said = append(said, fmt.Sprintf("%d x %s", c[text], text))
	}
	if more := len(texts) - commonest; more > 0 {
		said = append(said, fmt.Sprintf("and %d others", more))
	}
	return strings.Join(said, "; ")
}

// bound is the bound for people.
func (m Measurement) bound() string {
	if m.Bound == nil {
		return "-"
	}
	return Reading{Value: *m.Bound}.in(m.Unit)
}

// peer is the peer's figure for people.
func (m Measurement) peer() string {
	if m.Peers == nil {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", Reading{*m.Peers, m.PeerMore}.in(m.Unit), m.Peer)
}

// A report is one scenario and its measurements.
type report struct {
	scenario
	full         bool
	measurements []Measurement
}

func (r *report) note(m Measurement) {
	m.Scenario = r.name
	r.measurements = append(r.measurements, m)
}

// kept reports whether something was measured and every bound kept.
func (r *report) kept() bool {
	for _, m := range r.measurements {
		if m.Status != statusOK {
			return false
		}
	}
	return len(r.measurements) > 0
}

// summary is how many bounds were kept.
func (r *report) summary() string {
	bounds, kept := 0, 0
	for _, m := range r.measurements {
		switch {
		case m.Bound == nil && m.Status == statusOK: // only told
		case m.Status == statusOK:
			kept++
			fallthrough
		default:
			bounds++
		}
	}
	return fmt.Sprintf("%d of %d bounds kept", kept, bounds)
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.name, r.about)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  over\tfigure\tours\thttp.Transport\tat most\t")
	for _, m := range r.measurements {
		if m.Status == statusSkipped {
			fmt.Fprintf(w, "  SKIPPED: %s\n", m.Why)
			return
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\n", m.Over, m.Figure, Reading{m.Ours, m.OursMore}.in(m.Unit),
			m.peer(), m.bound(), strings.ToUpper(string(m.Status)))
	}
	t.Flush()
	for _, m := range r.measurements {
		if m.Status != statusOK && m.Why != "" {
			fmt.Fprintf(w, "  %s: %s\n", strings.TrimSpace(m.Over+" "+m.Figure), m.Why)
		}
		if m.OursError != "" {
			fmt.Fprintf(w, "  %s, ours: %s\n", strings.TrimSpace(m.Over+" "+m.Figure), m.OursError)
		}
	}
}
