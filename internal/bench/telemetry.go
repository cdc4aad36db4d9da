package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// What is asked of natwise's telemetry.
const (
	toldNanosMore = 10   // for an acquire where nobody listens, at most
	toldAllocs    = 0.1  // fewer allocations than that, for each acquire: none, but for what others do meanwhile
	toldRateLeast = 0.95 // of the requests a second without OpenTelemetry's SDK, at least
)

// A toldFigure is one figure of what telemetry costs, beside the same without it.
type toldFigure struct {
	Bench     string  `json:"bench"`
	Figure    string  `json:"figure"`
	Operation string  `json:"operation"`
	SDK       string  `json:"sdk"` // what listens
	Ours      float64 `json:"ours_value"`
	Peer      string  `json:"peer"`
	Peers     float64 `json:"peer_value"`
	*ratio            // nil: there is one pair only, or none
	verdict
}

// What the figures are about, and what is compared with.
const (
	toldNanos  = "ns"
	toldAlloc  = "allocs"
	toldRate   = "per_second"
	toldMicros = "us"

	noSDK   = "none"
	nothing = "empty loop"
)

// A toldReport is the bench telemetry.
type toldReport struct{ figures []toldFigure }

// measureTelemetry tells what is paid for being seen, by those who look and those who do not.
func measureTelemetry(full bool, progress io.Writer) report {
	pairs, rounds := 40, 100
	if full {
		pairs, rounds = 200, 500
	}
	r := new(toldReport)
	for _, o := range toldCalls {
		fmt.Fprintf(progress, "telemetry: %s, nobody listens\n", o.name)
		r.measureCalls(o, pairs)
	}
	for _, n := range []int{10, 100, 256} {
		r.measureCollection(n, pairs)
	}
	fmt.Fprintln(progress, "telemetry: dials")
	r.measureDials(pairs)
	r.measureRates(rounds, progress)
	return r
}

// measureCalls has the very calls that an acquire makes beside a loop without them: there is
// no natwise without its telemetry to compare with.
func (r *toldReport) measureCalls(o toldCall, pairs int) {
	ns := toldFigure{Bench: "telemetry", Figure: toldNanos, Operation: o.name, SDK: noSDK, Peer: nothing}
	allocs := ns
	allocs.Figure = toldAlloc
	mine, theirs, each, err := o.turns(pairs)
	if err != nil {
		r.fail(err, ns, allocs)
		return
	}
	ns.Ours, ns.Peers = median(mine), median(theirs)
	ns.verdict = judge(ns.Ours-ns.Peers <= toldNanosMore, toldNanosMore, moreAtMost)
	allocs.Ours = each
	allocs.verdict = judge(each < toldAllocs, toldAllocs, oursBelow)
	r.figures = append(r.figures, ns, allocs)
}

// measureRates compares requests over loopback. The bounds, which take many rounds, are on
// what a program may do all the time.
func (r *toldReport) measureRates(rounds int, progress io.Writer) {
	o, err := startOrigin()
	if err != nil {
		r.fail(err, rateOf(noSDK))
		return
	}
	for _, s := range toldSDKs {
		fmt.Fprintf(progress, "telemetry: %v, %s\n", toldLoad, s.name)
		n := rounds
		if !s.bound {
			n /= 4
		}
		found := toldLoad.play([]httpEntry{s.entry(), toldNone.entry()}, n, o)
		r.compareRates(s, found[0], found[1])
	}
	if err := o.close(); err != nil {
		r.fail(err, rateOf(noSDK))
	}
}

func rateOf(sdk string) toldFigure {
	return toldFigure{Bench: "telemetry", Figure: toldRate, Operation: toldLoad.String(), SDK: sdk, Peer: noSDK}
}

func (r *toldReport) compareRates(s toldSDK, on, off httpResult) {
	rate := rateOf(s.name)
	allocs := rate
	allocs.Figure = toldAlloc
	if err := errors.Join(on.err, off.err); err != nil {
		r.fail(err, rate, allocs)
		return
	}
	rate.Ours, rate.Peers = median(on.perSecond()), median(off.perSecond())
	rate.ratio = ratioOf(oursToPeer, on.perSecond(), off.perSecond())
	rate.Status = statusOK
	if s.bound {
		rate.verdict = judge(rate.Low >= toldRateLeast, toldRateLeast, ratioLowAtLeast)
	}
	allocs.Ours, allocs.Peers = on.allocs(), off.allocs()
	allocs.ratio = ratioOf(oursToPeer, on.allocsEach(), off.allocsEach())
	allocs.Status = statusOK
	r.figures = append(r.figures, rate, allocs)
}

// measureDials shows what a connection costs more that somebody is told of.
func (r *toldReport) measureDials(pairs int) {
	f := toldFigure{Bench: "telemetry", Figure: toldMicros, Operation: "DialContext and Close", SDK: toldSDKs[len(toldSDKs)-1].name, Peer: noSDK}
	on, off, err := dialTurns(pairs)
	if err != nil {
		r.fail(err, f)
		return
	}
	f.Ours, f.Peers = median(on), median(off)
	f.ratio = ratioOf(oursToPeer, on, off)
	f.Status = statusOK
	r.figures = append(r.figures, f)
}

// measureCollection shows what one costs, which is done every 15 s or so.
func (r *toldReport) measureCollection(destinations, times int) {
	f := toldFigure{Bench: "telemetry", Figure: toldMicros, SDK: "metrics", Peer: noSDK,
		Operation: fmt.Sprintf("a collection with %d destinations", destinations)}
	each, err := collections(destinations, times)
	if err != nil {
		r.fail(err, f)
		return
	}
	f.Ours = median(each)
	f.Status = statusOK
	r.figures = append(r.figures, f)
}

func (r *toldReport) fail(err error, figures ...toldFigure) {
	for _, f := range figures {
		f.verdict = failed(err)
		r.figures = append(r.figures, f)
	}
}

func (r *toldReport) lines() []any {
	var all []any
	for _, f := range r.figures {
		all = append(all, f)
	}
	return all
}

func (r *toldReport) kept() bool {
	return !slices.ContainsFunc(r.figures, func(f toldFigure) bool { return f.Status != statusOK })
}

func (r *toldReport) print(w io.Writer) {
	fmt.Fprintln(w, "telemetry: what it costs where nobody listens, and where OpenTelemetry's SDK does")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\tSDK\tfigure\twith\tbeside\twithout\tratio of\tratio\tlow\thigh\t  ")
	for _, f := range r.figures {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%s\t%.2f\t%s\t  %v\n", f.Operation, f.SDK, f.Figure, f.Ours, f.Peer, f.Peers, f.columns(), f.verdict)
	}
	t.Flush()
}

// columns is the ratio's part of a row.
func (f toldFigure) columns() string {
	return sqlFigure{ratio: f.ratio}.columns()
}
