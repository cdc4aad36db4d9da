// Command doctor tells which process on this machine uses up the ports of the NAT in
// front of it, on which destination, how, and what to change. It watches the kernel's
// sockets for a while and counts as the NAT does. It opens no connection, sends nothing
// and needs no root.
//
//	go run ./examples/doctor
//	go run ./examples/doctor -path azure-app-service -for 5m
//	go run ./examples/doctor -watch
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], world{out: os.Stdout, errs: os.Stderr, term: terminal.Of(os.Stdout), proc: "/proc", open: openEyes, path: pathOf})
	stop()
	os.Exit(status)
}

// A world is where the command runs. A test has its own.
type world struct {
	out, errs io.Writer
	term      terminal.Terminal // what out can do
	proc      string
	open      func() (eyes, error)
	path      func(name string) (pathway, error)
}

// eyes see the sockets of this network namespace.
type eyes interface {
	look(*sight) error  // into slices that it may use again
	tellsEnds() bool    // also of what was destroyed between two looks
	cpu() time.Duration // what this thread has used of a processor
	close()
}

func openEyes() (eyes, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	return k, nil
}

// pathOf is the path of this name, or the one that this machine looks like.
func pathOf(name string) (pathway, error) {
	if name == "" {
		p, ok := netpath.Detect()
		return newPathway(p, ok), nil
	}
	p, err := netpath.Lookup(name)
	return newPathway(p, true), err
}

// run returns the exit status: 0 if nothing wrong was seen, 1 if something was or if
// nothing can be seen, 2 if the arguments make no sense.
func run(ctx context.Context, args []string, w world) int {
	complain := func(err error, status int) int {
		fmt.Fprintln(w.errs, "doctor:", err)
		return status
	}
	o, err := parse(args, w.errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return complain(err, 2)
	}
	path, err := w.path(o.path)
	if err != nil {
		return complain(fmt.Errorf("-path %s: %w", o.path, err), 2)
	}
	p := newProc(w.proc)
	if err := o.checkPID(p); err != nil {
		return complain(err, 2)
	}
	if !o.lasts {
		o.forHow = max(time.Minute, path.hold(finished))
		if o.watch {
			o.forHow = longest
		}
	}
	d := &doctor{options: o, world: w, proc: p, history: newHistory(path, o.every)}
	looked := d.watchAll(ctx)
	findings, err := d.report(looked)
	switch {
	case err != nil:
		return complain(err, 1)
	case looked != nil:
		return complain(looked, 1)
	case findings > 0:
		return 1
	}
	return 0
}

// options are what the flags ask for.
type options struct {
	path               string
	forHow, every      time.Duration
	lasts              bool // forHow was asked for
	pid                int
	all, asJSON, watch bool
}

const (
	shortest, longest = time.Second, 365 * 24 * time.Hour
	densest, rarest   = 20 * time.Millisecond, 10 * time.Second
)

// parse returns what the flags ask for. An error names the flag and its value.
func parse(args []string, errs io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.DurationVar(&o.forHow, "for", 0, "watch for so `long` (default: as long as the path holds a port, a minute at least; with -watch, until interrupted)")
	flags.DurationVar(&o.every, "every", 250*time.Millisecond, "look so `often`: more while connections come and go unseen, less where it takes over 5 % of a processor")
	flags.StringVar(&o.path, "path", "", "the path's `name`, as examples/paths lists them (default: what this machine looks like)")
	flags.IntVar(&o.pid, "pid", 0, "tell of this process only")
	flags.BoolVar(&o.all, "all", false, "show destinations that the path does not count, too, and judge these for leaks")
	flags.BoolVar(&o.asJSON, "json", false, "print one JSON object a line and nothing else")
	flags.BoolVar(&o.watch, "watch", false, "show what is taken while it watches")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(errs)
			fmt.Fprint(errs, "doctor [flags]\n\n")
			flags.PrintDefaults()
		}
		return o, err
	}
	flags.Visit(func(f *flag.Flag) { o.lasts = o.lasts || f.Name == "for" })
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	case o.lasts && (o.forHow < shortest || o.forHow > longest):
		return o, fmt.Errorf("-for %v: must be within %v and %v", o.forHow, shortest, longest)
	case o.every < densest || o.every > rarest:
		return o, fmt.Errorf("-every %v: must be within %v and %v", o.every, densest, rarest)
	case o.pid < 0:
		return o, fmt.Errorf("-pid %d: must be that of a process", o.pid)
	case o.watch && o.asJSON:
		return o, errors.New("-watch and -json: it is one or the other")
	}
	return o, nil
}

// checkPID refuses a process that is not to be seen from here.
func (o options) checkPID(p *proc) error {
	if o.pid == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(p.root, strconv.Itoa(o.pid))); err != nil {
		return fmt.Errorf("-pid %d: there is no such process", o.pid)
	}
	if ns := p.namespace(strconv.Itoa(o.pid)); ns != "" && ns != p.namespace("self") {
		return fmt.Errorf("-pid %d: it lives in another network namespace: nsenter -t %d -n %s", o.pid, o.pid, again(os.Args[0]))
	}
	return nil
}
