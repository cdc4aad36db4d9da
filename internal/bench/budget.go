package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/natwise/natwise/internal/servers"
)

// What is asked of a Take and its Release.
const (
	grantNanosMost   = 300  // of budget.Host where nobody else asks
	grantAllocsBelow = 1    // allocations
	grantCrowdMost   = 1000 // nanoseconds of budget.Host among eight processes, the median
	grantNanosMore   = 50   // of redisbudget than of what is not shared
)

const oursAtMost = "ours_value at most"

// Who takes part.
const (
	hostName   = "budget.Host"
	floorName  = "redisbudget, floor"
	leaseName  = "redisbudget, lease"
	perKeyName = "budget.PerKey"
	daemonName = "daemon"
)

// What the figures are about: nanoseconds of a Take with its Release, by batches of them in a
// row, or of each timed by itself.
const (
	grantNanos   = "ns"
	grantAllocs  = "allocs"
	grantMedian  = "p50_ns"
	grantP99     = "p99_ns"
	grantRefused = "refused_percent" // of all Takes
)

// A grantFigure is one figure of a Take and its Release, beside a peer's.
type grantFigure struct {
	Bench     string  `json:"bench"`
	Figure    string  `json:"figure"`
	Engine    string  `json:"engine"`
	Processes int     `json:"processes"`
	Limit     int     `json:"limit"`
	Ours      float64 `json:"ours_value"`
	Peer      string  `json:"peer"`
	Peers     float64 `json:"peer_value"`
	*ratio            // nil: it is no time
	verdict
}

func (f grantFigure) named(figure string) grantFigure {
	f.Figure = figure
	return f
}

// A grantReport is the bench budget.
type grantReport struct{ figures []grantFigure }

// measureBudget tells what a port costs that others share.
func measureBudget(full bool, progress io.Writer) report {
	pairs := 20
	if full {
		pairs = 100
	}
	r := new(grantReport)
	fmt.Fprintln(progress, "budget: one process")
	r.measureHost(pairs)
	for _, limit := range []int{plenty, scarce} {
		fmt.Fprintf(progress, "budget: %d processes share %d ports\n", sharers, limit)
		r.measureCrowd(limit, pairs)
	}
	fmt.Fprintln(progress, "budget: redisbudget")
	r.measureRedis(pairs)
	return r
}

// measureHost compares Host with what is not shared, and with a daemon that nobody else asks.
func (r *grantReport) measureHost(pairs int) {
	f := grantFigure{Bench: "budget", Engine: hostName, Processes: 1, Limit: plenty, Peer: perKeyName}
	d := f
	d.Peer = daemonName
	err := withHost(func(s *sharing) error {
		if err := r.measureCost(f, s.host, perKey(1), pairs, aloneVerdict); err != nil {
			return err
		}
		return r.measureCost(d, s.host, s.daemon, pairs, aloneVerdict)
	})
	if err != nil {
		r.fail(err, f.named(grantNanos), d.named(grantNanos))
	}
}

// measureCost measures, compares, and shows what is allocated.
func (r *grantReport) measureCost(f grantFigure, ours, peer grantSource, pairs int, v func(ours, peer float64) verdict) error {
	mine, theirs, err := inTurns(pairs, ours.cost, peer.cost)
	if err != nil {
		return err
	}
	ns := f.named(grantNanos)
	ns.Ours, ns.Peers = median(mine), median(theirs)
	ns.ratio = ratioOf(ours.ratioTo(peer), mine, theirs)
	ns.verdict = v(ns.Ours, ns.Peers)
	allocs := f.named(grantAllocs)
	allocs.Ours, allocs.Peers = ours.allocs(), peer.allocs()
	allocs.verdict = judge(allocs.Ours < grantAllocsBelow, grantAllocsBelow, oursBelow)
	r.figures = append(r.figures, ns, allocs)
	return nil
}

// aloneVerdict is on Host where nobody else asks.
func aloneVerdict(ours, _ float64) verdict {
	return judge(ours <= grantNanosMost, grantNanosMost, oursAtMost)
}

// leaseVerdict is on redisbudget beside what is not shared.
func leaseVerdict(ours, peer float64) verdict {
	return judge(ours-peer <= grantNanosMore, grantNanosMore, moreAtMost)
}

// measureCrowd compares Host with the daemon while seven other processes use the same one.
func (r *grantReport) measureCrowd(limit, pairs int) {
	f := grantFigure{Bench: "budget", Engine: hostName, Processes: sharers, Limit: limit, Peer: daemonName}
	mine, theirs, err := crowdTurns(limit, pairs)
	if err != nil {
		r.fail(err, f.named(grantMedian), f.named(grantP99))
		return
	}
	r.compareCrowd(f, mine, theirs)
}

// compareCrowd has a bound on the median only: beyond it is the scheduler.
func (r *grantReport) compareCrowd(f grantFigure, mine, theirs []singles) {
	half, p99, refused := f.named(grantMedian), f.named(grantP99), f.named(grantRefused)
	half.compare(mine, theirs, func(s singles) float64 { return s.median })
	half.verdict = judge(half.Ours <= grantCrowdMost, grantCrowdMost, oursAtMost)
	p99.compare(mine, theirs, func(s singles) float64 { return s.p99 })
	p99.Status = statusOK
	refused.Ours, refused.Peers = percentRefused(mine), percentRefused(theirs)
	refused.Status = statusOK
	r.figures = append(r.figures, half, p99, refused)
}

func (f *grantFigure) compare(mine, theirs []singles, of func(singles) float64) {
	ours, peers := figures(mine, of), figures(theirs, of)
	f.Ours, f.Peers = median(ours), median(peers)
	f.ratio = ratioOf(peerToOurs, ours, peers)
}

// measureRedis compares redisbudget, within its floor and beyond it, with what is not shared.
func (r *grantReport) measureRedis(pairs int) {
	for _, c := range []struct {
		name string
		with func(f func(b grantSource, held int) error) error
	}{
		{floorName, withFloor},
		{leaseName, withLease},
	} {
		f := grantFigure{Bench: "budget", Engine: c.name, Processes: 1, Limit: plenty, Peer: perKeyName}
		err := c.with(func(b grantSource, held int) error {
			return r.measureCost(f, b, perKey(held), pairs, leaseVerdict)
		})
		if err != nil {
			r.fail(err, f.named(grantNanos))
		}
	}
}

func (r *grantReport) fail(err error, figures ...grantFigure) {
	for _, f := range figures {
		f.verdict = failed(err)
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, servers.ErrUnavailable) {
			f.Status = statusSkipped
		}
		r.figures = append(r.figures, f)
	}
}

func (r *grantReport) lines() []any {
	var all []any
	for _, f := range r.figures {
		all = append(all, f)
	}
	return all
}

func (r *grantReport) kept() bool {
	return !slices.ContainsFunc(r.figures, func(f grantFigure) bool { return f.Status != statusOK })
}

func (r *grantReport) print(w io.Writer) {
	fmt.Fprintln(w, "budget: a Take and its Release")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "engine\tprocesses\tports\tfigure\tours\tpeer\tits\tratio of\tratio\tlow\thigh\t  ")
	for _, f := range r.figures {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%.2f\t%s\t%.2f\t%s\t  %v\n", f.Engine, f.Processes, f.Limit, f.Figure, f.Ours, f.Peer, f.Peers,
			sqlFigure{ratio: f.ratio}.columns(), f.verdict)
	}
	t.Flush()
}
