package work

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Options are the flags that all measuring commands have.
type Options struct {
	JSON bool   // print one JSON object for each measurement and nothing else
	Only string // run this one; empty: all
	Full bool   // the long form
}

// ParseOptions reads the command line. Where it returns false, the command ends
// with the status: 0 after -help, 2 after bad arguments, of which stderr tells. What
// a command has of its own is added by others.
func ParseOptions(name string, args []string, stderr io.Writer, others ...func(*flag.FlagSet)) (o Options, status int, ok bool) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.JSON, "json", false, "print one JSON object for each scenario and nothing else")
	flags.StringVar(&o.Only, "only", "", "run one `scenario`")
	flags.BoolVar(&o.Full, "full", false, "longer scenarios and, for ratios, ten pairs of runs")
	for _, add := range others {
		add(flags)
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return o, 0, false
	} else if err != nil {
		return o, 2, false
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", name, flags.Arg(0))
		return o, 2, false
	}
	return o, 0, true
}
