// Command quickstart sends the same work through three HTTP clients, each
// behind a NAT with the 128 ports of Azure App Service, and shows what becomes
// of it. Everything runs in this process, on loopback; nothing needs root.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -concurrency 300 -service 20ms
//	go run ./examples/quickstart -json
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
	"strings"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive/netpath"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr, lively(os.Stdout))
	stop()
	os.Exit(status)
}

// scale is how many times as fast as the NAT's real timers ours run.
const scale = 60

// thePath is the NAT that each client stands behind. It counts loopback, which
// a real one never sees.
func thePath() netpath.Profile {
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	return fauxnat.Scale(path, scale)
}

// run returns the exit status. live says that out is a terminal that
// understands colours and movements of the cursor.
func run(ctx context.Context, args []string, out, errs io.Writer, live bool) int {
	w, asJSON, err := parse(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(errs, "quickstart:", err)
		return 2
	}
	path := thePath()
	s := newScreen(out, live)
	if asJSON {
		s = newScreen(io.Discard, false)
	}
	entrants := contenders(path)
	s.opening(w, entrants)
	lanes, err := race(ctx, w, path, entrants, s.progress)
	s.settle()
	if err != nil {
		fmt.Fprintln(errs, "quickstart:", err)
		return 1
	}
	v := newVerdict(path, lanes)
	if asJSON {
		err = json.NewEncoder(out).Encode(v)
	} else {
		err = s.closing(w, v, lanes)
	}
	if err != nil {
		fmt.Fprintln(errs, "quickstart:", err)
		return 1
	}
	if v.Status != "ok" {
		return 1
	}
	return 0
}

// What a machine with two cores does in time, and what one screen can tell.
const (
	maxRequests    = 20_000
	maxConcurrency = 1_000
)

// parse returns what the flags ask for. An error names the flag and its value.
func parse(args []string, errs io.Writer) (w work, asJSON bool, err error) {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.IntVar(&w.requests, "requests", 1200, "how many `requests` each client sends")
	flags.IntVar(&w.concurrency, "concurrency", 100, "how many of them are sent `at a time`; the next lot follows when all are back")
	flags.DurationVar(&w.service, "service", 100*time.Millisecond, "how long the server takes for an answer")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object and nothing else")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(errs)
			flags.Usage()
		}
		return w, asJSON, err
	}
	if flags.NArg() > 0 {
		return w, asJSON, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	return w, asJSON, w.check(thePath().Limit(netpath.Destination))
}

// check refuses what cannot be done within 30 s behind so many ports.
func (w *work) check(ports int) error {
	switch {
	case w.requests < 1 || w.requests > maxRequests:
		return fmt.Errorf("-requests %d: must be within 1 and %d", w.requests, maxRequests)
	case w.concurrency < 1 || w.concurrency > maxConcurrency:
		return fmt.Errorf("-concurrency %d: must be within 1 and %d", w.concurrency, maxConcurrency)
	case w.service < 0:
		return fmt.Errorf("-service %v: must not be negative", w.service)
	case w.service > patience:
		return fmt.Errorf("-service %v: too long to end within 30 s", w.service)
	}
	w.concurrency = min(w.concurrency, w.requests)
	w.ports = ports
	if least := time.Duration(w.waves()) * w.ideal(); least > patience/2 {
		most := time.Duration(float64(w.service) * float64(patience/2) / float64(least))
		return fmt.Errorf("-service %v: %d requests, %d at a time through %d ports, would take %v at best, too long to end within 30 s; "+
			"at most -service %v, or fewer -requests", w.service, w.requests, w.concurrency, ports, least, most.Truncate(time.Millisecond))
	}
	return nil
}

// A verdict is what -json prints.
type verdict struct {
	Scenario  string   `json:"scenario"`
	Path      string   `json:"path"`
	Limit     int      `json:"limit"`
	TimeScale int      `json:"time_scale"`
	Status    string   `json:"status"`          // ok or missed
	Bound     string   `json:"bound,omitempty"` // what was missed
	Clients   []result `json:"clients"`
}

// A result is what one client made of the work. Ports, flows and SYNs are
// counted by its NAT. Percentiles are over all requests that were sent; one
// that failed took until it failed.
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
}

func newVerdict(path netpath.Profile, lanes []*lane) verdict {
	v := verdict{
		Scenario: "exhaustion", Path: netpath.AzureAppService().Name,
		Limit: path.Limit(netpath.Destination), TimeScale: scale, Status: "ok",
	}
	for _, l := range lanes {
		v.Clients = append(v.Clients, l.result())
	}
	if missed := missed(v, lanes); len(missed) > 0 {
		v.Status, v.Bound = "missed", strings.Join(missed, "; ")
	}
	return v
}

// missed returns what the run was to show and did not.
func missed(v verdict, lanes []*lane) (bounds []string) {
	miss := func(format string, args ...any) { bounds = append(bounds, fmt.Sprintf(format, args...)) }
	for i, r := range v.Clients {
		if r.FlowsOpened == 0 {
			miss("%s: flows_opened 0, want more: it went past its NAT", r.Name)
		}
		if r.Name != natwise {
			continue
		}
		if r.Failed > 0 {
			miss("%s: failed %d, want 0 (the first: %v)", r.Name, r.Failed, lanes[i].firstErr)
		}
		if r.RefusedSYN > 0 {
			miss("%s: refused_syn %d, want 0", r.Name, r.RefusedSYN)
		}
		if r.PeakPorts > v.Limit {
			miss("%s: peak_ports %d, want at most %d", r.Name, r.PeakPorts, v.Limit)
		}
	}
	return bounds
}
