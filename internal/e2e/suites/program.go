package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// A program is tests that were compiled.
type program struct {
	path string
	dir  string   // where they run
	env  []string // all of it
	away string   // matches tests that are not to run; empty: none
	args []string // besides
}

// An outcome is how a test has ended.
type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "fail"
	skipped outcome = "skip"
)

// A result is what came of one test.
type result struct {
	outcome
	output string
}

// whole is the name under which a program's own end is judged. It has passed where a test
// is to blame; where none is, a TestMain may have found something.
const whole = "TestMain"

// run runs the tests whose names match, and returns what came of those that have no
// subtests. Where all ended early, a test that had begun has failed.
func (p program) run(ctx context.Context, match string) (map[string]result, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "go", "tool", "test2json", p.path, "-test.v=test2json", "-test.run="+match, "-test.skip="+p.away, "-test.timeout="+limit.String())
	c.Args = append(c.Args, p.args...)
	c.Dir, c.Env = p.dir, p.env
	c.WaitDelay = time.Second // a test may leave processes behind that have its output
	out, err := c.Output()
	results := parse(out)
	if len(results) == 0 {
		return nil, fmt.Errorf("%s: no test has run: %w\n%s", p.path, err, out)
	}
	return results, nil
}

// An event is a line of test2json's.
type event struct {
	Action, Test, Output string
}

// parse reads what test2json has written.
func parse(out []byte) map[string]result {
	results := make(map[string]result)
	status, said := passed, ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		ends := e.Action == string(passed) || e.Action == string(failed) || e.Action == string(skipped)
		switch r := results[e.Test]; {
		case e.Test == "" && ends:
			status = outcome(e.Action)
		case e.Test == "":
			said += e.Output
		case e.Action == "run":
			results[e.Test] = result{outcome: failed}
		case e.Action == "output":
			r.output += e.Output
			results[e.Test] = r
		case ends:
			r.outcome = outcome(e.Action)
			results[e.Test] = r
		}
	}
	return leaves(results, status, said)
}

// leaves leaves out tests that have subtests, and adds the whole.
func leaves(results map[string]result, status outcome, said string) map[string]result {
	if len(results) == 0 {
		return nil
	}
	blamed := false
	for test, r := range results {
		blamed = blamed || r.outcome == failed
		if i := strings.LastIndex(test, "/"); i >= 0 {
			defer delete(results, test[:i])
		}
	}
	if blamed {
		status = passed
	}
	results[whole] = result{status, said}
	return results
}
