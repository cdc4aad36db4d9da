// Command observability is a small service that can be watched: natwise in front of
// servers that each have a different trouble with ports, measured by Prometheus and, if
// told to, sent by OTLP. Everything runs in this process, on loopback; nothing needs root.
//
//	go -C examples/observability run .                              # until interrupted
//	go -C examples/observability run . -listen :9464 -for 10m
//	go -C examples/observability run . -only rush -otlp http://localhost:4318
//
// What a service of your own needs is in providers.go and in service.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run returns the exit status.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	o, err := parse(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(errs, "observability:", err)
		return 2
	}
	r, err := o.serve(ctx, func(address string) {
		fmt.Fprintf(errs, "observability: metrics at http://%s/metrics, the live page at http://%[1]s/debug/natwise/\n", address)
	})
	if err == nil && o.asJSON {
		err = json.NewEncoder(out).Encode(r)
	} else if err == nil {
		err = r.print(out)
	}
	if err != nil {
		fmt.Fprintln(errs, "observability:", err)
		return 1
	}
	if r.Status != "ok" {
		return 1
	}
	return 0
}

// options are what the flags ask for.
type options struct {
	listen, otlp string
	scenes       []scene
	lasts        time.Duration // 0: until interrupted
	asJSON       bool
}

// parse returns what the flags ask for. An error names the flag and its value.
func parse(args []string, errs io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("observability", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "the `address` of /metrics and the live page; port 0: one that is free")
	flags.StringVar(&o.otlp, "otlp", "", "where metrics and traces are sent too, by OTLP over HTTP, such as http://localhost:4318")
	flags.DurationVar(&o.lasts, "for", 0, "how long it runs; 0: until interrupted")
	only := flags.String("only", "", "one `scene` instead of all: "+strings.Join(names(), ", "))
	flags.BoolVar(&o.asJSON, "json", false, "print one JSON object and nothing else")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(errs)
			flags.Usage()
		}
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	o.scenes = scenes
	if *only != "" {
		i := slices.Index(names(), *only)
		if i < 0 {
			return o, fmt.Errorf("-only %q: it is one of %s", *only, strings.Join(names(), ", "))
		}
		o.scenes = scenes[i : i+1]
	}
	return o, o.check()
}

// check refuses what cannot be done.
func (o options) check() error {
	if _, err := net.ResolveTCPAddr("tcp", o.listen); err != nil {
		return fmt.Errorf("-listen %q: %w", o.listen, err)
	}
	if o.lasts < 0 {
		return fmt.Errorf("-for %v: must not be negative", o.lasts)
	}
	if o.otlp == "" {
		return nil
	}
	u, err := url.Parse(o.otlp)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("-otlp %q: must be a URL such as http://localhost:4318", o.otlp)
	}
	return nil
}

// A report is what -json prints.
type report struct {
	Scenario string   `json:"scenario"`
	Ports    int      `json:"ports"` // for each destination
	Seconds  float64  `json:"seconds"`
	Status   string   `json:"status"`          // ok or missed
	Bound    string   `json:"bound,omitempty"` // what was missed
	Scenes   []result `json:"scenes"`
}

// A result is what became of one scene's requests. Refused are those for which no
// connection came free in time.
type result struct {
	Name    string `json:"name"`
	Sent    int    `json:"sent"`
	OK      int    `json:"ok"`
	Refused int    `json:"refused"`
	Failed  int    `json:"failed"`

	firstErr error
}

// newReport judges the scenes in which nothing may go wrong: the others are there to fail.
func newReport(took time.Duration, scenes []scene, results []result) report {
	r := report{
		Scenario: "observability", Ports: ports, Seconds: took.Round(time.Millisecond).Seconds(),
		Status: "ok", Scenes: results,
	}
	for i, s := range scenes {
		got := results[i]
		switch {
		case got.Sent == 0 && !s.silent: // there it takes a while until one is over
			r.miss("%s: nothing was sent", s.name)
		case s.healthy && got.OK < got.Sent:
			r.miss("%s: ok %d of %d (the first that was not: %v)", s.name, got.OK, got.Sent, got.firstErr)
		}
	}
	return r
}

func (r *report) miss(format string, args ...any) {
	if r.Status = "missed"; r.Bound != "" {
		r.Bound += "; "
	}
	r.Bound += fmt.Sprintf(format, args...)
}

func (r report) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scene\tsent\tok\trefused\tfailed\t")
	for _, s := range r.Scenes {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t\n", s.Name, s.Sent, s.OK, s.Refused, s.Failed)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Status != "ok" {
		_, err := fmt.Fprintln(out, r.Status+":", r.Bound)
		return err
	}
	return nil
}
