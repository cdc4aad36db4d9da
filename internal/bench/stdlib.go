package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/natwise/natwise/internal/bench/stdlib"
)

// differencesMost is how many tests of net/http may be listed as meant to fail.
const differencesMost = 12

const differencesAtMost = "differences at most"

// A stdlibCase is what all lines of the bench begin with.
type stdlibCase struct {
	Bench string `json:"bench"`
	Go    string `json:"go"`
	Peer  string `json:"peer"`
}

// A stdlibSum is what came of all tests. Those count that pass over net/http; the ratio
// is of those among them that fail with a broken client.
type stdlibSum struct {
	stdlibCase
	Tests          int     `json:"tests"`
	Skipped        int     `json:"skipped"`
	Peers          int     `json:"peer_passed"`
	Discriminating int     `json:"discriminating"`
	Ours           int     `json:"ours_passed"` // of the discriminating
	Ratio          float64 `json:"ratio"`
	Differences    int     `json:"differences"`       // of them, listed with a reason
	Others         int     `json:"differences_other"` // listed too, and pass with a broken client
	Failed         int     `json:"failed"`            // and not listed
	Flaky          int     `json:"flaky"`
	Outdated       int     `json:"outdated"` // listed, and passed
	verdict
}

// A stdlibTest is a test that has not just passed.
type stdlibTest struct {
	stdlibCase
	Test           string           `json:"test"`
	Discriminating bool             `json:"discriminating"`
	Kind           stdlib.Kind      `json:"ours"`
	Reason         string           `json:"reason,omitempty"`
	Alone          []stdlib.Outcome `json:"ours_alone,omitempty"`
	Output         string           `json:"ours_output,omitempty"`
	verdict
}

// A stdlibReport is the bench stdlib.
type stdlibReport struct {
	sum   stdlibSum
	tests []stdlibTest
}

// measureStdlib runs the tests of net/http over httpx.Transport.
func measureStdlib(full bool, progress io.Writer) report {
	rounds := 1
	if full {
		rounds = 3
	}
	return stdlibOf(playStdlib(context.Background(), rounds, progress))
}

func playStdlib(ctx context.Context, rounds int, progress io.Writer) (*stdlib.Comparison, error) {
	dir, err := os.MkdirTemp("", "natwise-stdlib-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintf(progress, "stdlib: the tests of %s's net/http are built\n", runtime.Version())
	s, err := stdlib.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	return s.Compare(ctx, rounds, progress), nil
}

// stdlibOf judges what came of the tests.
func stdlibOf(c *stdlib.Comparison, err error) *stdlibReport {
	of := stdlibCase{"stdlib", runtime.Version(), "net/http"}
	r := &stdlibReport{sum: stdlibSum{stdlibCase: of}}
	if err != nil {
		r.sum.verdict = failed(err)
		return r
	}
	s := &r.sum
	s.Tests, s.Skipped, s.Peers = c.Tests, c.Skipped, c.Passed
	s.Discriminating, s.Ours = c.Discriminating, c.Kept
	s.Ratio = float64(s.Ours) / float64(max(1, s.Discriminating))
	for _, f := range c.Findings {
		t := stdlibTest{of, f.Test, f.Discriminating, f.Kind, f.Reason, f.Alone, f.Output, verdict{Status: statusOK}}
		if f.Kind == stdlib.Missed {
			t.verdict = verdict{Status: statusMissed, Why: "it passes over net/http, and no difference is listed"}
		}
		s.count(f)
		r.tests = append(r.tests, t)
	}
	s.verdict = judge(s.Differences <= differencesMost, differencesMost, differencesAtMost)
	switch {
	case s.Discriminating == 0:
		s.verdict = failed(errors.New("no test tells a broken client from a good one"))
	case s.Failed > 0:
		s.Status, s.Why = statusMissed, fmt.Sprintf("%d tests failed that are not listed", s.Failed)
	}
	return r
}

func (s *stdlibSum) count(f stdlib.Finding) {
	switch f.Kind {
	case stdlib.Missed:
		s.Failed++
	case stdlib.Flaky:
		s.Flaky++
	case stdlib.Outdated:
		s.Outdated++
	case stdlib.Different:
		if f.Discriminating {
			s.Differences++
		} else {
			s.Others++
		}
	}
}

func (r *stdlibReport) lines() []any {
	all := []any{r.sum}
	for _, t := range r.tests {
		all = append(all, t)
	}
	return all
}

func (r *stdlibReport) kept() bool { return r.sum.Status == statusOK }

func (r *stdlibReport) print(w io.Writer) {
	s := r.sum
	fmt.Fprintf(w, "stdlib: the %d tests of %s's net/http, with httpx.Transport as their client's RoundTripper\n", s.Tests, s.Go)
	fmt.Fprintf(w, "  %d pass over net/http itself, %d are skipped\n", s.Peers, s.Skipped)
	fmt.Fprintf(w, "  %d of these fail with a broken RoundTripper, and tell a good one\n", s.Discriminating)
	fmt.Fprintf(w, "  %d of those pass over httpx (%.3f)\n", s.Ours, s.Ratio)
	fmt.Fprintf(w, "  differences %d (and %d that pass with a broken one), failed %d, flaky %d, listed and passed %d: %v\n",
		s.Differences, s.Others, s.Failed, s.Flaky, s.Outdated, s.verdict)
	for _, t := range r.tests {
		t.print(w)
	}
}

func (t stdlibTest) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s", t.Test, t.Kind)
	if !t.Discriminating {
		fmt.Fprint(w, ", though it does not tell a broken client")
	}
	if len(t.Alone) > 0 {
		fmt.Fprintf(w, ", alone %v", t.Alone)
	}
	fmt.Fprintln(w)
	if t.Reason != "" {
		fmt.Fprintln(w, "    "+t.Reason)
		return
	}
	for line := range strings.Lines(head(t.Output)) {
		fmt.Fprint(w, "    "+line)
	}
	fmt.Fprintln(w)
}

// head is the part of a test's output that is shown to people. Who wants all of it asks
// for JSON.
func head(output string) string {
	const lines = 25
	parts := strings.SplitAfterN(output, "\n", lines+1)
	if len(parts) <= lines {
		return output
	}
	return strings.Join(parts[:lines], "") + "...\n"
}
