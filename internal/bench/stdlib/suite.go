// Package stdlib runs the tests of net/http with natwise as the client's
// RoundTripper: those of the Go that runs it, changed by an overlay that is made
// when it is needed. Nothing of them is kept here.
package stdlib

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Suite is the tests of net/http as programs: as they are, and over natwise. It is
// for one goroutine.
type Suite struct {
	Tests []string // their names, in their order

	toolchain
	programs map[Way]string
}

// A Way is what carries the requests of the tests' clients.
type Way string

const (
	Stock  Way = "net/http" // the tests as they are
	Broken Way = "broken"   // nothing: every request fails
	Ours   Way = "httpx"    // httpx.Transport
)

// asBroken is the flag for Broken.
const asBroken = "-natwise.broken"

// Build compiles the tests into dir, with natwise from the module in which the
// process runs. The Go of the go command must be that of the process.
func Build(ctx context.Context, dir string) (*Suite, error) {
	g, err := thisGo(ctx, dir)
	if err != nil {
		return nil, err
	}
	overlay, err := writeOverlay(g.tests(), dir)
	if err != nil {
		return nil, err
	}
	stock, ours := filepath.Join(dir, "stock.test"), filepath.Join(dir, "ours.test")
	if _, err := g.goCommand(ctx, "test", "-c", "-o", stock, "net/http"); err != nil {
		return nil, err
	}
	if _, err := g.goCommand(ctx, "test", "-c", "-overlay", overlay, "-o", ours, "net/http"); err != nil {
		return nil, err
	}
	listed, err := g.run(ctx, stock, "-test.list", "^Test")
	if err != nil {
		return nil, err
	}
	return &Suite{strings.Fields(listed), g, map[Way]string{Stock: stock, Broken: ours, Ours: ours}}, nil
}

// An Outcome is how a test ended.
type Outcome string

const (
	Passed  Outcome = "passed"
	Skipped Outcome = "skipped"
	Failed  Outcome = "failed"
)

// A Result is what came of one run of a test.
type Result struct {
	Outcome
	Took   time.Duration
	Output string
}

// Run runs tests, each in a process of its own, so that none is blamed for what
// another has left behind: as many at a time as told. A test is ended after the time
// that limit gives for it. done is told of each, by one goroutine at a time.
func (s *Suite) Run(ctx context.Context, w Way, tests []string, atOnce int, limit func(test string) time.Duration, done func(test string)) map[string]Result {
	todo := make(chan string)
	var mu sync.Mutex // guards found and calls of done
	found := make(map[string]Result)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for test := range todo {
				r := s.one(ctx, w, test, limit(test))
				mu.Lock()
				found[test] = r
				done(test)
				mu.Unlock()
			}
		})
	}
	for _, test := range tests {
		todo <- test
	}
	close(todo)
	workers.Wait()
	return found
}

// patience is how much longer than its own time limit a test may take to say that
// it has passed.
const patience = 5 * time.Second

func (s *Suite) one(ctx context.Context, w Way, test string, limit time.Duration) Result {
	ctx, cancel := context.WithTimeout(ctx, limit+patience)
	defer cancel()
	c := exec.CommandContext(ctx, s.programs[w], "-test.run=^"+test+"$", "-test.timeout="+limit.String(), "-test.v=test2json")
	if w == Broken {
		c.Args = append(c.Args, asBroken)
	}
	c.Dir = s.tests()
	c.Env = s.env
	c.WaitDelay = time.Second // a test may leave processes behind that have its output
	start := time.Now()
	out, err := c.CombinedOutput()
	return Result{outcome(test, string(out), err), time.Since(start), tidy(string(out))}
}

// mark stands before what the testing package itself has to say, rather than a test.
const mark = "\x16"

// outcome reads how a test ended. Its process fails too where goroutines are left.
func outcome(test, out string, err error) Outcome {
	switch {
	case err != nil:
	case strings.Contains(out, mark+"--- SKIP: "+test+" ("):
		return Skipped
	case strings.Contains(out, mark+"--- PASS: "+test+" ("):
		return Passed
	}
	return Failed
}

// tidy leaves out what only says that something runs.
func tidy(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		said, framed := strings.CutPrefix(line, mark)
		if !framed || !strings.HasPrefix(said, "=== ") {
			b.WriteString(said)
		}
	}
	return b.String()
}
