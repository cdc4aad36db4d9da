package main

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

func TestAFateIsWhatTheErrorPromises(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fate
	}{
		{nil, answered},
		{fmt.Errorf("%w: 404", errStrange), strange},
		{&dialer.DialError{Network: "tcp", Address: "a:1", Err: io.EOF}, safe},
		{io.EOF, unknown},
	} {
		if got := judge(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestEachFateIsHeldAgainstTheOriginsCount(t *testing.T) {
	type row struct {
		post
		count int
	}
	failed := func(f fate) post { return post{f, io.EOF} }
	for _, c := range []struct {
		name string
		row
		of func(verdict) int
	}{
		{"answered", row{post{fate: answered}, 1}, func(v verdict) int { return v.answered }},
		{"a phantom", row{post{fate: answered}, 0}, func(v verdict) int { return v.phantoms }},
		{"safe", row{failed(safe), 0}, func(v verdict) int { return v.safe }},
		{"a broken promise", row{failed(safe), 1}, func(v verdict) int { return v.broken }},
		{"ran", row{failed(unknown), 1}, func(v verdict) int { return v.ran }},
		{"lost", row{failed(unknown), 0}, func(v verdict) int { return v.lost }},
		{"strange", row{failed(strange), 1}, func(v verdict) int { return v.strange }},
		{"twice", row{failed(unknown), 2}, func(v verdict) int { return v.twice }},
		{"twice, though nobody knows what came of it", row{post{}, 2}, func(v verdict) int { return v.twice }},
	} {
		v := weigh([]post{c.post}, func(int) int { return c.count })
		if c.of(v) != 1 {
			t.Errorf("%s: %+v", c.name, v)
		}
		if bad := v.twice + v.phantoms + v.broken + v.strange; (bad > 0) != (c.of(v) == bad) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	if v := weigh([]post{{}}, func(int) int { return 1 }); v.sent != 0 {
		t.Errorf("what came of it nobody knows, and it counts: %+v", v)
	}
}

func TestEveryFaultComesWhileSomebodyAsksOrAllRest(t *testing.T) {
	var down bool
	var seen toll
	last := time.Duration(-1)
	for _, f := range faults() {
		seen[f.kind]++
		switch single := f.kind < killRST; {
		case f.at < last || f.at >= round:
			t.Errorf("%+v comes after %v", f, last)
		case single && (down || resting(f.at) > 0):
			t.Errorf("%+v strikes nobody", f)
		case f.kind == restart && !down, f.kind != restart && !single && down:
			t.Errorf("%+v while the origin is down: %t", f, down)
		}
		switch {
		case f.kind == restart:
			down = false
		case f.kind >= killRST:
			down = true
		}
		last = f.at
	}
	for k, n := range seen {
		if n == 0 {
			t.Errorf("fault %d never comes", k)
		}
	}
	if down {
		t.Error("the origin is down in the end")
	}
}

func TestARestIsLongerThanThePathRemembersAndShorterThanTheFirstProbe(t *testing.T) {
	if rest := resting(working); rest <= realIdle || rest >= 4*time.Second || resting(working-1) != 0 || resting(half) != 0 {
		t.Errorf("it lasts for %v", rest)
	}
	for _, f := range faults() {
		if f.at >= working && f.at < half {
			t.Errorf("%+v disturbs the first rest", f)
		}
	}
}

func TestWhatFailedIsLaterThanAll(t *testing.T) {
	l := lateness{failed: 1}
	for i := range 999 {
		l.late = append(l.late, time.Duration(i+1)*time.Millisecond)
	}
	for _, c := range []struct {
		q    float64
		want work.Reading
	}{
		{0.001, work.Reading{Value: 0.001}}, {0.999, work.Reading{Value: 0.999}}, {1, work.Reading{Value: 10, More: true}},
	} {
		if got := l.quantile(c.q); got != c.want {
			t.Errorf("%v: %v, want %v", c.q, got, c.want)
		}
	}
	if n := l.over(990 * time.Millisecond); n != 10 {
		t.Errorf("%d are later than 990 ms", n)
	}
	if got := (lateness{}).quantile(0.5); !got.More {
		t.Errorf("of nothing: %v", got)
	}
}
