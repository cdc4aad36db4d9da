// Command pathprobe measures what stands between this machine and a server: after
// how much silence a flow is forgotten, and if told to, how many flows there may
// be and how long the port of an ended one stays taken. The server is an echo
// server that it provides too.
//
//	go run ./examples/pathprobe -serve :9000            # there
//	go run ./examples/pathprobe HOST:9000               # here
//	go run ./examples/pathprobe -ports -holds HOST:9000 # says what that costs
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	here := world{
		dial:   (&net.Dialer{KeepAlive: -1}).DialContext,
		listen: listen,
		lookup: net.DefaultResolver.LookupNetIP,
		out:    os.Stdout,
		errs:   os.Stderr,
	}
	status := run(ctx, os.Args[1:], here)
	stop()
	os.Exit(status)
}

// A world is where the command runs. A lab has its own.
type world struct {
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	listen    func(ctx context.Context, address string) (net.Listener, error)
	lookup    func(ctx context.Context, network, host string) ([]netip.Addr, error)
	out, errs io.Writer
}

// run returns the exit status: 0 if everything was measured, 1 if not, 2 if the
// arguments make no sense.
func run(ctx context.Context, args []string, w world) int {
	o, err := parse(args, w.errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(w.errs, "pathprobe:", err)
		return 2
	}
	if o.serve != "" {
		err = serve(ctx, o, w)
	} else {
		err = probe(ctx, o, w)
	}
	switch {
	case errors.Is(err, errUnasked):
		fmt.Fprintln(w.errs, "pathprobe:", err)
		return 2
	case errors.Is(err, errIncomplete):
		return 1
	case err != nil:
		fmt.Fprintln(w.errs, "pathprobe:", err)
		return 1
	}
	return 0
}

var (
	// errIncomplete says that not everything was measured. The report tells what.
	errIncomplete = errors.New("not everything was measured")

	errUnasked = errors.New("nothing was done. Say -yes if that is what you want")
)

func listen(ctx context.Context, address string) (net.Listener, error) {
	// Probes of ours would keep every flow known, and so hide what is measured.
	cfg := net.ListenConfig{KeepAlive: -1}
	cfg.SetMultipathTCP(false)
	return cfg.Listen(ctx, "tcp", address)
}

// options are what the flags ask for.
type options struct {
	serve, target      string
	idle, ports, holds bool
	max                time.Duration
	parallel, maxPorts int
	asJSON, yes        bool
	connections        int
}

const (
	shortestMax = time.Second
	longestMax  = 24 * time.Hour
	mostPorts   = 65535
	mostAtOnce  = 64
)

// parse returns what the flags ask for. An error names the flag and its value.
func parse(args []string, errs io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("pathprobe", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.StringVar(&o.serve, "serve", "", "be the echo server on this `address` until interrupted")
	flags.IntVar(&o.connections, "connections", 1024, "how many connections the server serves at a time")
	flags.BoolVar(&o.idle, "idle", false, "measure how long a silent flow is remembered (the default, if neither -ports nor -holds is given)")
	flags.BoolVar(&o.ports, "ports", false, "measure how many connections there may be; needs -yes")
	flags.BoolVar(&o.holds, "holds", false, "measure how long the port of an ended connection stays taken; needs -yes and a path with at most -max-ports of them")
	flags.DurationVar(&o.max, "max", 20*time.Minute, "the longest silence or hold to try; for a server, how long a connection may last")
	flags.IntVar(&o.parallel, "parallel", 10, "how many connections are silent `side by side`: fewer cost fewer ports and more time")
	flags.IntVar(&o.maxPorts, "max-ports", 256, "the most `connections` that -ports and -holds open at a time")
	flags.BoolVar(&o.asJSON, "json", false, "print one JSON object for each measurement and nothing else")
	flags.BoolVar(&o.yes, "yes", false, "do what may get in the way of other programs")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(errs)
			fmt.Fprint(errs, "pathprobe [flags] HOST:PORT, or pathprobe -serve :PORT\n\n")
			flags.PrintDefaults()
		}
		return o, err
	}
	o.target = flags.Arg(0)
	o.ports = o.ports || o.holds
	o.idle = o.idle || !o.ports
	switch {
	case flags.NArg() > 1:
		return o, fmt.Errorf("unexpected argument %q: flags come before HOST:PORT", flags.Arg(1))
	case o.serve != "" && o.target != "":
		return o, fmt.Errorf("-serve %s and the target %s: it is one or the other", o.serve, o.target)
	case o.serve == "" && o.target == "":
		return o, errors.New("HOST:PORT is missing; on that host, run pathprobe -serve :PORT")
	}
	return o, o.check()
}

// check refuses what makes no sense.
func (o options) check() error {
	switch {
	case o.max < shortestMax || o.max > longestMax:
		return fmt.Errorf("-max %v: must be within %v and %v", o.max, shortestMax, longestMax)
	case o.parallel < 1 || o.parallel > mostAtOnce:
		return fmt.Errorf("-parallel %d: must be within 1 and %d", o.parallel, mostAtOnce)
	case o.maxPorts < 1 || o.maxPorts > mostPorts:
		return fmt.Errorf("-max-ports %d: must be within 1 and %d", o.maxPorts, mostPorts)
	case o.connections < 1 || o.connections > mostPorts:
		return fmt.Errorf("-connections %d: must be within 1 and %d", o.connections, mostPorts)
	}
	return nil
}

// resolve returns the one address that is measured, and how many there were.
func (w world) resolve(ctx context.Context, target string) (netip.AddrPort, int, error) {
	host, service, err := net.SplitHostPort(target)
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), uint16(port)), 1, nil
	}
	addrs, err := w.lookup(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	if len(addrs) == 0 {
		return netip.AddrPort{}, 0, fmt.Errorf("%s has no address", host)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(port)), len(addrs), nil
}
