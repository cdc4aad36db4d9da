// Command fleet has several processes work through one NAT, first each with a count of its
// own, then with a budget that they share, and shows who holds the ports. In the middle one
// is killed and started again. The NAT is in this process, on loopback; nothing needs root.
//
//	go run ./examples/fleet
//	go run ./examples/fleet -n 3 -ports 48
//	go run ./examples/fleet -with -json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"github.com/natwise/natwise/internal/terminal"
)

func main() {
	if slices.Equal(os.Args[1:], []string{asProcess}) {
		os.Exit(beProcess())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr, terminal.Of(os.Stdout))
	stop()
	os.Exit(status)
}

// beProcess is main in the processes of the fleet. Who interrupts the command means the
// parent, which ends them.
func beProcess() int {
	signal.Ignore(os.Interrupt)
	if err := work(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// run returns the exit status. term is what out can do.
func run(ctx context.Context, args []string, out, errs io.Writer, term terminal.Terminal) int {
	complain := func(err error, status int) int {
		fmt.Fprintln(errs, "fleet:", err)
		return status
	}
	o, err := parse(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return complain(err, 2)
	}
	ok, err := o.run(ctx, out, term)
	switch {
	case err != nil:
		return complain(err, 1)
	case !ok:
		return 1
	}
	return 0
}

// run does what the flags ask for, and reports whether all of it was shown.
func (o options) run(ctx context.Context, out io.Writer, term terminal.Terminal) (ok bool, err error) {
	s := newScreen(out, term)
	if o.json {
		s = newScreen(io.Discard, terminal.Terminal{})
	}
	results, err := o.perform(ctx, s)
	if err == nil && o.json {
		err = printJSON(out, results)
	}
	return !slices.ContainsFunc(results, func(r result) bool { return r.Status != "ok" }), err
}

func printJSON(out io.Writer, results []result) error {
	lines := json.NewEncoder(out)
	for _, r := range results {
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// perform does the runs that are asked for, and shows them on s.
func (o options) perform(ctx context.Context, s *screen) (results []result, err error) {
	dir, err := os.MkdirTemp("", "fleet-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s.opening(o.plan)
	if o.without {
		r, err := o.play(ctx, s, without, "")
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if o.with {
		r, err := o.play(ctx, s, with, dir)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, s.closing(results)
}

// play is one run.
func (p plan) play(ctx context.Context, s *screen, scenario, shared string) (result, error) {
	if shared != "" {
		err := canShare(shared, p.ports)
		if errors.Is(err, errors.ErrUnsupported) {
			return result{Scenario: scenario, Processes: p.processes, Ports: p.ports, TimeScale: p.scale, Status: "skipped", Reason: err.Error()}, nil
		}
		if err != nil {
			return result{}, err
		}
	}
	s.begin(scenario)
	defer s.settle()
	f, err := p.run(ctx, shared, s.progress)
	if err != nil {
		return result{}, err
	}
	return f.result(scenario), nil
}
