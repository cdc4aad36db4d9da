package work

import (
	"testing"
	"time"
)

func TestPercentileIsOneOfTheValues(t *testing.T) {
	var ds []time.Duration
	for i := range 100 {
		ds = append(ds, time.Duration(100-i))
	}
	for q, want := range map[float64]time.Duration{0.001: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := Percentile(ds, q); got != want {
			t.Errorf("percentile %v is %d, want %d", q, got, want)
		}
	}
	if got := Percentile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

func TestMedian(t *testing.T) {
	if m := Median([]float64{3, 1, 2}); m != 2 {
		t.Error(m)
	}
	if m := Median([]float64{4, 1, 2, 3}); m != 2.5 {
		t.Error(m)
	}
}

func TestTheBoundOfTenPairsIsTheSecondOfThem(t *testing.T) {
	lower, upper, ok := Bounds([]float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1})
	if !ok || lower != 2 || upper != 9 {
		t.Error(lower, upper, ok)
	}
}

func TestFivePairsAreBoundedByTheirExtremesAndFourAreNot(t *testing.T) {
	if lower, upper, ok := Bounds([]float64{5, 4, 3, 2, 1}); !ok || lower != 1 || upper != 5 {
		t.Error(lower, upper, ok)
	}
	if _, _, ok := Bounds([]float64{4, 3, 2, 1}); ok {
		t.Error("four pairs have a bound")
	}
}

func TestTheIdealQueueServesWhoeverAskedFirst(t *testing.T) {
	// Two workers and one port: one is answered after 1, the other waits for the
	// hold, and the first for two of them.
	got := IdealQueue(2, 4, 1, 1, 10)
	want := []time.Duration{1, 12, 22, 22}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}

func TestTheIdealQueueWithPortsForAllWaitsForHoldsOnly(t *testing.T) {
	for i, took := range IdealQueue(3, 6, 6, 1, 10) {
		if took != 1 {
			t.Errorf("request %d took %d", i, took)
		}
	}
}
