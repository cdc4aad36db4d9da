package telemetry_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
)

// newTold has a ledger that holds nothing, and returns what its logger is told.
func newTold() (*telemetry.Scope, *bytes.Buffer) {
	log := new(bytes.Buffer)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return telemetry.New(telemetry.Config{Name: "east", Logger: logger, Snapshot: func() telemetry.Snapshot { return telemetry.Snapshot{} }}), log
}

// stands tells how an engine stands; why is "" where it is well.
func stands(s *telemetry.Scope, name, why string) {
	s.Engines([]telemetry.Engine{{Name: name, Sharers: 8, Floor: 6, Leased: 3, Degraded: why}})
}

func wantLog(t *testing.T, log *bytes.Buffer, want ...string) {
	t.Helper()
	if got := log.String(); got != strings.Join(append(want, ""), "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	log.Reset()
}

const (
	redisDown = `level=WARN msg="natwise: the budget that is shared with others is degraded" engine=redis why="no answer for 4s" floor=6 leased=3 ledger=east`
	hostDown  = `level=WARN msg="natwise: the budget that is shared with others is degraded" engine=host why="no answer for 4s" floor=6 leased=3 ledger=east`
	redisUp   = `level=INFO msg="natwise: the budget that is shared with others is as it should be again" engine=redis after=42s floor=6 leased=3 ledger=east`
)

func TestADegradedEngineIsWarnedOfAndItsRecoveryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newTold()
		stands(s, "redis", "")
		wantLog(t, log)
		for range 42 { // it signals more than once
			stands(s, "redis", "no answer for 4s")
			time.Sleep(time.Second)
		}
		stands(s, "host", "no answer for 4s")
		wantLog(t, log, redisDown, hostDown)
		stands(s, "redis", "")
		stands(s, "redis", "")
		wantLog(t, log, redisUp)
		var kept []string
		for _, r := range s.Records() {
			kept = append(kept, r.Kind+" "+r.About)
		}
		if got := strings.Join(kept, ", "); got != "degraded redis, degraded host, recovered redis" {
			t.Errorf("kept for the page: %s", got)
		}
	})
}

// However often it comes and goes, what was told last is right within a minute.
func TestAnEngineThatComesAndGoesIsToldOfOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newTold()
		for range 30 {
			stands(s, "redis", "no answer for 4s")
			time.Sleep(time.Second)
			stands(s, "redis", "")
			time.Sleep(time.Second)
		}
		first := strings.Replace(redisUp, "42s", "1s", 1)
		wantLog(t, log, redisDown, first)
		stands(s, "redis", "no answer for 4s")
		wantLog(t, log, redisDown+" times=30")
		time.Sleep(42 * time.Second)
		stands(s, "redis", "no answer for 4s")
		wantLog(t, log)
		stands(s, "redis", "")
		wantLog(t, log, redisUp)
	})
}

func TestWithoutALoggerADegradedEngineIsKeptForThePage(t *testing.T) {
	s := newScope()
	stands(s, "redis", "no answer for 4s")
	stands(s, "redis", "")
	if n := len(s.Records()); n != 2 {
		t.Errorf("%d are kept", n)
	}
}
