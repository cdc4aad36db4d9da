package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// moreThan is what did not happen within d.
func moreThan(d time.Duration) Reading {
	return Reading{seconds(d.Truncate(time.Second)).Value, true}
}

func milliseconds(d time.Duration) Reading {
	return Reading{Value: math.Round(float64(d)/1e4) / 100}
}

func number(n int) Reading { return Reading{Value: float64(n)} }

// ratio is a to b, with three digits.
func ratio(a, b float64) Reading {
	v, _ := strconv.ParseFloat(strconv.FormatFloat(a/b, 'g', 3, 64), 64)
	return Reading{Value: v}
}

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
	Over      string   `json:"over,omitempty"` // what the connection speaks
	Use       string   `json:"use,omitempty"`  // and what it is used for
	Figure    string   `json:"figure"`
	Unit      string   `json:"unit,omitempty"` // s or ms; of a number, none
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

const goDefaults = "Go's defaults"

// told makes a Measurement of which nothing is asked.
func told(figure, unit string, ours Reading) Measurement {
	return Measurement{Figure: figure, Unit: unit, Ours: ours.Value, OursMore: ours.More, Status: statusOK}
}

// measured makes a Measurement of ours, which is to be at most bound.
func measured(figure, unit string, ours Reading, bound float64) Measurement {
	m := told(figure, unit, ours)
	m.Bound = &bound
	if ours.More || ours.Value > bound {
		m.Status = statusMissed
	}
	return m
}

// beside adds the figure of a peer in the same run.
func (m Measurement) beside(peer string, value Reading) Measurement {
	m.Peer, m.Peers, m.PeerMore = peer, &value.Value, value.More
	if !m.OursMore && !value.More && value.Value != 0 {
		m.Ratio = ratio(m.Ours, value.Value).Value
	}
	return m
}

// over says what was measured at.
func (m Measurement) over(what, use string) Measurement {
	m.Over, m.Use = what, use
	return m
}

// said adds what the errors were.
func (m Measurement) said(ours, peer error) Measurement {
	m.OursError, m.PeerError = text(ours), text(peer)
	return m
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// miss notes a bound that was not kept.
func (m *Measurement) miss(format string, args ...any) {
	m.Status = statusMissed
	if m.Why != "" {
		m.Why += "; "
	}
	m.Why += fmt.Sprintf(format, args...)
}

// rank is where a measurement stands among the others of its scenario.
func (m Measurement) rank() int {
	return slices.Index([]string{plain, overTLS, http1, https1, http2}, m.Over)
}

func (m Measurement) where() string { return strings.TrimSpace(m.Over + " " + m.Use) }

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
	s := Reading{*m.Peers, m.PeerMore}.in(m.Unit)
	if m.Peer != goDefaults {
		s += " (" + m.Peer + ")"
	}
	return s
}

// A report is one scenario and its measurements. Its fields do not change, but
// for the measurements.
type report struct {
	scenario
	full bool

	mu           sync.Mutex // guards measurements
	measurements []Measurement
}

func (r *report) note(m Measurement) {
	m.Scenario = r.name
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measurements = append(r.measurements, m)
}

// patience is how long a peer is waited for.
func (r *report) patience() time.Duration {
	if r.full {
		return 160 * time.Second // an idle reader's 150 s are seen to their end
	}
	return time.Minute
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

// sort puts together what belongs together: measurements end as they like.
func (r *report) sort() {
	slices.SortStableFunc(r.measurements, func(a, b Measurement) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Use, b.Use))
	})
}

// summary is how many bounds were kept.
func (r *report) summary() string {
	ok := 0
	for _, m := range r.measurements {
		if m.Status == statusOK {
			ok++
		}
	}
	return fmt.Sprintf("%d of %d ok", ok, len(r.measurements))
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.name, r.about)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  over\tfigure\tours\tGo\tat most\t")
	for _, m := range r.measurements {
		if m.Status == statusSkipped {
			fmt.Fprintf(w, "  SKIPPED: %s\n", m.Why)
			return
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\n", m.where(), m.Figure, Reading{m.Ours, m.OursMore}.in(m.Unit),
			m.peer(), m.bound(), strings.ToUpper(string(m.Status)))
	}
	t.Flush()
	for _, m := range r.measurements {
		if m.Status == statusOK {
			continue
		}
		for _, why := range []string{m.Why, m.OursError} {
			if why != "" {
				fmt.Fprintf(w, "  %s: %s\n", strings.TrimSpace(m.where()+" "+m.Figure), why)
			}
		}
	}
}
