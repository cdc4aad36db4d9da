package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// options is what the flags ask for.
type options struct {
	scene *scene
	json  bool
	html  string // the file for the page; "": none
}

// What a machine with two cores does in time, and what one screen can tell.
const (
	maxRequests    = 20_000
	maxConcurrency = 1_000
)

// parse returns what the flags ask for. An error names the flag and its value.
func parse(args []string, errs io.Writer) (o options, err error) {
	var name string
	w := work{ports: appServicePorts()}
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.StringVar(&name, "scenario", "exhaustion", "`what` goes wrong: "+strings.Join(names(), ", "))
	flags.IntVar(&w.requests, "requests", 1200, "exhaustion: how many `requests` each client sends")
	flags.IntVar(&w.concurrency, "concurrency", 100, "exhaustion: how many of them are sent `at a time`; the next lot follows when all are back")
	flags.DurationVar(&w.service, "service", 100*time.Millisecond, "exhaustion: how long the server takes for an answer")
	flags.BoolVar(&o.json, "json", false, "print one JSON object and nothing else")
	flags.StringVar(&o.html, "html", "", "write natwise's live page, as it was in the end, to this `file`")
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
	for _, s := range scenes {
		if s.name == name {
			o.scene, err = s.open(w)
			return o, errors.Join(err, meaningless(flags, name))
		}
	}
	return o, fmt.Errorf("-scenario %s: want %s", name, strings.Join(names(), ", "))
}

// meaningless names the first flag that says nothing in the scenario.
func meaningless(flags *flag.FlagSet, scenario string) (err error) {
	if scenario == "exhaustion" {
		return nil
	}
	flags.Visit(func(f *flag.Flag) {
		if sized := f.Name == "requests" || f.Name == "concurrency" || f.Name == "service"; sized && err == nil {
			err = fmt.Errorf("-%s %s: for -scenario exhaustion only; the sizes of %s are fixed", f.Name, f.Value, scenario)
		}
	})
	return err
}
