package stdlib

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnOutcomeIsWhatTheTestingPackageSaysOfTheTestItself(t *testing.T) {
	died := new(exec.ExitError)
	for _, c := range []struct {
		out  string
		err  error
		want Outcome
	}{
		{"\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\nPASS\n", nil, Passed},
		{"noise\x16--- PASS: TestA (0.00s)\nPASS\n", nil, Passed},
		{"\x16--- SKIP: TestA (0.00s)\nPASS\n", nil, Skipped},
		{"\x16--- FAIL: TestA (0.00s)\nFAIL\n", died, Failed},
		{"\x16--- PASS: TestA (0.00s)\nPASS\nToo many goroutines\n", died, Failed},
		{"\x16--- PASS: TestA/h1 (0.00s)\n\x16--- SKIP: TestA/h2 (0.00s)\npanic: no\n", died, Failed},
		{"--- PASS: TestA (0.00s)\n", nil, Failed}, // a test has printed it
		{"testing: warning: no tests to run\nPASS\n", nil, Failed},
	} {
		if got := outcome("TestA", c.out, c.err); got != c.want {
			t.Errorf("%q, %v: %s, want %s", c.out, c.err, got, c.want)
		}
	}
}

func TestTheOutputThatIsKeptLeavesOutWhatOnlyRuns(t *testing.T) {
	out := "\x16=== RUN   TestA\nsaid\n\x16=== NAME  TestA\n    a_test.go:1: why\n\x16--- FAIL: TestA (0.00s)\n"
	if got, want := tidy(out), "said\n    a_test.go:1: why\n--- FAIL: TestA (0.00s)\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWhatAFailureIsCalledDependsOnTheListAndOnFurtherRuns(t *testing.T) {
	results := func(s string) map[string]Result {
		all := make(map[string]Result)
		for pair := range strings.FieldsSeq(s) {
			test, outcome, _ := strings.Cut(pair, "=")
			all[test] = Result{Outcome: Outcome(outcome)}
		}
		return all
	}
	tests := strings.Fields("Good Idle Bad Listed Shaky Once Stale Tells Skip Broken")
	stock := results("Good=passed Idle=passed Bad=passed Listed=passed Shaky=passed Once=passed Stale=passed Tells=passed Skip=skipped Broken=failed")
	broken := results("Good=failed Idle=passed Bad=failed Listed=failed Shaky=failed Once=failed Stale=failed Tells=passed")
	ours := results("Good=passed Idle=passed Bad=failed Listed=failed Shaky=failed Once=failed Stale=passed Tells=failed")
	listed := map[string]string{"Listed": "on purpose", "Stale": "no more", "Broken": "as it is", "Shaky": ""}

	runs := make(map[string]int)
	c := judge(tests, stock, broken, ours, listed, func(test string) Result {
		runs[test]++
		switch {
		case test == "Shaky", test == "Once" && runs[test] == 1:
			return Result{Outcome: Passed}
		}
		return Result{Outcome: Failed}
	})
	want := map[string]Kind{"Bad": Missed, "Listed": Different, "Shaky": Flaky, "Once": Missed, "Stale": Outdated, "Tells": Missed}
	for _, f := range c.Findings {
		if f.Kind != want[f.Test] {
			t.Errorf("%s is %q, want %q", f.Test, f.Kind, want[f.Test])
		}
		delete(want, f.Test)
	}
	if len(want) > 0 {
		t.Errorf("nothing is told of %v", want)
	}
	if c.Tests != 10 || c.Passed != 8 || c.Skipped != 1 || c.Discriminating != 6 || c.Kept != 3 {
		t.Errorf("%+v", c)
	}
	if runs["Bad"] != 2 || runs["Good"] != 0 {
		t.Errorf("run again: %v", runs)
	}
}

func TestAResultFromAnotherGoIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	other := "#!/bin/sh\necho go1.1\necho " + dir + "\necho " + dir + "\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(other), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if _, err := thisGo(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "go1.1") {
		t.Errorf("with the go command of another Go: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := thisGo(t.Context(), dir); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without a go command: %v", err)
	}
}

// One test of net/http in all three ways.
func TestABrokenClientIsToldFromAGoodOne(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the tests of net/http twice")
	}
	s, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const test = "TestNewClientServerTest"
	if !slices.Contains(s.Tests, test) {
		t.Fatalf("no %s among %d tests", test, len(s.Tests))
	}
	for way, want := range map[Way]Outcome{Stock: Passed, Broken: Failed, Ours: Passed} {
		if r := s.one(t.Context(), way, test, time.Minute); r.Outcome != want {
			t.Errorf("over %s: %s, want %s\n%s", way, r.Outcome, want, r.Output)
		}
	}
	if r := s.one(t.Context(), Stock, "TestNoSuch", time.Minute); r.Outcome != Failed {
		t.Errorf("a test that there is not: %s", r.Outcome)
	}
}
