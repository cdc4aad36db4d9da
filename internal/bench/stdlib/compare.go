package stdlib

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// How long a test may take: what it took as it is, so many times, and something more. A
// test that waits for what a broken client never sends is to end soon; one over natwise
// is to fail for nothing but what natwise does.
const (
	stockWithin  = time.Minute
	brokenBeside = 2 * time.Second
	brokenTimes  = 5
	oursBeside   = 10 * time.Second
	oursTimes    = 5
	alone        = 2 // further runs of a test that has failed
)

// A Comparison is what came of all tests.
type Comparison struct {
	Tests          int
	Passed         int // of them as they are
	Skipped        int // of them as they are
	Discriminating int // passed as they are, and failed with a broken client
	Kept           int // discriminating, and passed over natwise
	Findings       []Finding
}

// A Finding is a test that has more to tell than that it has passed.
type Finding struct {
	Test           string
	Discriminating bool
	Kind
	Reason string    // why it is listed
	Output string    // of the run that failed
	Alone  []Outcome // of further runs, with no other test beside
}

// A Kind is what there is to tell.
type Kind string

const (
	Missed    Kind = "failed"
	Different Kind = "different" // it has failed, and Differences says why
	Flaky     Kind = "flaky"     // it has failed, and passed each time when it was alone
	Outdated  Kind = "outdated"  // Differences says why it fails, and it has passed
)

// Compare runs all tests in all ways, those over natwise as often as told.
func (s *Suite) Compare(ctx context.Context, rounds int, progress io.Writer) *Comparison {
	stock := s.run(ctx, Stock, s.Tests, progress, func(string) time.Duration { return stockWithin })
	able := slices.DeleteFunc(slices.Clone(s.Tests), func(t string) bool { return stock[t].Outcome != Passed })
	broken := s.run(ctx, Broken, able, progress, within(stock, brokenTimes, brokenBeside))
	ours := make(map[string]Result)
	for range rounds {
		for t, r := range s.run(ctx, Ours, able, progress, within(stock, oursTimes, oursBeside)) {
			if first, ok := ours[t]; !ok || first.Outcome == Passed {
				ours[t] = r
			}
		}
	}
	again := func(test string) Result {
		fmt.Fprintf(progress, "stdlib: %s failed over natwise, once more\n", test)
		return s.one(ctx, Ours, test, within(stock, oursTimes, oursBeside)(test))
	}
	return judge(s.Tests, stock, broken, ours, Differences, again)
}

func within(stock map[string]Result, times int, beside time.Duration) func(string) time.Duration {
	return func(test string) time.Duration { return time.Duration(times)*stock[test].Took + beside }
}

func (s *Suite) run(ctx context.Context, w Way, tests []string, progress io.Writer, limit func(string) time.Duration) map[string]Result {
	n := 0
	return s.Run(ctx, w, tests, runtime.NumCPU(), limit, func(string) {
		if n++; n%100 == 0 || n == len(tests) {
			fmt.Fprintf(progress, "stdlib: over %s, %d of %d tests\n", w, n, len(tests))
		}
	})
}

// judge finds what there is to tell. It has again run a test that has failed.
func judge(tests []string, stock, broken, ours map[string]Result, listed map[string]string, again func(string) Result) *Comparison {
	c := &Comparison{Tests: len(tests)}
	for _, t := range tests {
		switch stock[t].Outcome {
		case Skipped:
			c.Skipped++
		case Passed:
			c.Passed++
			f := Finding{Test: t, Discriminating: broken[t].Outcome == Failed}
			f.judge(ours[t], listed[t], again)
			c.count(f)
		}
	}
	return c
}

func (f *Finding) judge(r Result, reason string, again func(string) Result) {
	f.Reason = reason
	switch {
	case r.Outcome == Passed && reason == "":
		return
	case r.Outcome == Passed:
		f.Kind = Outdated
		return
	case reason != "":
		f.Kind = Different
	default:
		f.Kind = Missed
	}
	f.Output = r.Output
	for range alone {
		f.Alone = append(f.Alone, again(f.Test).Outcome)
	}
	if !slices.ContainsFunc(f.Alone, func(o Outcome) bool { return o != Passed }) {
		f.Kind = Flaky
	}
}

func (c *Comparison) count(f Finding) {
	if f.Discriminating {
		c.Discriminating++
	}
	if f.Discriminating && f.Kind != Missed && f.Kind != Different {
		c.Kept++
	}
	if f.Kind != "" {
		c.Findings = append(c.Findings, f)
	}
}
