package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

// everySQL opens each contender with room for some connections.
func everySQL(t *testing.T, o sqlOperation, connections int, test func(t *testing.T, c sqlContender, d *memoryDriver)) {
	t.Helper()
	for _, e := range []sqlEntry{oursSQL, plainSQL, leastSQL} {
		t.Run(e.name, func(t *testing.T) {
			d := &memoryDriver{preparing: o.prepared}
			c, err := load{values: connections}.open(e.entry(d, o))
			if err != nil {
				t.Fatal(err)
			}
			test(t, c.(sqlContender), d)
			if err := c.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryOperationIsDoneOnConnectionsThatAreThere(t *testing.T) {
	for _, o := range sqlOperations {
		everySQL(t, o, 3, func(t *testing.T, c sqlContender, d *memoryDriver) {
			held := 0
			if err := c.cycle(t.Context(), 7, func() { held++ }); err != nil || held != 7 {
				t.Errorf("%s: %d of 7, %v", o.name, held, err)
			}
			if n := d.dials.Load(); n != 3 {
				t.Errorf("%s: %d connections, want 3", o.name, n)
			}
		})
	}
}

func TestAnOperationThatFailsIsNotCounted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range sqlOperations {
		everySQL(t, o, 1, func(t *testing.T, c sqlContender, _ *memoryDriver) {
			if err := c.cycle(ctx, 1, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", o.name, err)
			}
		})
	}
}

func TestAPreparedStatementIsPreparedAgainByWhoKeepsNone(t *testing.T) {
	everySQL(t, sqlPrepared, 1, func(t *testing.T, c sqlContender, d *memoryDriver) {
		if err := c.cycle(t.Context(), 10, nil); err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		if d.kept != nil {
			want = 10 // after the one that made the statement
		}
		if n := d.again.Load(); n != want {
			t.Errorf("prepared %d times again, want %d", n, want)
		}
	})
}

func TestTheIdealQueueServesUnevenWorkInTheOrderOfAsking(t *testing.T) {
	// Three ask at 0. The first is done at 5, the second at 1, and the third, who began
	// then, at 3. The second asked again at 1 and begins at 3; the third, who asked again
	// at 3, begins at 4.
	got := idealWaits(3, 2, []time.Duration{5, 1, 2, 1, 1})
	if want := []time.Duration{0, 0, 1, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTheIdealQueueOfEvenWorkIsThatOfTheLab(t *testing.T) {
	const service = time.Millisecond
	got := idealWaits(64, 8, slices.Repeat([]time.Duration{service}, 640))
	for i, took := range work.IdealQueue(64, 640, 8, service, 0) {
		if got[i] != took-service {
			t.Fatalf("the wait %d is %v, want %v", i, got[i], took-service)
		}
	}
}

// inVirtualTime returns what is executed by eight goroutines on two connections.
func inVirtualTime(t *testing.T, e sqlEntry) (all []execution) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := load{goroutines: 8, values: 2, hold: func() { time.Sleep(time.Millisecond) }}
		c, err := l.open(e.entry(new(memoryDriver), sqlExec))
		if err != nil {
			t.Fatal(err)
		}
		if all, err = l.execute(c.(sqlContender).db, 50); err != nil {
			t.Error(err)
		}
		if err := c.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return all
}

func TestWithoutAMachineInTheWayNatwiseIsTheIdealQueue(t *testing.T) {
	all := inVirtualTime(t, oursSQL)
	works := worksOf(all)
	got, want := waitsOf(all), idealWaits(8, 2, works)
	slices.Sort(got)
	slices.Sort(want)
	if len(works) != 400 || slices.Min(works) != time.Millisecond || slices.Max(works) != time.Millisecond {
		t.Errorf("%d works of %v to %v", len(works), slices.Min(works), slices.Max(works))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the waits are %v, want %v", got, want)
	}
}

func TestDatabaseSQLServesWhoeverComesToItsHand(t *testing.T) {
	longest := slices.Max(waitsOf(inVirtualTime(t, plainSQL)))
	if ideal := 3 * time.Millisecond; longest <= ideal {
		t.Errorf("the longest wait is %v, no longer than in the ideal queue", longest)
	}
}

func TestWorksAreInTheOrderInWhichTheyBegan(t *testing.T) {
	now := time.Now()
	all := []execution{{begun: now.Add(2), worked: 20}, {begun: now, worked: 10}, {begun: now.Add(1), worked: 30}}
	if works := worksOf(all); !slices.Equal(works, []time.Duration{10, 30, 20}) {
		t.Error(works)
	}
}

func TestWhatIsLeftIdleIsLentBeforeAnythingIsDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if dials, err := starved(oursSQL, 4); dials != 0 || err != nil {
			t.Errorf("natwise has dialed %d times: %v", dials, err)
		}
		if dials, err := starved(plainSQL, 4); dials != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("database/sql has dialed %d times, which may end now: %v", dials, err)
		}
	})
}

func TestTheBoundsOfTheCostAreOnExecContextBesideDatabaseSQL(t *testing.T) {
	exec, query := sqlCase{Operation: sqlExec.name}, sqlCase{Operation: sqlQueryRow.name}
	for _, c := range []struct {
		name       string
		of         sqlCase
		peer       sqlEntry
		ns, allocs int // of ours; the peer's are 100 and 1
		want       [2]status
	}{
		{"as much as may be", exec, plainSQL, 800, 6, [2]status{statusOK, statusOK}},
		{"a nanosecond more", exec, plainSQL, 801, 6, [2]status{statusMissed, statusOK}},
		{"an allocation more", exec, plainSQL, 800, 7, [2]status{statusOK, statusMissed}},
		{"another peer", exec, leastSQL, 9000, 9, [2]status{statusOK, statusOK}},
		{"another operation", query, plainSQL, 9000, 9, [2]status{statusOK, statusOK}},
	} {
		r := new(sqlReport)
		r.compareCost(c.of, c.peer, samples(c.ns, c.allocs), samples(100, 1))
		if got := [2]status{r.figures[0].Status, r.figures[1].Status}; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// samples returns five of an operation that takes so long and allocates so often.
func samples(ns, allocs int) series {
	return slices.Repeat(series{{ops: 1000, took: 1000 * time.Duration(ns), mallocs: uint64(1000*allocs + 3)}}, 5)
}

func TestTheBoundsOfTheWaitsAreOnTheLargerCrowd(t *testing.T) {
	for _, c := range []struct {
		goroutines   int
		ideal, plain float64 // ours is 12
		want         [2]status
	}{
		{64, 10, 36, [2]status{statusOK, statusOK}},
		{64, 9.9, 36, [2]status{statusMissed, statusOK}},
		{64, 10, 35.9, [2]status{statusOK, statusMissed}},
		{8, 5, 12, [2]status{statusOK, statusOK}},
	} {
		found := make(map[string][]float64)
		for name, ms := range map[string]float64{oursSQL.name: 12, idealName: c.ideal, plainSQL.name: c.plain} {
			found[name] = slices.Repeat([]float64{ms}, 5)
		}
		r := new(sqlReport)
		r.compareWaits(sqlCase{Goroutines: c.goroutines}, found)
		if got := [2]status{r.figures[0].Status, r.figures[1].Status}; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestTheReportOfSQLSaysWhatWasMissed(t *testing.T) {
	r := new(sqlReport)
	r.compareCost(sqlCase{"sql", sqlNanos, sqlExec.name, 64, 64}, plainSQL, samples(900, 2), samples(100, 1))
	r.fail(sqlCase{Bench: "sql", Figure: sqlDials}, plainSQL, io.ErrUnexpectedEOF)
	if good := (&sqlReport{r.figures[1:2]}); r.kept() || !good.kept() {
		t.Errorf("kept %t, %+v", r.kept(), r.figures)
	}
	var text strings.Builder
	r.print(&text)
	for _, want := range []string{"ExecContext", "900.00", "9.00", "at most 700", "unexpected EOF"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}

	var lines []map[string]any
	for _, l := range r.lines() {
		data, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		line := make(map[string]any)
		if err := json.Unmarshal(data, &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	for key, want := range map[string]any{
		"bench": "sql", "figure": "ns", "operation": "ExecContext", "goroutines": 64.0, "connections": 64.0,
		"ours_value": 900.0, "peer": "database/sql", "peer_value": 100.0, "ratio_is": "ours/peer", "ratio": 9.0,
		"pairs": 5.0, "bound": 700.0, "bound_is": moreAtMost, "status": "missed",
	} {
		if lines[0][key] != want {
			t.Errorf("%s is %v, want %v", key, lines[0][key], want)
		}
	}
	if _, ok := lines[2]["ratio"]; ok || lines[2]["why"] != "unexpected EOF" {
		t.Errorf("what was not measured: %v", lines[2])
	}
}

func TestEveryFigureOfSQLIsMeasured(t *testing.T) {
	r := new(sqlReport)
	for _, o := range sqlOperations {
		r.measureCost(o, plainSQL, 2, 5)
	}
	synctest.Test(t, func(t *testing.T) {
		r.measureStarved()
		r.measureWaits(sqlCase{Goroutines: 64, Connections: 8}, 5)
	})
	want := []string{
		sqlNanos, sqlAllocs, sqlNanos, sqlAllocs, sqlNanos, sqlAllocs, sqlAgain,
		sqlDials, sqlWaitP99, sqlWaitP99,
	}
	for i, f := range r.figures {
		if i >= len(want) || f.Figure != want[i] || f.Why != "" {
			t.Fatalf("the figure %d is %+v, want %s", i, f, want)
		}
		if f.Status != statusOK && f.Figure != sqlNanos { // a matter of the machine
			t.Errorf("%+v", f)
		}
	}
	if len(r.figures) != len(want) {
		t.Errorf("%d figures, want %d", len(r.figures), len(want))
	}
}

func TestWhatCannotBeMeasuredOfSQLIsMissed(t *testing.T) {
	defer func(old sqlEntry) { oursSQL = old }(oursSQL)
	oursSQL.open = func(d *memoryDriver, connections int) *sql.DB {
		db := plainSQL.open(d, connections)
		db.Close()
		return db
	}
	r := new(sqlReport)
	r.measureCost(sqlExec, plainSQL, 1, 5)
	r.measureWaits(sqlCase{Goroutines: 2, Connections: 1}, 5)
	r.measureStarved()
	for _, f := range r.figures {
		if f.Status != statusMissed || f.Why == "" {
			t.Errorf("%+v", f)
		}
	}
}
