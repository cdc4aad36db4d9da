package work

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
)

// A Report is an act and its measurements. It may be used by many goroutines.
type Report struct {
	Act
	Full bool // the long form

	mu           sync.Mutex // guards measurements
	measurements []Measurement
}

// Note adds a measurement, which is the act's.
func (r *Report) Note(m Measurement) {
	m.Scenario = r.Name
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measurements = append(r.measurements, m)
}

// kept reports whether something was measured and every bound kept.
func (r *Report) kept() bool {
	for _, m := range r.measurements {
		if m.Status != OK {
			return false
		}
	}
	return len(r.measurements) > 0
}

// summary is how many bounds were kept.
func (r *Report) summary() string {
	bounds, kept := 0, 0
	for _, m := range r.measurements {
		switch {
		case m.Bound == nil && m.Status == OK: // only told
		case m.Status == OK:
			kept++
			fallthrough
		default:
			bounds++
		}
	}
	return fmt.Sprintf("%d of %d bounds kept", kept, bounds)
}

// write prints the report for people, or as JSON, a line for each measurement.
func (r *Report) write(w io.Writer, asJSON bool, peer string) error {
	if !asJSON {
		r.print(w, peer)
		return nil
	}
	for _, m := range r.measurements {
		if err := json.NewEncoder(w).Encode(m); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) print(w io.Writer, peer string) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.About)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  over\tfigure\tours\t%s\tat most\t\n", peer)
	for _, m := range r.measurements {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\n", m.where(), m.Figure, m.ours(), m.peer(peer), m.bound(),
			strings.ToUpper(string(m.Status)))
	}
	t.Flush()
	for _, m := range r.measurements {
		what := strings.TrimSpace(m.where() + " " + m.Figure)
		if m.Status != OK && m.Why != "" {
			fmt.Fprintf(w, "  %s: %s\n", what, m.Why)
		}
		if m.OursError != "" && (m.Status != OK || m.Bound == nil) { // where a bound was kept it is as it has to be
			fmt.Fprintf(w, "  %s, ours: %s\n", what, m.OursError)
		}
	}
}
