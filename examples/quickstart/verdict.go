package main

import (
	"fmt"
	"strings"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A verdict is what -json prints.
type verdict struct {
	Scenario  string   `json:"scenario"`
	Path      string   `json:"path"`
	Limit     int      `json:"limit"`
	TimeScale int      `json:"time_scale"`
	Status    string   `json:"status"`           // ok, missed or skipped
	Bound     string   `json:"bound,omitempty"`  // what was missed
	Reason    string   `json:"reason,omitempty"` // why it was skipped
	Clients   []result `json:"clients"`
}

// A result is what one client made of the work. Ports, flows, SYNs and connections
// that lead nowhere are counted by its NAT. Percentiles are over all requests that
// were sent; one that failed took until it failed.
type result struct {
	Name        string  `json:"name"`
	Requests    int     `json:"requests"`
	OK          int     `json:"ok"`
	Failed      int     `json:"failed"` // those that were not sent in time, too
	FlowsOpened int     `json:"flows_opened"`
	PeakPorts   int     `json:"peak_ports"`
	RefusedSYN  int     `json:"refused_syn"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Seconds     float64 `json:"seconds"`
	*Trouble            // nil in exhaustion
}

// Trouble is what a result says besides where flows are forgotten, dark or lied to. It
// is exported for package json, which cannot fill what is embedded and is not.
type Trouble struct {
	Astray        int     `json:"astray"`         // connections that came to lead nowhere
	AstraySeconds float64 `json:"astray_seconds"` // for how long the client had some of them, without a break
	Unsafe        int     `json:"failed_unsafe"`  // of the failed: requests that must not be sent twice
	Slowest       float64 `json:"slowest_ms"`     // of the requests that were answered
}

func newVerdict(s *scene, lanes []*lane) verdict {
	v := verdict{
		Scenario: s.name, Path: s.through, Limit: s.path.Limit(netpath.Destination), TimeScale: s.scale,
		Status: "ok", Clients: []result{},
	}
	unable := s.unable
	for _, l := range lanes {
		v.Clients = append(v.Clients, l.result())
		if unable == nil {
			unable = l.cannot()
		}
	}
	if unable != nil {
		v.Status, v.Reason = "skipped", unable.Error()
		return v
	}
	if missed := append(unbooked(v), s.missed(v, lanes)...); len(missed) > 0 {
		v.Status, v.Bound = "missed", strings.Join(missed, "; ")
	}
	return v
}

// ours is natwise's result, zero if there is none.
func (v verdict) ours() result {
	for _, r := range v.Clients {
		if r.Name == natwise {
			return r
		}
	}
	return result{Trouble: new(Trouble)}
}

func (v verdict) others() (rs []result) {
	for _, r := range v.Clients {
		if r.Name != natwise {
			rs = append(rs, r)
		}
	}
	return rs
}

// unbooked misses clients that went past their NAT.
func unbooked(v verdict) (bounds []string) {
	for _, r := range v.Clients {
		if r.FlowsOpened == 0 {
			bounds = append(bounds, r.Name+": flows_opened 0, want more: it went past its NAT")
		}
	}
	return bounds
}

// failedNone misses if natwise lost a request, had a SYN refused or held more ports than
// there are.
func failedNone(v verdict, lanes []*lane) (bounds []string) {
	miss := func(format string, args ...any) { bounds = append(bounds, natwise+": "+fmt.Sprintf(format, args...)) }
	r := v.ours()
	if r.Failed > 0 {
		miss("failed %d, want 0 (the first: %v)", r.Failed, firstErr(lanes))
	}
	if r.RefusedSYN > 0 {
		miss("refused_syn %d, want 0", r.RefusedSYN)
	}
	if r.PeakPorts > v.Limit {
		miss("peak_ports %d, want at most %d", r.PeakPorts, v.Limit)
	}
	return bounds
}

// firstErr is the first error that a request of natwise's ended with.
func firstErr(lanes []*lane) error {
	for _, l := range lanes {
		if l.name == natwise {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.firstErr
		}
	}
	return nil
}
