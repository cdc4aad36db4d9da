package telemetry_test

import (
	"os"
	"testing"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/telemetry"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// newScope has a ledger that holds nothing.
func newScope() *telemetry.Scope {
	return telemetry.New(telemetry.Config{Snapshot: func() telemetry.Snapshot { return telemetry.Snapshot{} }})
}
