package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// turnsOf is five turns of one way, with as many events of each kind.
func turnsOf(goroutines int, heap float64, news ...time.Duration) []turn {
	one := turn{
		goroutines: goroutines,
		memory:     memory{heap: heap, stack: heap},
		news:       map[ending][]time.Duration{fin: news, rst: news},
	}
	return slices.Repeat([]turn{one}, 5)
}

func TestEachBoundOnAWatcherCanBeMissed(t *testing.T) {
	quick := slices.Repeat([]time.Duration{time.Microsecond}, 100)
	slow := slices.Concat(quick[2:], []time.Duration{2 * time.Millisecond, 2 * time.Millisecond})
	for _, c := range []struct {
		name   string
		ours   []turn
		missed []string
	}{
		{"none", turnsOf(1, 64, quick...), nil},
		{"two goroutines", turnsOf(2, 64, quick...), []string{"goroutines"}},
		{"65 bytes", turnsOf(1, 65, quick...), []string{"memory"}},
		{"two in a hundred are late", turnsOf(1, 64, slow...), []string{"fin_p99", "rst_p99"}},
		{"one turn of six", append(turnsOf(1, 64, quick...), turn{
			goroutines: 2, memory: memory{heap: 100}, news: map[ending][]time.Duration{fin: quick, rst: quick},
		}), []string{"goroutines", "memory"}},
	} {
		peers := turnsOf(10, 1000, quick...)
		for len(peers) < len(c.ours) {
			peers = append(peers, peers[0])
		}
		r := watchOf(map[string][]turn{ourName: c.ours, readName: peers, loopsName: peers}, nil)
		if got := missed(r); !slices.Equal(got, c.missed) {
			t.Errorf("%s: missed are %v", c.name, got)
		}
		if r.kept() != (len(c.missed) == 0) {
			t.Errorf("%s: kept is %v", c.name, r.kept())
		}
	}
}

// missed names the figures beside the first peer that were missed.
func missed(r *watchReport) []string {
	var names []string
	note := func(c watchCase, v verdict) {
		if c.Peer == readName && v.Status == statusMissed {
			names = append(names, c.Figure)
		}
	}
	for _, w := range r.counts {
		note(w.watchCase, w.verdict)
	}
	for _, w := range r.memory {
		note(w.watchCase, w.verdict)
	}
	for _, w := range r.news {
		note(w.watchCase, w.verdict)
	}
	return names
}

func TestWhatCannotBeWatchedHereIsSkippedAndWhatFailsIsMissed(t *testing.T) {
	for err, want := range map[error]status{
		fmt.Errorf("%w: no root", errUnavailable): statusSkipped,
		errors.New("broken"):                      statusMissed,
	} {
		r := watchOf(nil, err)
		if r.kept() || len(r.lines()) != 1 || r.none[0].Status != want || r.none[0].Why != err.Error() {
			t.Errorf("%v: %+v", err, r)
		}
	}
}

func TestALineOfJSONOfWatch(t *testing.T) {
	mine := turnsOf(1, 10, 20*time.Microsecond, 40*time.Microsecond, 30*time.Microsecond)
	others := turnsOf(10, 1000, 10*time.Microsecond, 20*time.Microsecond, 15*time.Microsecond)
	r := watchOf(map[string][]turn{ourName: mine, readName: others, loopsName: others}, nil)
	lines := make(map[string]map[string]any)
	for _, l := range r.lines() {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var line map[string]any
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatal(err)
		}
		lines[fmt.Sprint(line["peer"], " ", line["figure"])] = line
	}
	if len(lines) != 12 {
		t.Errorf("%d lines", len(lines))
	}
	for name, want := range map[string]map[string]any{
		readName + " goroutines": {"bench": "watch", "connections": 10000.0, "ours_goroutines": 1.0, "peer_goroutines": 10.0,
			"ratio_is": "peer/ours", "ratio": 10.0, "pairs": 5.0, "bound": 1.0, "status": "ok"},
		loopsName + " memory": {"ours_heap_bytes": 10.0, "ours_stack_bytes": 10.0, "peer_heap_bytes": 1000.0,
			"peer_stack_bytes": 1000.0, "ratio": 100.0, "bound": 64.0, "bound_is": "ours_heap_bytes at most"},
		readName + " fin_p50": {"events": 15.0, "ours_us": 30.0, "peer_us": 15.0, "ratio_is": "ours/peer", "ratio": 2.0,
			"bound": nil, "status": "ok"},
		readName + " rst_p99": {"ours_us": 40.0, "peer_us": 20.0, "bound": 1000.0, "bound_is": "ours_us at most"},
	} {
		for key, value := range want {
			if got := lines[name][key]; got != value {
				t.Errorf("%s: %s is %v, want %v", name, key, got, value)
			}
		}
	}
}
