package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A result is what -json prints of a run. Ports, flows and SYNs are counted by the NAT.
type result struct {
	Scenario  string  `json:"scenario"` // without or with a shared budget
	Processes int     `json:"processes"`
	Ports     int     `json:"ports"`
	TimeScale int     `json:"time_scale"`
	Seconds   float64 `json:"seconds"`

	PeakPorts   int     `json:"peak_ports"`
	RefusedSYNs int     `json:"refused_syn"`
	FlowsOpened int     `json:"flows_opened"`
	Served      int     `json:"served"`
	Failed      int     `json:"failed"`                // requests without an answer in time
	FirstError  string  `json:"first_error,omitempty"` // of those
	LeastServed int     `json:"least_served"`          // by one process, a restarted one and its successor together
	MostServed  int     `json:"most_served"`
	P99Wait     float64 `json:"p99_wait_ms"` // of requests, for a connection

	KilledHeld int     `json:"killed_held"`        // ports of the process that was killed
	Kept       int     `json:"kept"`               // the most that the budget kept for the NAT since
	KeptFor    float64 `json:"kept_seconds"`       // how long it did; 0: it still did in the end, or never
	Degraded   string  `json:"degraded,omitempty"` // what the budget said was wrong with it
	Status     string  `json:"status"`             // ok, missed or skipped
	Bound      string  `json:"bound,omitempty"`
	Reason     string  `json:"reason,omitempty"`
}

const (
	without = "without"
	with    = "with"
)

// result is what became of a run, once it is over.
func (f *fleet) result(scenario string) result {
	counts := f.counts()
	f.mu.Lock()
	defer f.mu.Unlock()
	r := result{
		Scenario: scenario, Processes: f.processes, Ports: f.ports, TimeScale: f.scale, Seconds: seconds(f.lasts),
		PeakPorts: counts.Peak, RefusedSYNs: counts.RefusedSYNs, FlowsOpened: counts.Opened,
		LeastServed: math.MaxInt, KilledHeld: f.lost, Kept: f.kept, KeptFor: seconds(f.back), FirstError: f.firstErr, Degraded: f.degraded, Status: "ok",
	}
	var waits []time.Duration
	for _, p := range f.rows {
		r.Served += p.served
		r.Failed += p.failed
		r.LeastServed = min(r.LeastServed, p.served)
		r.MostServed = max(r.MostServed, p.served)
		waits = append(waits, p.waits...)
	}
	r.P99Wait = seconds(p99(waits)) * 1000
	if missed := r.missed(); len(missed) > 0 {
		r.Status, r.Bound = "missed", strings.Join(missed, "; ")
	}
	return r
}

// missed is what the run was to show and did not. Of processes that share nothing only
// that is asked that they were counted at all.
func (r result) missed() (bounds []string) {
	miss := func(format string, args ...any) { bounds = append(bounds, fmt.Sprintf(format, args...)) }
	if r.FlowsOpened == 0 {
		miss("flows_opened 0, want more: they went past the gateway")
	}
	if r.Scenario == without {
		return bounds
	}
	if r.RefusedSYNs > 0 {
		miss("refused_syn %d, want 0", r.RefusedSYNs)
	}
	if r.PeakPorts > r.Ports {
		miss("peak_ports %d, want at most %d", r.PeakPorts, r.Ports)
	}
	if r.Degraded != "" {
		miss("degraded %q, want none", r.Degraded)
	}
	if r.LeastServed == 0 {
		miss("least_served 0, want more: a process got nothing")
	}
	if r.KilledHeld > 0 && r.Kept == 0 {
		miss("kept 0, want more: nobody kept the ports of the killed process")
	}
	if r.Kept > 0 && r.KeptFor == 0 {
		miss("kept_seconds 0, want more: the ports of the killed process did not come back")
	}
	return bounds
}

// p99 returns the smallest that 99 of 100 do not exceed; zero if there is nothing.
func p99(of []time.Duration) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)*99+99)/100-1]
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
