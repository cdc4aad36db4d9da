package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/natwise/natwise/internal/natlab/work"
)

// A status is how a scenario ended.
type status string

const (
	statusOK      status = "ok"
	statusMissed  status = "missed"
	statusSkipped status = "skipped"
)

// A Report is one scenario.
type Report struct {
	Scenario string        `json:"scenario"`
	Lab      string        `json:"lab"`
	Path     string        `json:"path"`
	Limit    int           `json:"limit"`
	Room     int           `json:"room"` // flows that the gateway had for natwise; the others met the limit
	Holds    string        `json:"holds"`
	Workers  int           `json:"workers"`
	Names    int           `json:"names"`
	HTTP     int           `json:"http_clients"`
	Status   status        `json:"status"`
	Why      string        `json:"why,omitempty"` // it was missed or skipped
	Bound    string        `json:"bound"`
	Clients  []work.Result `json:"clients"`
	Ratio    float64       `json:"ratio"` // of the first of Ratios
	Ratios   []Ratio       `json:"ratios"`
}

// A Ratio is natwise's figure divided by that of its peer.
type Ratio struct {
	Of    string  `json:"of"` // the figure's key
	Peer  string  `json:"peer"`
	Ours  float64 `json:"ours"`       // the median
	Peers float64 `json:"peer_value"` // the median
	Ratio float64 `json:"ratio"`      // the median of the pairs'
	Worst float64 `json:"ratio_95,omitempty"`
	Pairs int     `json:"pairs"`
	Bound float64 `json:"bound,omitempty"` // zero: none is asked for
	Least bool    `json:"at_least"`        // the bound; otherwise it is at most that
}

// compare makes a Ratio of pairs of runs.
func compare(of, peer string, ours, peers []float64, bound float64, least bool) Ratio {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / peers[i]
	}
	r := Ratio{
		Of: of, Peer: peer, Ours: work.Median(ours), Peers: work.Median(peers), Ratio: work.Median(ratios),
		Pairs: len(ratios), Bound: bound, Least: least,
	}
	if lower, upper, ok := work.Bounds(ratios); ok && least {
		r.Worst = lower
	} else if ok {
		r.Worst = upper
	}
	return r
}

// kept reports whether the ratio keeps its bound: the 95 % bound of it where
// there are pairs enough for one, else its median.
func (r Ratio) kept() bool {
	judged := cmp.Or(r.Worst, r.Ratio)
	switch {
	case r.Bound == 0:
		return true
	case r.Least:
		return judged >= r.Bound
	}
	return judged <= r.Bound
}

func (r Ratio) String() string {
	word := "at most"
	if r.Least {
		word = "at least"
	}
	s := fmt.Sprintf("%s is %.2f, %s's %.2f, ratio %.3f (median of %d)", r.Of, r.Ours, r.Peer, r.Peers, r.Ratio, r.Pairs)
	if r.Worst != 0 {
		s += fmt.Sprintf(", 95 %% bound %.3f", r.Worst)
	}
	if r.Bound == 0 {
		return s
	}
	return fmt.Sprintf("%s, %s %.2f is asked for", s, word, r.Bound)
}

func newReport(s work.Scenario, bound string) *Report {
	return &Report{
		Scenario: s.Name, Lab: "kernel", Path: work.Path().Name, Limit: work.Limit, Room: s.Room, Holds: work.Timers(),
		Workers: s.Workers, Names: s.Names, HTTP: s.Clients, Status: statusOK, Bound: bound,
	}
}

// miss notes a bound that was not kept.
func (r *Report) miss(format string, args ...any) {
	r.Status = statusMissed
	if r.Why != "" {
		r.Why += "; "
	}
	r.Why += fmt.Sprintf(format, args...)
}

// hold notes a ratio, and whether it was kept.
func (r *Report) hold(ratio Ratio) {
	if len(r.Ratios) == 0 {
		r.Ratio = ratio.Ratio
	}
	r.Ratios = append(r.Ratios, ratio)
	if !ratio.kept() {
		r.miss("%v", ratio)
	}
}

// skip says why nothing was measured.
func (r *Report) skip(err error) {
	r.Status, r.Why = statusSkipped, err.Error()
}

func (r *Report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %d workers, %d name(s), %d client(s) in the process; %d ports, room for %d of natwise's\n",
		r.Scenario, r.Workers, r.Names, r.HTTP, r.Limit, r.Room)
	fmt.Fprintf(w, "  path %s: %s\n", r.Path, r.Holds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "client\trequests\tok\tfailed\tflows opened\tpeak ports\tSYNs refused\tp50 ms\tp99 ms\tp99.9 ms\trate/s\tseconds\t")
	for _, c := range r.Clients {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t\n",
			c.Name, c.Requests, c.OK, c.Failed, c.Opened, c.PeakPorts, c.RefusedSYN, c.P50, c.P99, c.P999, c.Rate, c.Seconds)
	}
	t.Flush()
	for _, c := range r.Clients {
		if c.Error != "" {
			fmt.Fprintf(w, "  %s, the first failure: %s\n", c.Name, c.Error)
		}
	}
	fmt.Fprintf(w, "  bound: %s\n", r.Bound)
	for _, ratio := range r.Ratios {
		fmt.Fprintf(w, "  %v\n", ratio)
	}
	fmt.Fprintf(w, "  %s", strings.ToUpper(string(r.Status)))
	if r.Why != "" {
		fmt.Fprintf(w, ": %s", r.Why)
	}
	fmt.Fprintln(w)
}
