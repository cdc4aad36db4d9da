package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/natwise/natwise/internal/bench/stdlib"
)

// compared has so many tests that are listed and fail, and one of each further kind.
func compared(different int, further ...stdlib.Kind) *stdlib.Comparison {
	c := &stdlib.Comparison{Tests: 611, Passed: 609, Skipped: 2, Discriminating: 300, Kept: 300 - different}
	for i := range different {
		c.Findings = append(c.Findings, stdlib.Finding{Test: fmt.Sprint("TestListed", i), Discriminating: true, Kind: stdlib.Different, Reason: "on purpose"})
	}
	for _, k := range further {
		c.Findings = append(c.Findings, stdlib.Finding{Test: "TestOther", Discriminating: true, Kind: k, Output: "x_test.go:1: why\n"})
	}
	return c
}

func TestNetHTTPsTestsMustPassOrBeListedAndFewAre(t *testing.T) {
	for _, c := range []struct {
		name string
		of   *stdlib.Comparison
		err  error
		want status
	}{
		{"all pass", compared(0), nil, statusOK},
		{"as many are listed as may be", compared(differencesMost), nil, statusOK},
		{"one more is listed", compared(differencesMost + 1), nil, statusMissed},
		{"one fails that is not listed", compared(1, stdlib.Missed), nil, statusMissed},
		{"one failed once, and one passes that is listed", compared(1, stdlib.Flaky, stdlib.Outdated), nil, statusOK},
		{"no test tells anything", &stdlib.Comparison{Tests: 611, Passed: 611}, nil, statusMissed},
		{"they could not be built", nil, errors.New("no go command"), statusMissed},
	} {
		r := stdlibOf(c.of, c.err)
		if r.sum.Status != c.want || r.kept() != (c.want == statusOK) {
			t.Errorf("%s: %v, kept %v", c.name, r.sum.verdict, r.kept())
		}
		if c.want == statusMissed && r.sum.Why == "" && r.sum.BoundIs == "" {
			t.Errorf("%s: missed, and nobody knows why", c.name)
		}
	}
}

func TestTheReportOfNetHTTPsTestsSaysWhatFailedAndWhy(t *testing.T) {
	r := stdlibOf(compared(1, stdlib.Missed), nil)
	var text bytes.Buffer
	r.print(&text)
	for _, want := range []string{"300 of these fail with a broken", "TestListed0: different", "on purpose", "TestOther: failed", "x_test.go:1: why"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}

	var lines bytes.Buffer
	if err := show(r, true, &lines); err != nil {
		t.Fatal(err)
	}
	var sum struct {
		Bench, Go, Status     string
		Tests, Discriminating int
		Ours                  int `json:"ours_passed"`
	}
	d := json.NewDecoder(&lines)
	if err := d.Decode(&sum); err != nil {
		t.Fatal(err)
	}
	if sum.Bench != "stdlib" || sum.Go == "" || sum.Tests != 611 || sum.Discriminating != 300 || sum.Ours != 299 || sum.Status != "missed" {
		t.Errorf("%+v", sum)
	}
	for range 2 {
		var one struct{ Bench, Test, Status, Ours string }
		if err := d.Decode(&one); err != nil || one.Bench != "stdlib" || one.Test == "" || one.Ours == "" || one.Status == "" {
			t.Errorf("%+v, %v", one, err)
		}
	}
}

func TestLongOutputIsCutForPeopleAndSaysSo(t *testing.T) {
	long := strings.Repeat("line\n", 100)
	if got := head(long); strings.Count(got, "\n") != 26 || !strings.HasSuffix(got, "...\n") {
		t.Errorf("%q", got)
	}
	if got := head("line\n"); got != "line\n" {
		t.Errorf("%q", got)
	}
}
