package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

func main() {
	if parent := os.Getenv(frozenEnv); parent != "" {
		os.Exit(beFrozen(parent, os.Stderr))
	}
	natlab.Enter()
	os.Setenv("NO_PROXY", "*") // there is none in a lab
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0 if all bounds were kept, 2 for bad arguments.
func run(args []string, stdout, stderr io.Writer) int {
	o, status, ok := work.ParseOptions("liveness", args, stderr)
	if !ok {
		return status
	}
	chosen, err := choose(scenarios, o.Only)
	if err != nil {
		fmt.Fprintln(stderr, "liveness:", err)
		return 2
	}
	ok = true
	for _, r := range perform(chosen, o.Full, stderr) {
		ok = ok && r.kept()
		if !o.JSON {
			r.print(stdout)
			continue
		}
		for _, m := range r.measurements {
			if err := json.NewEncoder(stdout).Encode(m); err != nil {
				fmt.Fprintln(stderr, "liveness:", err)
				return 1
			}
		}
	}
	if !ok {
		return 1
	}
	return 0
}

// A scenario is something that happens to connections, and what is measured then.
type scenario struct {
	name  string
	about string
	alone bool // it measures milliseconds: nothing else runs meanwhile
	play  func(r *report) error
}

var scenarios = []scenario{
	{"parked-reader", "connections idle in Read, then everything is black", false, parkedReader},
	{"unanswered", "a request is acknowledged and its answer due, then everything is black", false, unanswered},
	{"busy-beside", "a busy flow goes black alone, beside others to the same address", false, busyBeside},
	{"busy-alone", "a busy flow goes black, and there is no other to the same address", false, busyAlone},
	{"outage-10s", "a request is out, then the whole path is down for 10 s", false, outage(10 * time.Second)},
	{"outage-30s", "a request is out, then the whole path is down for 30 s", false, outage(30 * time.Second)},
	{"zero-window", "the server does not read for 30 s, then everything", false, zeroWindow},
	{"parked", "connections parked in a pool for longer than the path remembers, then all used", false, kept},
	{"parked-no-probes", "the same without keepalive probes", false, retired},
	{"reset-on-idle", "a RST comes to a connection that is parked", true, resetOnIdle},
	{"lost-probes", "two packets in a row are lost that the client sends after a silence", false, lostProbes},
	{"loss-1", "requests and answers of 200 B, 1 % of the packets lost each way", false, loss(0.01, 1e-4)},
	{"loss-5", "requests and answers of 200 B, 5 % of the packets lost each way", false, loss(0.05, 1e-3)},
	{"frozen", "a process with parked connections is stopped for longer than the path remembers", false, frozen},
	{"lying-proxy", "a middlebox acknowledges what it throws away, and 19 s later sends a FIN", false, lyingProxy},
	{"learned", "three paths that forget sooner than natwise was told, learned from connections about to be closed", false, learned},
	{"shorter-path", "the path forgets after 6 s, and natwise was told 16 s", false, shorterPath},
	{"stale-servers", "a NAT uses the ports of flows again that idled out and whose servers hold on to them", false, staleServers},
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

// perform performs all scenarios: side by side, after those that run alone.
func perform(chosen []scenario, full bool, progress io.Writer) []*report {
	reports := make([]*report, len(chosen))
	var mu sync.Mutex // guards progress
	play := func(i int) {
		begin := time.Now()
		r := &report{scenario: chosen[i], full: full}
		reports[i] = r
		r.end(r.play(r))
		r.sort()
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(progress, "%s: %v, %.1f s\n", r.name, r.summary(), time.Since(begin).Seconds())
	}
	for i, s := range chosen {
		if s.alone {
			play(i)
		}
	}
	var rest sync.WaitGroup
	for i, s := range chosen {
		if !s.alone {
			rest.Go(func() { play(i) })
		}
	}
	rest.Wait()
	return reports
}

// end notes why a scenario could not be played to its end.
func (r *report) end(err error) {
	switch {
	case errors.Is(err, natlab.ErrUnavailable):
		r.note(Measurement{Figure: "everything", Status: statusSkipped, Why: err.Error()})
	case err != nil:
		r.note(Measurement{Figure: "everything", Status: statusMissed, Why: err.Error()})
	}
}
