// Package archtest holds the arrows of ARCHITECTURE.md: which room may import
// which, and who may name a borrowed package.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/natwise/natwise/"

// rooms says what each room of the library may import of natwise, besides its
// own sub-packages where they are listed. A room that is missing here fails the
// test: say first where it stands.
var rooms = map[string][]string{
	"keepalive/netpath":        {},
	"keepalive":                {"keepalive/netpath"},
	"dialer/budget":            {"keepalive/netpath"},
	"dialer/budget/budgettest": {"dialer/budget", "keepalive/netpath"},
	"dialer":                   {"dialer/budget", "keepalive", "keepalive/netpath", "internal/retry", "internal/telemetry"},
	"httpx":                    {"dialer", "keepalive", "keepalive/netpath", "pool", "internal/retry", "internal/telemetry"},
	"httpx/debug":              {"dialer", "dialer/budget", "keepalive", "keepalive/netpath", "internal/telemetry"},
	"sqlx":                     {"dialer", "keepalive", "keepalive/netpath", "pool", "internal/retry", "internal/telemetry"},
	"pool":                     {"internal/retry"},
	"pool/conns":               {"dialer", "keepalive", "keepalive/netpath", "pool", "internal/telemetry"},
	"internal/leak":            {},
	"internal/terminal":        {},
	"internal/retry":           {},
	"internal/telemetry":       {},
	"internal/memnet":          {},
	"internal/fauxnat":         {"keepalive/netpath"},
	"internal/natlab":          {"keepalive/netpath"},
	"internal/servers":         {},
	"internal/archtest":        {},
	"internal/doctest":         {},
}

// mains measure or show something, and import what that takes.
var mains = []string{"examples/", "internal/natlab/"}

const otel = "go.opentelemetry.io/otel"

// borrowed says which rooms may name a package that is neither ours nor the
// standard library's.
var borrowed = map[string][]string{
	otel:                               {"internal/telemetry"},
	otel + "/attribute":                {"internal/telemetry"},
	otel + "/codes":                    {"internal/telemetry"},
	otel + "/metric":                   {"internal/telemetry", "dialer"}, // the field of the provider
	otel + "/metric/noop":              {"internal/telemetry"},
	otel + "/trace/noop":               {"internal/telemetry"},
	otel + "/semconv/v1.43.0":          {"internal/telemetry"},
	otel + "/semconv/v1.43.0/dbconv":   {"internal/telemetry"},
	otel + "/semconv/v1.43.0/httpconv": {"internal/telemetry"},
	otel + "/trace":                    {"internal/telemetry", "dialer"},
	"github.com/cenkalti/backoff/v4":   {"internal/retry"},
	"golang.org/x/net/http/httpguts":   {"httpx"},
	"golang.org/x/net/proxy":           {"dialer"},
	"golang.org/x/sys/unix":            {"keepalive", "dialer", "dialer/budget", "internal/natlab"},
	"golang.org/x/sys/windows":         {"keepalive", "dialer"},
}

// A listed package is what "go list -json" says of it.
type listed struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
}

func (p listed) room() string { return strings.TrimPrefix(p.ImportPath, module) }

// list asks the go command for every package, for one system.
func list(t *testing.T, goos string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles", module+"...")
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestEachRoomImportsOnlyWhatItMay(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		seen := 0
		for _, p := range list(t, goos) {
			if len(p.GoFiles) == 0 {
				continue // tests only
			}
			seen++
			if p.ImportPath == strings.TrimSuffix(module, "/") {
				t.Error("there is Go code at the root")
			}
			for _, imported := range p.Imports {
				if why := forbidden(p.room(), imported); why != "" {
					t.Errorf("%s: %s imports %s: %s", goos, p.room(), imported, why)
				}
			}
		}
		if seen < 8 {
			t.Errorf("%s: only %d packages were looked at", goos, seen)
		}
	}
}

// forbidden says why room may not import a package, "" if it may.
func forbidden(room, imported string) string {
	isMain := func(main string) bool { return strings.HasPrefix(room, main) }
	ours, isOurs := strings.CutPrefix(imported, module)
	if isOurs {
		may, known := rooms[room]
		switch {
		case slices.ContainsFunc(mains, isMain):
			return ""
		case !known:
			return "this room has no line in archtest"
		case !slices.Contains(may, ours):
			return "no arrow leads there"
		}
		return ""
	}
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		if !slices.Contains(borrowed[imported], room) {
			return "a borrowed package has one room"
		}
	}
	return ""
}

func TestTheArrowsAreHeld(t *testing.T) {
	for _, c := range []struct {
		room, imported string
		may            bool
	}{
		{"dialer", module + "keepalive", true},
		{"keepalive", module + "dialer", false},
		{"keepalive/netpath", module + "keepalive", false},
		{"dialer", module + "internal/fauxnat", false},
		{"httpx", module + "dialer", true},
		{"dialer", module + "httpx", false},
		{"examples/quickstart", module + "internal/fauxnat", true},
		{"internal/natlab/storm", module + "httpx", true},
		{"internal/natlab", module + "dialer", false},
		{"newroom", module + "dialer", false},
		{"internal/retry", "github.com/cenkalti/backoff/v4", true},
		{"dialer", "github.com/cenkalti/backoff/v4", false},
		{"dialer", "net/http", true},
	} {
		if why := forbidden(c.room, c.imported); (why == "") != c.may {
			t.Errorf("%s to %s: %q", c.room, c.imported, why)
		}
	}
}
