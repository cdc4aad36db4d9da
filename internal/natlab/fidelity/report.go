package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	excessRatio   = 0.05
	excessPerHold = 25 * time.Millisecond
)

// A Report is one run.
type Report struct {
	Scenario string `json:"scenario"`
	Lab      string `json:"lab"`
	Path     string `json:"path"`
	Limit    int    `json:"limit"`
	Room     int    `json:"room"`
	Holds    string `json:"holds"`
	Status   string `json:"status"`
	Why      string `json:"why,omitempty"` // it was missed or skipped
	Bound    string `json:"bound"`

	Samples    int     `json:"samples"`
	EveryP50   float64 `json:"every_p50_ms"` // between two samples
	EveryP99   float64 `json:"every_p99_ms"`
	Flows      int     `json:"flows"`   // that the gateway had
	Booked     int     `json:"booked"`  // by the ledger
	Missing    int     `json:"missing"` // in all samples together
	LiveMax    int     `json:"live_max"`
	Gateway    float64 `json:"gateway_flow_seconds"`
	Ledger     float64 `json:"ledger_flow_seconds"`
	Excess     float64 `json:"excess_ratio"`
	ExcessHold float64 `json:"excess_ms_per_hold"`

	Lateness []Lateness `json:"lateness"`
}

func newReport(s work.Scenario) *Report {
	return &Report{
		Scenario: s.Name, Lab: "kernel", Path: work.Path().Name, Limit: work.Limit, Room: s.Room, Holds: work.Timers(),
		Status: "ok",
		Bound: fmt.Sprintf("0 missing, at most %d live, excess at most %.0f %% or %v per hold, whichever is larger",
			work.Limit, 100*excessRatio, excessPerHold),
	}
}

// miss notes a bound that was not kept.
func (r *Report) miss(format string, args ...any) {
	r.Status = "missed"
	if r.Why != "" {
		r.Why += "; "
	}
	r.Why += fmt.Sprintf(format, args...)
}

// judge notes what the audit found.
func (r *Report) judge(a *audit, booked int) {
	r.Samples, r.Missing, r.LiveMax, r.Booked = a.samples, a.missing, a.most, booked
	r.EveryP50 = milliseconds(work.Percentile(a.apart, 0.5))
	r.EveryP99 = milliseconds(work.Percentile(a.apart, 0.99))
	r.Flows = a.follower.ended()
	r.Lateness = a.follower.lateness()
	r.Gateway, r.Ledger = round(a.gateway), round(a.ledger)
	excess := a.ledger - a.gateway
	if a.gateway > 0 {
		r.Excess = math.Round(excess/a.gateway*1e5) / 1e5
		r.ExcessHold = round(excess * 1000 / float64(r.Flows))
	}
	switch {
	case r.Flows == 0 || booked == 0:
		r.miss("the gateway had %d flows, the ledger has booked %d", r.Flows, booked)
	case excess > max(excessRatio*a.gateway, excessPerHold.Seconds()*float64(r.Flows)):
		r.miss("excess %.1f %%, %.1f ms per hold", 100*r.Excess, r.ExcessHold)
	}
	if r.Missing > 0 {
		r.miss("%d missing, the first %s", r.Missing, a.example)
	}
	if r.LiveMax > work.Limit {
		r.miss("%d live flows to one destination", r.LiveMax)
	}
}

func round(x float64) float64 { return math.Round(x*100) / 100 }

func (r *Report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: path %s, %d ports, %s\n", r.Scenario, r.Path, r.Limit, r.Holds)
	if r.Samples > 0 {
		fmt.Fprintf(w, "  %d samples, one every %.1f ms (99 %%: %.1f ms); %d flows at the gateway, %d booked\n",
			r.Samples, r.EveryP50, r.EveryP99, r.Flows, r.Booked)
		fmt.Fprintf(w, "  missing %d; live at most %d; excess %.2f %%, %.1f ms per hold (ledger %.1f, gateway %.1f flow-seconds)\n",
			r.Missing, r.LiveMax, 100*r.Excess, r.ExcessHold, r.Ledger, r.Gateway)
		r.printLateness(w)
	}
	fmt.Fprintf(w, "  bound: %s\n  %s", r.Bound, strings.ToUpper(r.Status))
	if r.Why != "" {
		fmt.Fprintf(w, ": %s", r.Why)
	}
	fmt.Fprintln(w)
}

func (r *Report) printLateness(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "ending\tflows\tlateness min ms\tp50 ms\tmax ms\t")
	for _, l := range r.Lateness {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t\n", l.How, l.Flows, l.Min, l.P50, l.Max)
	}
	t.Flush()
}
