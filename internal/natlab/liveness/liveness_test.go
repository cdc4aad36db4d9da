package main

import (
	"context"
	"io"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

func TestMeasurementsOfOneConnectionStandTogether(t *testing.T) {
	zero := work.Number(0)
	all := []work.Measurement{
		work.Told("1", "", zero).At(http2, ""), work.Told("2", "", zero).At(plain, "b"),
		work.Told("3", "", zero).At(plain, "a"), work.Told("4", "", zero).At(plain, "b"),
	}
	slices.SortStableFunc(all, command.Order)
	order := ""
	for _, m := range all {
		order += m.Figure
	}
	if order != "3241" {
		t.Error(order)
	}
}

func TestWhatNftPrintsOfCounters(t *testing.T) {
	counts, err := parseCounters(`table ip liveness {
	counter ours_tls {
		packets 12 bytes 720
	}
	counter ours_tls_passed {
		packets 0 bytes 0
	}
}
`)
	if err != nil || len(counts) != 2 || counts["ours_tls"] != 12 {
		t.Error(counts, err)
	}
}

func TestOnlyTheFirstFateCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		since := time.Now()
		f := newFate()
		time.AfterFunc(3*time.Second, func() { f.is(io.EOF) })
		time.AfterFunc(4*time.Second, func() { f.is(nil) })
		soon, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if v, err := f.after(soon, since); v != (work.Reading{Value: 2, More: true}) || err != nil {
			t.Errorf("after 2.5 s: %v, %v", v, err)
		}
		time.Sleep(2 * time.Second)
		for range 2 { // the second time its context is done, too
			if v, err := f.after(soon, since); v != (work.Reading{Value: 3}) || err != io.EOF {
				t.Errorf("after 4.5 s: %v, %v", v, err)
			}
		}
	})
}

func TestTheWorstOfTheWrecks(t *testing.T) {
	var w wreck
	for i := range resets {
		w.dropped = append(w.dropped, time.Duration(i+1)*time.Millisecond)
	}
	if got := w.took(0.5); got != (work.Reading{Value: 50}) {
		t.Error(got)
	}
	if got := w.took(1); got != (work.Reading{Value: 100}) {
		t.Error(got)
	}
	w.dropped[resets-1] = never
	if got := w.took(1); got != (work.Reading{Value: 1000, More: true}) {
		t.Error(got)
	}
}
