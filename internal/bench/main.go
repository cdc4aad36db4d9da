package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/natwise/natwise/internal/natlab/work"
)

// A bench is one thing that natwise does and its peers do too.
type bench struct {
	name    string
	measure func(full bool, progress io.Writer) report
}

// A report is what a bench has found.
type report interface {
	lines() []any // a JSON object for each measurement
	print(w io.Writer)
	kept() bool // every bound
}

// benches in the order in which they run.
var benches = []bench{
	{"pool", measurePool},
	{"watch", measureWatch},
	{"stdlib", measureStdlib},
	{"http", measureHTTP},
	{"sql", measureSQL},
	{"telemetry", measureTelemetry},
	{"budget", measureBudget},
	{"storm", measureStorm},
}

func main() {
	if status, ok := runAsOther(os.Args[1:]); ok {
		os.Exit(status)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// runAsOther is for the processes that benches start: this program once more. They end with
// their standard input.
func runAsOther(args []string) (status int, ok bool) {
	switch {
	case len(args) == 1 && args[0] == asOrigin:
		return beOrigin(os.Stdin, os.Stdout, os.Stderr), true
	case len(args) == 3 && args[0] == asDaemon:
		return beDaemon(args[1], args[2], os.Stdin, os.Stdout, os.Stderr), true
	case len(args) == 3 && args[0] == asSharer:
		return beSharer(args[1], args[2], os.Stdin, os.Stdout, os.Stderr), true
	}
	return 0, false
}

// run returns the exit status: 0 if all bounds were kept, 2 for bad arguments.
func run(args []string, stdout, stderr io.Writer) int {
	o, status, ok := work.ParseOptions("bench", args, stderr, stormFlags)
	if !ok {
		return status
	}
	chosen, err := choose(o.Only)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	enterStorm(chosen)
	for _, b := range chosen {
		r := b.measure(o.Full, stderr)
		if err := show(r, o.JSON, stdout); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		if !r.kept() {
			status = 1
		}
	}
	return status
}

// show writes a report as lines of JSON or for people.
func show(r report, asJSON bool, w io.Writer) error {
	if !asJSON {
		r.print(w)
		return nil
	}
	e := json.NewEncoder(w)
	for _, line := range r.lines() {
		if err := e.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the bench of that name, or all for no name.
func choose(name string) ([]bench, error) {
	if name == "" {
		return benches, nil
	}
	var names []string
	for _, b := range benches {
		if b.name == name {
			return []bench{b}, nil
		}
		names = append(names, b.name)
	}
	return nil, fmt.Errorf("no bench %q, there are %s", name, strings.Join(names, ", "))
}
