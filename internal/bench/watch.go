package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

// What is asked of a keepalive.Watcher that watches this many connections.
const (
	watchedConns   = 10_000
	goroutinesMost = 1
	heapMost       = 64   // bytes of heap for each connection
	newsMost       = 1000 // microseconds from the end to the news, 99th percentile
)

const (
	goroutinesAtMost = "ours_goroutines at most"
	heapAtMost       = "ours_heap_bytes at most"
	newsAtMost       = "ours_us at most"
)

// Who takes part. The peers are what programs do without a Watcher: a goroutine
// that reads, and the two goroutines and two buffers of net/http.Transport.
const (
	ourName   = "keepalive.Watcher"
	readName  = "goroutine in Read"
	loopsName = "net/http's shape"
)

const statusSkipped status = "skipped"

// errUnavailable says that something cannot be measured here, by nobody's fault.
var errUnavailable = errors.New("not available here")

// An ending is how a server ends a connection.
type ending string

const (
	fin ending = "fin"
	rst ending = "rst"
)

// A turn is what came of one way to watch all connections.
type turn struct {
	goroutines int
	memory     memory  // bytes for each connection, by watching it
	conn       float64 // heap of what the way made of each connection before
	news       map[ending][]time.Duration
}

// A memory is bytes of Go's.
type memory struct{ heap, stack float64 }

// minus returns how much more that is than before, for each of n.
func (m memory) minus(before memory, n int) memory {
	return memory{(m.heap - before.heap) / float64(n), (m.stack - before.stack) / float64(n)}
}

func (t turn) bytes() float64 { return t.memory.heap + t.memory.stack }

// micros returns a percentile of the times that news took, in microseconds.
func (t turn) micros(how ending, q float64) float64 { return micros(slices.Clone(t.news[how]), q) }

func micros(ds []time.Duration, q float64) float64 {
	return float64(work.Percentile(ds, q)) / float64(time.Microsecond)
}

// A watchCase is who is compared in what.
type watchCase struct {
	Bench       string `json:"bench"`
	Figure      string `json:"figure,omitempty"`
	Connections int    `json:"connections"`
	Peer        string `json:"peer,omitempty"`
}

func (c watchCase) named(figure string) watchCase {
	c.Figure = figure
	return c
}

// A watchNone is what is told where nothing could be measured.
type watchNone struct {
	watchCase
	verdict
}

// A watchCount is how many goroutines watch.
type watchCount struct {
	watchCase
	Ours  int `json:"ours_goroutines"`
	Peers int `json:"peer_goroutines"`
	ratio
	verdict
}

// A watchMemory is what watching costs for each connection, in the turn in which
// it cost most. The ratio is of pairs, and of heap and stack together.
type watchMemory struct {
	watchCase
	Ours       float64 `json:"ours_heap_bytes"`
	OursStack  float64 `json:"ours_stack_bytes"`
	OursConn   float64 `json:"ours_conn_bytes"` // of heap: the keepalive.Conn, which was there before
	Peers      float64 `json:"peer_heap_bytes"`
	PeersStack float64 `json:"peer_stack_bytes"`
	ratio
	verdict
}

// A watchNews is a percentile, over all rounds, of the time from the server's
// FIN or RST to the news. The ratio is of pairs of rounds.
type watchNews struct {
	watchCase
	Events int     `json:"events"`
	Ours   float64 `json:"ours_us"`
	Peers  float64 `json:"peer_us"`
	ratio
	verdict
}

// A watchReport is the bench watch.
type watchReport struct {
	none   []watchNone
	counts []watchCount
	memory []watchMemory
	news   []watchNews
}

// measureWatch compares ways to hear of the end of idle connections.
func measureWatch(full bool, progress io.Writer) report {
	rounds, events := 12, 100
	if full {
		rounds, events = 40, 250
	}
	return watchOf(playWatch(watchedConns, rounds, events, progress))
}

// watchOf judges what came of the turns of each way, by its name.
func watchOf(turns map[string][]turn, err error) *watchReport {
	r := new(watchReport)
	c := watchCase{Bench: "watch", Connections: watchedConns}
	if err != nil {
		v := failed(err)
		if errors.Is(err, errUnavailable) {
			v.Status = statusSkipped
		}
		r.none = []watchNone{{c, v}}
		return r
	}
	for _, peer := range []string{readName, loopsName} {
		c.Peer = peer
		mine, others := turns[ourName], turns[peer]
		r.counts = append(r.counts, countOf(c.named("goroutines"), mine, others))
		r.memory = append(r.memory, memoryOf(c.named("memory"), mine, others))
		for _, how := range []ending{fin, rst} {
			r.news = append(r.news, newsOf(c, how, 0.5, mine, others), newsOf(c, how, 0.99, mine, others))
		}
	}
	return r
}

// each returns a figure of all turns.
func each(turns []turn, figure func(turn) float64) []float64 {
	var all []float64
	for _, t := range turns {
		all = append(all, figure(t))
	}
	return all
}

func countOf(c watchCase, mine, others []turn) watchCount {
	count := func(t turn) float64 { return float64(t.goroutines) }
	ours, peers := each(mine, count), each(others, count)
	w := watchCount{watchCase: c, Ours: int(slices.Max(ours)), Peers: int(slices.Max(peers))}
	w.ratio = compare(peerToOurs, ours, peers)
	w.verdict = judge(w.Ours <= goroutinesMost, goroutinesMost, goroutinesAtMost)
	return w
}

func memoryOf(c watchCase, mine, others []turn) watchMemory {
	heap := func(t turn) float64 { return t.memory.heap }
	stack := func(t turn) float64 { return t.memory.stack }
	w := watchMemory{watchCase: c,
		Ours: slices.Max(each(mine, heap)), OursStack: slices.Max(each(mine, stack)),
		OursConn: slices.Max(each(mine, func(t turn) float64 { return t.conn })),
		Peers:    slices.Max(each(others, heap)), PeersStack: slices.Max(each(others, stack)),
	}
	w.ratio = compare(peerToOurs, each(mine, turn.bytes), each(others, turn.bytes))
	w.verdict = judge(w.Ours <= heapMost, heapMost, heapAtMost)
	return w
}

// newsOf has a bound on the 99th percentile only.
func newsOf(c watchCase, how ending, q float64, mine, others []turn) watchNews {
	of := func(t turn) float64 { return t.micros(how, q) }
	ours, peers := allNews(mine, how), allNews(others, how)
	w := watchNews{watchCase: c.named(fmt.Sprintf("%s_p%.0f", how, 100*q)), Events: len(ours)}
	w.Ours, w.Peers = micros(ours, q), micros(peers, q)
	w.ratio = compare(oursToPeer, each(mine, of), each(others, of))
	w.Status = statusOK
	if q == 0.99 {
		w.verdict = judge(w.Ours <= newsMost, newsMost, newsAtMost)
	}
	return w
}

func allNews(turns []turn, how ending) []time.Duration {
	var all []time.Duration
	for _, t := range turns {
		all = append(all, t.news[how]...)
	}
	return all
}

func (r *watchReport) lines() []any {
	var all []any
	for _, w := range r.none {
		all = append(all, w)
	}
	for _, w := range r.counts {
		all = append(all, w)
	}
	for _, w := range r.memory {
		all = append(all, w)
	}
	for _, w := range r.news {
		all = append(all, w)
	}
	return all
}

func (r *watchReport) kept() bool {
	ok := len(r.none) == 0
	for _, w := range r.counts {
		ok = ok && w.Status == statusOK
	}
	for _, w := range r.memory {
		ok = ok && w.Status == statusOK
	}
	for _, w := range r.news {
		ok = ok && w.Status == statusOK
	}
	return ok
}

func (r *watchReport) print(w io.Writer) {
	for _, n := range r.none {
		fmt.Fprintf(w, "watch: %v\n", n.verdict)
	}
	if len(r.counts) == 0 {
		return
	}
	fmt.Fprintf(w, "watch: goroutines for %d idle connections\n", r.counts[0].Connections)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "natwise\tpeer\tpeer's\tratio of\tratio\tlow\thigh\t  ")
	for _, v := range r.counts {
		fmt.Fprintf(t, "%d\t%s\t%d\t%s\t%.0f\t%.0f\t%.0f\t  %v\n", v.Ours, v.Peer, v.Peers,
			v.RatioIs, v.Ratio, v.Low, v.High, v.verdict)
	}
	t.Flush()

	fmt.Fprintf(w, "\nwatch: bytes for each connection, besides natwise's keepalive.Conn of %.0f\n", r.memory[0].OursConn)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "natwise heap\tstack\tpeer\theap\tstack\tratio of\tratio\tlow\thigh\t  ")
	for _, v := range r.memory {
		fmt.Fprintf(t, "%.1f\t%.1f\t%s\t%.0f\t%.0f\t%s\t%.1f\t%.1f\t%.1f\t  %v\n", v.Ours, v.OursStack, v.Peer,
			v.Peers, v.PeersStack, v.RatioIs, v.Ratio, v.Low, v.High, v.verdict)
	}
	t.Flush()

	fmt.Fprintf(w, "\nwatch: microseconds from the server's FIN or RST to the news, %d events\n", r.news[0].Events)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "figure\tnatwise us\tpeer\tus\tratio of\tratio\tlow\thigh\t  ")
	for _, v := range r.news {
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%.0f\t%s\t%.2f\t%.2f\t%.2f\t  %v\n", v.Figure, v.Ours, v.Peer,
			v.Peers, v.RatioIs, v.Ratio, v.Low, v.High, v.verdict)
	}
	t.Flush()
}
