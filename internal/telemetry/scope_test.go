package telemetry_test

import (
	"runtime/debug"
	"testing"

	"github.com/natwise/natwise/internal/telemetry"
)

func TestTheVersionIsThatOfNatwiseAndNotOfItsProgram(t *testing.T) {
	const natwise = "github.com/natwise/natwise"
	for want, program := range map[string]debug.BuildInfo{
		"v0.7.1":  {Main: debug.Module{Path: "example.com/shop", Version: "v2.0.0"}, Deps: []*debug.Module{{Path: natwise + "/x", Version: "v3.0.0"}, {Path: natwise, Version: "v0.7.1"}}},
		"(devel)": {Main: debug.Module{Path: natwise, Version: "(devel)"}},
		"":        {Main: debug.Module{Path: "example.com/shop", Version: "v2.0.0"}},
	} {
		if got := telemetry.VersionIn(&program); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
