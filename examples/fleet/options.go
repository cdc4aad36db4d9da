package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// options is what the flags ask for.
type options struct {
	plan
	without, with bool // which runs
	json          bool
}

// What a machine with two cores does in time, and what one screen can tell.
const (
	leastProcesses, mostProcesses = 2, 32
	mostPorts                     = 256
	longest                       = 10 * time.Minute
)

// shortest is a run in whose second half the NAT's hold is over, and something happens
// after it.
func (p plan) shortest() time.Duration { return (2*p.hold() + 3*time.Second).Round(time.Second) }

// parse returns what the flags ask for. An error names the flag and its value.
func parse(args []string, errs io.Writer) (o options, err error) {
	o.plan = plan{scale: 60, late: 250 * time.Millisecond, service: 100 * time.Millisecond}
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.IntVar(&o.processes, "n", 8, "how many `processes`")
	flags.IntVar(&o.ports, "ports", 128, "how many `ports` the gateway has")
	flags.DurationVar(&o.lasts, "for", 20*time.Second, "how `long` each of the two runs lasts")
	flags.BoolVar(&o.without, "without", false, "only the run in which each process counts for itself")
	flags.BoolVar(&o.with, "with", false, "only the run with the shared budget")
	flags.BoolVar(&o.json, "json", false, "print one JSON object a run and nothing else")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(errs)
			flags.Usage()
		}
		return o, err
	}
	if !o.without && !o.with {
		o.without, o.with = true, true
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	case o.processes < leastProcesses || o.processes > mostProcesses:
		return o, fmt.Errorf("-n %d: must be within %d and %d", o.processes, leastProcesses, mostProcesses)
	case o.ports < 2*o.processes || o.ports > mostPorts:
		return o, fmt.Errorf("-ports %d: must be within %d, two for each process, and %d", o.ports, 2*o.processes, mostPorts)
	case o.lasts < o.shortest() || o.lasts > longest:
		return o, fmt.Errorf("-for %v: must be within %v, for the ports of a killed process to come back, and %v", o.lasts, o.shortest(), longest)
	}
	return o, nil
}
