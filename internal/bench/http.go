package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/natwise/natwise/internal/leak"
)

// What is asked of natwise's http transport beside http.Transport.
const (
	httpRateLeast   = 0.97 // of its requests a second, at least
	httpAllocsBelow = 1    // times its allocations, over HTTP/1.1
)

const (
	ratioLowAtLeast = "ratio_low at least"
	ratioHighBelow  = "ratio_high below"
)

// An httpCase is who is compared in what.
type httpCase struct {
	Bench  string `json:"bench"`
	Figure string `json:"figure"`
	httpLoad
	Peer string `json:"peer,omitempty"`
}

// An httpRate is requests a second beside one peer.
type httpRate struct {
	httpCase
	Ours  float64 `json:"ours_per_second"`
	Peers float64 `json:"peer_per_second"`
	ratio
	verdict
}

// An httpThrift is allocations for a request beside one peer.
type httpThrift struct {
	httpCase
	Ours  float64 `json:"ours_allocs"`
	Peers float64 `json:"peer_allocs"`
	ratio
	verdict
}

// An httpPair is both of these.
type httpPair struct {
	rate   httpRate
	thrift httpThrift
}

// An httpReport is the bench http.
type httpReport struct {
	pairs []httpPair
	end   error // the origin did not begin, or did not end well
}

// loads are all, or those whose requests have a deadline.
func loads(all bool) []httpLoad {
	var ls []httpLoad
	for _, p := range protocols {
		for _, n := range []int{1, 64, 500} {
			if all {
				ls = append(ls, httpLoad{p, n, false})
			}
			ls = append(ls, httpLoad{p, n, true})
		}
	}
	return ls
}

// rival is the http.Transport that a load's bounds are about. With several requests
// at a time the default one, which keeps two connections of a host, opens and
// closes one for nearly every request of HTTP/1.1.
func (l httpLoad) rival() httpEntry {
	if l.Concurrency == 1 {
		return defaultHTTP
	}
	return tunedHTTP
}

// field is all other peers that can do it.
func (l httpLoad) field() []httpEntry {
	ms := []httpEntry{defaultHTTP}
	if l.Concurrency == 1 {
		ms = []httpEntry{tunedHTTP}
	}
	for _, m := range otherHTTP {
		if l.Protocol != second || m.http2 {
			ms = append(ms, m)
		}
	}
	return ms
}

// measureHTTP compares clients of an origin in another process.
func measureHTTP(full bool, progress io.Writer) report {
	rounds, fieldRounds := 30, 10
	if full {
		rounds, fieldRounds = 120, 30
	}
	r := new(httpReport)
	o, err := startOrigin()
	if err != nil {
		r.end = err
		return r
	}
	defer func() { r.end = o.close() }()

	// The field comes last: fasthttp leaves goroutines behind for a while, and
	// nobody else may.
	for _, l := range loads(true) {
		fmt.Fprintf(progress, "http: %v beside %s\n", l, l.rival().name)
		r.pairs = append(r.pairs, l.duel(rounds, o))
	}
	for _, l := range loads(full) {
		fmt.Fprintf(progress, "http: %v beside the field\n", l)
		r.pairs = append(r.pairs, l.beside(l.field(), fieldRounds, o)...)
	}
	return r
}

func (l httpLoad) String() string {
	s := fmt.Sprintf("%s, %d at a time", l.Protocol, l.Concurrency)
	if l.Deadline {
		s += ", with deadlines"
	}
	return s
}

// duel holds natwise's transport against http.Transport. Neither may leave anything
// behind.
func (l httpLoad) duel(rounds int, o *origin) httpPair {
	goroutines := runtime.NumGoroutine()
	p := l.beside([]httpEntry{l.rival()}, rounds, o)[0]
	if stacks := leak.Beyond(goroutines); stacks != "" {
		p.fail(fmt.Errorf("goroutines left behind:\n%s", stacks))
	}
	p.judge()
	return p
}

// judge applies the bounds to what was measured.
func (p *httpPair) judge() {
	if p.rate.Status != statusOK {
		return
	}
	p.rate.verdict = judge(p.rate.Low >= httpRateLeast, httpRateLeast, ratioLowAtLeast)
	if p.thrift.Protocol != second {
		p.thrift.verdict = judge(p.thrift.High < httpAllocsBelow, httpAllocsBelow, ratioHighBelow)
	}
}

// beside compares natwise's transport with each of the peers, without a bound.
func (l httpLoad) beside(peers []httpEntry, rounds int, o *origin) []httpPair {
	found := l.play(slices.Concat([]httpEntry{oursHTTP}, peers), rounds, o)
	var ps []httpPair
	for i, m := range peers {
		ps = append(ps, l.pair(m.name, found[0], found[1+i]))
	}
	return ps
}

func (l httpLoad) pair(peer string, mine, theirs httpResult) (p httpPair) {
	p.rate.httpCase = httpCase{"http", "rate", l, peer}
	p.thrift.httpCase = httpCase{"http", "allocs", l, peer}
	if err := errors.Join(mine.err, theirs.err); err != nil {
		p.fail(err)
		return p
	}
	p.rate.Ours, p.rate.Peers = median(mine.perSecond()), median(theirs.perSecond())
	p.rate.ratio = compare(oursToPeer, mine.perSecond(), theirs.perSecond())
	p.rate.Status = statusOK
	p.thrift.Ours, p.thrift.Peers = mine.allocs(), theirs.allocs()
	p.thrift.ratio = compare(oursToPeer, mine.allocsEach(), theirs.allocsEach())
	p.thrift.Status = statusOK
	return p
}

func (p *httpPair) fail(err error) { p.rate.verdict, p.thrift.verdict = failed(err), failed(err) }

func (r *httpReport) lines() []any {
	var all []any
	for _, p := range r.pairs {
		all = append(all, p.rate, p.thrift)
	}
	if r.end != nil {
		all = append(all, struct {
			Bench string `json:"bench"`
			verdict
		}{"http", failed(r.end)})
	}
	return all
}

func (r *httpReport) kept() bool {
	ok := r.end == nil
	for _, p := range r.pairs {
		ok = ok && p.rate.Status == statusOK && p.thrift.Status == statusOK
	}
	return ok
}

func (r *httpReport) print(w io.Writer) {
	fmt.Fprintln(w, "http: requests a second, and allocations for each. The origin is another process.")
	fmt.Fprintf(w, "What is tuned keeps %d connections; so does what resty, go-retryablehttp and httplb stand on.\n", tunedConns)
	fmt.Fprintf(w, "Without HTTP/2, and left out there: %s.\n", strings.Join(withoutHTTP2(), ", "))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "protocol\tat a time\tdeadlines\tnatwise\tallocs\tpeer\ta second\tallocs\tours/peer\tlow\tallocs\thigh\t  ")
	for _, p := range r.pairs {
		fmt.Fprintf(t, "%s\t%d\t%t\t%.0f\t%.2f\t%s\t%.0f\t%.2f\t%.3f\t%.3f\t%.3f\t%.3f\t  %v, allocs %v\n",
			p.rate.Protocol, p.rate.Concurrency, p.rate.Deadline, p.rate.Ours, p.thrift.Ours,
			p.rate.Peer, p.rate.Peers, p.thrift.Peers,
			p.rate.Ratio, p.rate.Low, p.thrift.Ratio, p.thrift.High, p.rate.verdict, p.thrift.verdict)
	}
	t.Flush()
	if r.end != nil {
		fmt.Fprintf(w, "http: %v\n", failed(r.end))
	}
}

func withoutHTTP2() []string {
	var names []string
	for _, m := range otherHTTP {
		if !m.http2 {
			names = append(names, m.name)
		}
	}
	return names
}
