package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	natlab.Enter()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0 if all bounds were kept, 2 for bad arguments.
func run(args []string, stdout, stderr io.Writer) int {
	o, status, ok := work.ParseOptions("once", args, stderr)
	if !ok {
		return status
	}
	chosen, err := choose(scenarios, o.Only)
	if err != nil {
		fmt.Fprintln(stderr, "once:", err)
		return 2
	}
	ok = true
	for _, s := range chosen {
		r := perform(s, o.Full, stderr)
		ok = ok && r.kept()
		if err := r.write(stdout, o.JSON); err != nil {
			fmt.Fprintln(stderr, "once:", err)
			return 1
		}
	}
	if !ok {
		return 1
	}
	return 0
}

// A scenario is something that happens to clients, and what is measured then.
type scenario struct {
	name  string
	about string
	play  func(r *report) error
}

var scenarios = []scenario{
	{"exactly-once", "requests while flows are forgotten and reset, and the origin is killed", exactlyOnce},
	{"black-http1", "200 GETs a second over HTTP/1.1, then the gateway forgets all flows", black(http1)},
	{"black-tls", "the same over TLS", black(https1)},
	{"black-http2", "the same over HTTP/2", black(http2)},
}

// choose returns the scenario of that name, or all for no name.
func choose(all []scenario, name string) ([]scenario, error) {
	if name == "" {
		return all, nil
	}
	var names []string
	for _, s := range all {
		if s.name == name {
			return []scenario{s}, nil
		}
		names = append(names, s.name)
	}
	return nil, fmt.Errorf("no scenario %q, there are %s", name, strings.Join(names, ", "))
}

// perform plays a scenario, and notes why that could not be done to its end.
func perform(s scenario, full bool, progress io.Writer) *report {
	begin := time.Now()
	r := &report{scenario: s, full: full}
	switch err := s.play(r); {
	case errors.Is(err, natlab.ErrUnavailable):
		r.note(Measurement{Figure: "everything", Status: statusSkipped, Why: err.Error()})
	case err != nil:
		r.note(Measurement{Figure: "everything", Status: statusMissed, Why: err.Error()})
	}
	fmt.Fprintf(progress, "%s: %s, %.1f s\n", r.name, r.summary(), time.Since(begin).Seconds())
	return r
}

// write prints the report for people, or as JSON.
func (r *report) write(w io.Writer, asJSON bool) error {
	if !asJSON {
		r.print(w)
		return nil
	}
	for _, m := range r.measurements {
		if err := json.NewEncoder(w).Encode(m); err != nil {
			return err
		}
	}
	return nil
}
