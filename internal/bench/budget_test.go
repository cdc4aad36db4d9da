package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/servers"
)

func TestWhatIsAskedOfASharedBudget(t *testing.T) {
	turns := func(ns float64) []singles {
		return slices.Repeat([]singles{{median: ns, p99: 1e6, granted: 3, refused: 1}}, 5)
	}
	for ns, want := range map[float64]status{1000: statusOK, 1001: statusMissed} {
		r := new(grantReport)
		r.compareCrowd(grantFigure{}, turns(ns), turns(50_000))
		half, p99, refused := r.figures[0], r.figures[1], r.figures[2]
		if half.Status != want || half.Ours != ns || half.Peers != 50_000 || half.RatioIs != peerToOurs || r.kept() != (want == statusOK) {
			t.Errorf("%v: %+v", ns, half)
		}
		if p99.BoundIs != "" || p99.Status != statusOK || refused.Ours != 25 || refused.ratio != nil {
			t.Errorf("%v: %+v, %+v", ns, p99, refused)
		}
	}
	for _, c := range []struct {
		got  verdict
		want status
	}{
		{aloneVerdict(300, 9), statusOK},
		{aloneVerdict(301, 9000), statusMissed},
		{leaseVerdict(150, 100), statusOK},
		{leaseVerdict(151, 100), statusMissed},
	} {
		if c.got.Status != c.want {
			t.Errorf("%+v, want %s", c.got, c.want)
		}
	}
}

func TestWhatCannotBeMeasuredHereIsSkippedAndNotKept(t *testing.T) {
	for err, want := range map[error]status{
		fmt.Errorf("budget: %w", errors.ErrUnsupported): statusSkipped,
		servers.ErrUnavailable:                          statusSkipped,
		errBroke:                                        statusMissed,
	} {
		r := new(grantReport)
		r.fail(err, grantFigure{})
		if f := r.figures[0]; f.Status != want || f.Why != err.Error() || r.kept() {
			t.Errorf("%v: %+v", err, f)
		}
	}
}

func TestEightProcessesShareAndAreGoneAfterwards(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	mine, theirs, err := crowdTurns(scarce, 5)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, turns := range [][]singles{mine, theirs} {
		for _, s := range turns {
			if s.median <= 0 || s.p99 < s.median || s.granted < leastIn {
				t.Errorf("%+v", s)
			}
		}
	}
	if stacks := leak.Beyond(goroutines); stacks != "" {
		t.Errorf("goroutines left behind:\n%s", stacks)
	}
}

func TestTheDaemonKeepsTheLimitAndTakesBackWhatAProcessHeldThatIsGone(t *testing.T) {
	dir := t.TempDir()
	d, err := startDaemon(socketIn(dir), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	a, err := dialDaemon(socketIn(dir))
	if err != nil {
		t.Fatal(err)
	}
	b, err := dialDaemon(socketIn(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range 2 {
		if _, ok := a.Take(grantKey); !ok {
			t.Fatal("refused where there is room")
		}
	}
	if _, ok := b.Take(grantKey); ok {
		t.Fatal("a third port of two")
	}
	a.Release()
	a.Close()
	got := 0
	for late := time.Now().Add(stuck); got < 2 && time.Now().Before(late); { // the daemon tells nobody
		if _, ok := b.Take(grantKey); ok {
			got++
		}
	}
	if _, ok := b.Take(grantKey); ok || got != 2 {
		t.Errorf("%d ports of two, and then one more: %v", got, ok)
	}
}

func TestAProcessThatIsGoneOrGrantsNothingIsAnError(t *testing.T) {
	d, err := startDaemon(socketIn(t.TempDir()), 1)
	if err != nil {
		t.Fatal(err)
	}
	d.in.Close()
	if said, err := d.answer(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", said, err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	if _, err := (grantSource{budget.PerKey(0), 1}).cost(); !errors.Is(err, errNoGrant) {
		t.Error(err)
	}
}

func TestGrantsOfOneProcessAreMeasured(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	r := new(grantReport)
	r.measureHost(5)
	r.measureRedis(5)
	for _, f := range r.figures {
		if f.Status == statusSkipped {
			t.Skip(f.Why)
		}
		if f.Why != "" || f.Figure == grantNanos && f.Ours <= 0 || f.Figure == grantAllocs && f.Status != statusOK {
			t.Errorf("%+v", f)
		}
	}
	if len(r.figures) != 8 {
		t.Errorf("%d figures, want 8", len(r.figures))
	}
	if stacks := leak.Beyond(goroutines); stacks != "" {
		t.Errorf("goroutines left behind:\n%s", stacks)
	}
}

func TestALineOfTheBenchBudget(t *testing.T) {
	turns := slices.Repeat([]singles{{median: 100, p99: 200, granted: 1}}, 5)
	r := new(grantReport)
	r.compareCrowd(grantFigure{Bench: "budget", Engine: hostName, Processes: 8, Limit: 128, Peer: daemonName}, turns, turns)
	var out bytes.Buffer
	if err := show(r, true, &out); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	for _, want := range []map[string]any{
		{"figure": "p50_ns", "ours_value": 100.0, "peer_value": 100.0, "bound": 1000.0, "bound_is": "ours_value at most", "ratio_is": "peer/ours", "ratio": 1.0, "ratio_low": 1.0, "pairs": 5.0},
		{"figure": "p99_ns", "ours_value": 200.0, "peer_value": 200.0, "bound": nil, "ratio_low": 1.0},
		{"figure": "refused_percent", "ours_value": 0.0, "peer_value": 0.0, "bound": nil, "ratio": nil},
	} {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		for key, v := range map[string]any{"bench": "budget", "engine": "budget.Host", "processes": 8.0, "limit": 128.0, "peer": "daemon", "status": "ok"} {
			want[key] = v
		}
		for key, v := range want {
			if line[key] != v {
				t.Errorf("%s is %v, want %v", key, line[key], v)
			}
		}
	}
	if d.Decode(new(any)) != io.EOF {
		t.Error("there are more lines")
	}
}
