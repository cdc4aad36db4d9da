package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	natlab.Enter()
	os.Setenv("NO_PROXY", "*") // there is none in a lab
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0 if all bounds were kept, 2 for bad arguments.
func run(args []string, stdout, stderr io.Writer) int {
	o, status, ok := work.ParseOptions("storm", args, stderr)
	if !ok {
		return status
	}
	scenarios, err := choose(work.Scenarios(o.Full), o.Only)
	if err != nil {
		fmt.Fprintln(stderr, "storm:", err)
		return 2
	}
	t := &theatre{pairs: 3, progress: stderr}
	if o.Full {
		t.pairs = 10
	}
	ok = true
	for _, r := range t.all(scenarios) {
		ok = ok && r.Status == statusOK
		if o.JSON {
			if err := json.NewEncoder(stdout).Encode(r); err != nil {
				fmt.Fprintln(stderr, "storm:", err)
				return 1
			}
			continue
		}
		r.print(stdout)
	}
	if !ok {
		return 1
	}
	return 0
}

// choose returns the scenario of that name, or all for no name.
func choose(all []work.Scenario, name string) ([]work.Scenario, error) {
	if name == "" {
		return all, nil
	}
	var names []string
	for _, s := range all {
		if s.Name == name {
			return []work.Scenario{s}, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("no scenario %q, there are %s", name, strings.Join(names, ", "))
}
