package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// What is asked of natwise's pool.
const (
	baselineMost = 1.3 // times the baseline's ns, at most
	peersLeast   = 1.0 // of a peer's ns divided by ours, more than
	p99Most      = 1.1 // times the 99th percentile of the best peer's waits, at most

	// An operation that allocates shows here as one or more. What shows as some
	// thousandths is nobody's operation: the runtime's records of who waits, two
	// for each goroutine in a select, are dropped in a collection and made again.
	allocsLess = 0.05
)

// A poolCase is how many goroutines want how many values.
type poolCase struct {
	Bench      string `json:"bench"`
	Figure     string `json:"figure"`
	Goroutines int    `json:"goroutines"`
	Values     int    `json:"values"`
	Contended  bool   `json:"contended"`
}

func (c poolCase) named(figure string) poolCase {
	c.Figure = figure
	return c
}

// load has the holder yield once where there are fewer values than goroutines:
// otherwise nobody would ever meet a Get that must wait.
func (c poolCase) load() load {
	l := load{goroutines: c.Goroutines, values: c.Values}
	if c.Contended {
		l.hold = runtime.Gosched
	}
	return l
}

func poolCases() []poolCase {
	var all []poolCase
	for _, n := range []int{1, 2, 8, 64, 1000} {
		all = append(all, poolCase{Bench: "pool", Goroutines: n, Values: n})
	}
	for _, c := range [][2]int{{2, 1}, {8, 2}, {64, 8}, {1000, 16}} {
		all = append(all, poolCase{Bench: "pool", Goroutines: c[0], Values: c[1], Contended: true})
	}
	return all
}

// A speed is Get and Put beside one peer.
type speed struct {
	poolCase
	Ours       float64 `json:"ours_ns"`
	OursAllocs float64 `json:"ours_allocs"`
	Peer       string  `json:"peer"`
	Peers      float64 `json:"peer_ns"`
	PeerAllocs float64 `json:"peer_allocs"`
	ratio
	verdict
}

// A frugality is natwise's allocations by themselves.
type frugality struct {
	poolCase
	Ours float64 `json:"ours_allocs"`
	verdict
}

// A wait is the 99th percentile of the times inside Get beside one peer.
type wait struct {
	poolCase
	Ours  float64 `json:"ours_ms"`
	Peer  string  `json:"peer"`
	Peers float64 `json:"peer_ms"`
	ratio
	verdict
}

// A poolReport is the bench pool.
type poolReport struct {
	speeds      []speed
	frugalities []frugality
	waits       []wait
}

// measurePool compares Get and Put, and what waiting for a value comes to.
func measurePool(full bool, progress io.Writer) report {
	pairs, rounds := 20, 15
	if full {
		pairs, rounds = 100, 60
	}
	r := new(poolReport)
	for _, c := range poolCases() {
		fmt.Fprintf(progress, "pool: %d goroutines, %d values\n", c.Goroutines, c.Values)
		r.measureSpeed(c, pairs)
	}
	fmt.Fprintln(progress, "pool: waits")
	r.measureWaits(rounds)
	return r
}

func (r *poolReport) measureSpeed(c poolCase, pairs int) {
	var own series
	for _, peer := range peers {
		s := speed{poolCase: c.named("ns"), Peer: peer.name}
		mine, others, err := c.load().turns(ours, peer, pairs)
		if err != nil {
			s.verdict = failed(err)
			r.speeds = append(r.speeds, s)
			continue
		}
		own = append(own, mine...)
		s.Ours, s.OursAllocs = median(mine.nanos()), mine.allocs()
		s.Peers, s.PeerAllocs = median(others.nanos()), others.allocs()
		if peer.name == baseline.name {
			s.ratio = compare(oursToPeer, mine.nanos(), others.nanos())
			s.verdict = s.atMost(baselineMost)
		} else {
			s.ratio = compare(peerToOurs, mine.nanos(), others.nanos())
			s.verdict = s.above(peersLeast)
		}
		r.speeds = append(r.speeds, s)
	}
	if len(own) == 0 {
		return // and each of its speeds says why
	}
	f := frugality{poolCase: c.named("allocs"), Ours: own.allocs()}
	f.verdict = judge(f.Ours < allocsLess, allocsLess, allocsBelow)
	r.frugalities = append(r.frugalities, f)
}

// measureWaits has 64 goroutines share 8 values, with each of which they work for
// a millisecond.
func (r *poolReport) measureWaits(rounds int) {
	c := poolCase{Bench: "pool", Figure: "wait_p99", Goroutines: 64, Values: 8, Contended: true}
	l := c.load()
	l.hold = func() { time.Sleep(time.Millisecond) }
	found, err := l.p99s(slices.Concat([]entry{ours}, peers), rounds, 20)
	if err != nil {
		r.waits = append(r.waits, wait{poolCase: c, verdict: failed(err)})
		return
	}
	quickest := best(peers, found)
	for _, peer := range peers {
		w := wait{poolCase: c, Ours: median(found[ours.name]), Peer: peer.name, Peers: median(found[peer.name])}
		w.ratio = compare(oursToPeer, found[ours.name], found[peer.name])
		w.Status = statusOK
		if peer.name == quickest {
			w.verdict = w.atMost(p99Most)
		}
		r.waits = append(r.waits, w)
	}
}

func (r *poolReport) lines() []any {
	var all []any
	for _, s := range r.speeds {
		all = append(all, s)
	}
	for _, f := range r.frugalities {
		all = append(all, f)
	}
	for _, w := range r.waits {
		all = append(all, w)
	}
	return all
}

func (r *poolReport) kept() bool {
	ok := true
	for _, s := range r.speeds {
		ok = ok && s.Status == statusOK
	}
	for _, f := range r.frugalities {
		ok = ok && f.Status == statusOK
	}
	for _, w := range r.waits {
		ok = ok && w.Status == statusOK
	}
	return ok
}

func (r *poolReport) print(w io.Writer) {
	fmt.Fprintln(w, "pool: Get and Put. Where values are fewer than goroutines, the holder yields once.")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "goroutines\tvalues\tnatwise ns\tallocs\tpeer\tns\tallocs\tratio of\tratio\tlow\thigh\t  ")
	for _, s := range r.speeds {
		fmt.Fprintf(t, "%d\t%d\t%.1f\t%.3f\t%s\t%.1f\t%.3f\t%s\t%.2f\t%.2f\t%.2f\t  %v\n", s.Goroutines, s.Values,
			s.Ours, s.OursAllocs, s.Peer, s.Peers, s.PeerAllocs, s.RatioIs, s.Ratio, s.Low, s.High, s.verdict)
	}
	t.Flush()

	fmt.Fprintln(w, "\npool: natwise's allocations, all samples together")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "goroutines\tvalues\tallocs\t  ")
	for _, f := range r.frugalities {
		fmt.Fprintf(t, "%d\t%d\t%.4f\t  %v\n", f.Goroutines, f.Values, f.Ours, f.verdict)
	}
	t.Flush()

	fmt.Fprintln(w, "\npool: 99th percentile of the wait for a value, 1 ms of work with each")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "goroutines\tvalues\tnatwise ms\tpeer\tms\tratio of\tratio\tlow\thigh\t  ")
	for _, v := range r.waits {
		fmt.Fprintf(t, "%d\t%d\t%.2f\t%s\t%.2f\t%s\t%.3f\t%.3f\t%.3f\t  %v\n", v.Goroutines, v.Values,
			v.Ours, v.Peer, v.Peers, v.RatioIs, v.Ratio, v.Low, v.High, v.verdict)
	}
	t.Flush()
}
