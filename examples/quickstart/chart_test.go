package main

import (
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

func TestTheChartMarksTheLimitAndNothingElseInFull(t *testing.T) {
	second := func(held ...int) (ss []sample) {
		for i, n := range held {
			ss = append(ss, sample{time.Duration(i) * time.Second, n, 0})
		}
		return ss
	}
	got := newScreen(nil, terminal.Terminal{}).ports([]curve{
		{"client-per-request", second(0, 127, 128, 128, 64, 1, 0, 0, 18, 19), 9 * time.Second},
		{"natwise", second(100, 100, 20, 20), 3 * time.Second},
		{"never", nil, 0},
	}, 128)
	want := []string{
		"  client-per-request           ▇▇▇▇▇▇████████████▄▄▄▄▄▄▁▁▁▁▁▁            ▁▁▁▁▁▂",
		"  natwise                ▆▆▆▆▆▆▆▆▆▆▆▆▂▂▂▂▂▂ over after 3.0 s",
		"  never                    over after 0.0 s",
		"                         0 s ──────────────────────────────────────────── 9.0 s",
		"                         █ all 128 ports taken: the limit",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAPeakBetweenTwoColumnsIsNotLost(t *testing.T) {
	held := []sample{{0, 1, 0}, {1, 128, 0}, {2, 3, 0}, {25, 7, 0}}
	if got := buckets(held, 3, 10); got[0] != 128 || got[1] != 3 || got[2] != 7 {
		t.Errorf("got %v", got)
	}
}

func TestTheChartOfAnswersShowsEachSite(t *testing.T) {
	s := blackhole(load{})
	lanes := []*lane{{name: "other", scene: s, ran: 54 * time.Second, over: true}, {name: natwise, scene: s, ran: 27 * time.Second, over: true}}
	for i := range 54 { // a column is a second
		at := time.Duration(i) * time.Second
		if i < 10 || i >= 40 {
			lanes[0].ends = append(lanes[0].ends, end{at, 0, i >= 40})
		}
		lanes[0].ends = append(lanes[0].ends, end{at, 1, false}, end{at, 1, i == 5})
	}
	lanes[1].ends = []end{{0, 0, false}, {27 * time.Second, 0, false}}
	got := answersOverTime(newScreen(nil, terminal.Terminal{}), lanes)
	want := []string{
		"  What came back, over time",
		"  other",
		"    orders               ▄▄▄▄▄▄▄▄▄▄······························××××××××××××××",
		"    users                ██████████████████████████████████████████████████████",
		"  natwise",
		"    orders               ▄·························▄ over after 27.0 s",
		"    users                ··························· over after 27.0 s",
		"                         0 s ─────────────────────────────────────────── 54.0 s",
		"                         × nothing but failures",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestATableLeavesOutWhatThereIsNoRoomFor(t *testing.T) {
	all := []column{{width: 6}, {width: 6, spare: true}, {width: 6}, {width: 6, spare: true}}
	for room, want := range map[int]int{27: 4, 26: 3, 20: 3, 19: 2, 13: 2, 5: 2} {
		if got := fitting(all, room); len(got) != want {
			t.Errorf("in %d columns there are %d", room, len(got))
		}
	}
}
