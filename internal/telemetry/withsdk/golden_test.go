package withsdk_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
)

var update = flag.Bool("update", false, "write ../metrics.md")

const golden = "../metrics.md"

// TestWhatIsEmitted has natwise do everything once, and holds what comes of it against the
// list for people, the semantic conventions, and Prometheus.
func TestWhatIsEmitted(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, for a black hole")
	}
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	l := newLens(t, exporter)
	by := &notary{MeterProvider: l.meters}
	l.through = by
	seen := make(census)
	spans := make(spanCensus)
	families := make(map[string]*dto.MetricFamily) // by name, as they were seen last
	everything(l, func() {
		r := l.read()
		r.sane()
		seen.add(r)
		scraped, err := registry.Gather()
		if err != nil {
			t.Error(err)
		}
		for _, f := range scraped {
			families[f.GetName()] = f
		}
	})
	for _, s := range l.spans.Ended() {
		spans.add(s)
	}
	scraped := slices.Collect(maps.Values(families))
	t.Run("is as the list says", func(t *testing.T) {
		page := document(t, seen, by.made, spans, scraped)
		if *update {
			if err := os.WriteFile(golden, page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(page, want) {
			t.Errorf("%s is not what is emitted (-update writes it):\n%s", golden, differences(string(want), string(page)))
		}
	})
	t.Run("has every instrument", func(t *testing.T) {
		for name := range by.made {
			if seen[name] == nil {
				t.Errorf("%s is made, and nothing was ever seen of it", name)
			}
		}
	})
	t.Run("is named as the conventions have it", func(t *testing.T) { conventional(t, by.made) })
	t.Run("passes promtool", func(t *testing.T) { promtool(t, scraped) })
}

// differences are the lines that only one of two texts has.
func differences(was, is string) string {
	var b strings.Builder
	a, c := strings.Split(was, "\n"), strings.Split(is, "\n")
	for _, line := range a {
		if !slices.Contains(c, line) {
			fmt.Fprintln(&b, "-", line)
		}
	}
	for _, line := range c {
		if !slices.Contains(a, line) {
			fmt.Fprintln(&b, "+", line)
		}
	}
	return b.String()
}

// A census is what was seen of each metric.
type census map[string]*emitted

type emitted struct {
	kind   string    // as far as the SDK tells
	bounds []float64 // of a histogram
	points map[string]point
}

func (c census) add(r reading) {
	for _, s := range r.scopes {
		for _, m := range s.Metrics {
			if c[m.Name] == nil {
				c[m.Name] = &emitted{points: make(map[string]point)}
			}
			is := c[m.Name]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				if is.kind = "UpDownCounter"; data.IsMonotonic {
					is.kind = "Counter"
				}
			case metricdata.Gauge[float64]:
				is.kind = "Gauge"
			case metricdata.Histogram[float64]:
				is.kind, is.bounds = "Histogram", data.DataPoints[0].Bounds
			}
			for _, p := range pointsOf(r.t, m) {
				is.points[p.attrs.Encoded(encoder)] = p
			}
		}
	}
}

// enums are attributes with few values, all of which are listed.
var enums = []string{
	"natwise.snat.port.state", "natwise.snat.port.outcome", "natwise.connection.close.reason",
	"natwise.keepalive.type", "natwise.keepalive.outcome",
	"natwise.budget.engine", "natwise.budget.lease.state", "natwise.budget.lease.outcome",
	"http.connection.state", "db.client.connection.state", "url.scheme", "network.transport", "error.type",
}

// values are those that points have of an attribute.
func (m *emitted) values(key string) map[string]bool {
	values := make(map[string]bool)
	for _, p := range m.points {
		if v, ok := byKey(p.attrs.ToSlice())[key]; ok {
			values[v] = true
		}
	}
	return values
}

// attributes lists those of all points, those that some have not in brackets.
func (m *emitted) attributes() string {
	values := make(map[string]map[string]bool)
	times := make(map[string]int)
	for _, p := range m.points {
		for key, value := range byKey(p.attrs.ToSlice()) {
			if values[key] == nil {
				values[key] = make(map[string]bool)
			}
			values[key][value] = true
			times[key]++
		}
	}
	var all []string
	for _, key := range keysOf(values) {
		s := "`" + key + "`"
		if slices.Contains(enums, key) {
			s += " " + strings.Join(keysOf(values[key]), " ")
		}
		if times[key] < len(m.points) {
			s = "(" + s + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

// A spanCensus is what was seen of spans, by what they are called without what they are
// called after.
type spanCensus map[string]*spanKind

type spanKind struct {
	spans, errors int
	root, linked  int
	attrs, below  map[string]int
	events        map[string]int
}

// called is a span's name with what it is about replaced by what that is.
func called(s sdktrace.ReadOnlySpan) string {
	what, about, ok := cutLast(s.Name())
	switch {
	case !ok:
		return s.Name()
	case strings.HasPrefix(what, "DB "):
		return what + " {pool}"
	case what == "socket connect":
		return what + " {address}:{port}"
	case hostPort.MatchString(about):
		return what + " {host}:{port}"
	}
	return what + " {host}"
}

var hostPort = regexp.MustCompile(`:\d+$`)

func cutLast(name string) (before, after string, ok bool) {
	i := strings.LastIndexByte(name, ' ')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// callers is what the tests call the spans that are the caller's own.
const callers = "the caller's span"

func (c spanCensus) add(s sdktrace.ReadOnlySpan) {
	name := called(s)
	if s.InstrumentationScope().Name == "the caller" {
		name = callers
	}
	k := c[name]
	if k == nil {
		k = &spanKind{attrs: make(map[string]int), below: make(map[string]int), events: make(map[string]int)}
		c[name] = k
	}
	k.spans++
	if !s.Parent().IsValid() {
		k.root++
	}
	if len(s.Links()) > 0 {
		k.linked++
	}
	if s.Status().Description != "" {
		k.errors++
	}
	for key := range byKey(s.Attributes()) {
		k.attrs[key]++
	}
	for _, e := range s.Events() {
		for key := range byKey(e.Attributes) {
			k.events["`"+e.Name+"` with `"+key+"`"]++
		}
	}
}

func (k *spanKind) attributes() string {
	var all []string
	for _, key := range keysOf(k.attrs) {
		if k.attrs[key] < k.spans {
			all = append(all, "(`"+key+"`)")
		} else {
			all = append(all, "`"+key+"`")
		}
	}
	return strings.Join(all, ", ")
}

func (k *spanKind) place(name string) string {
	switch {
	case name == callers:
		return "linked to the setup of each connection that has served it"
	case k.root == k.spans && k.linked > 0:
		return "root, linked to the span of whoever wanted it"
	case k.root == k.spans:
		return "root"
	case strings.Contains(name, "wait_for_connection"):
		return "below the caller's, if that is recorded"
	}
	return "below the setup"
}

// document is the page for people.
func document(t *testing.T, seen census, made map[string]instrument, spans spanCensus, scraped []*dto.MetricFamily) []byte {
	var b bytes.Buffer
	io.WriteString(&b, `# What natwise tells OpenTelemetry

Each line was seen: a test has natwise do everything that it has a name for, and compares.
`+"`go -C internal/telemetry/withsdk test . -run TestWhatIsEmitted -update`"+` writes this page.

An attribute in brackets is not on every point. At most 256 destinations have series of their
own, the rest has `+"`network.peer.address` `_OTHER`"+` together; names likewise. An account of all
destinations together, where a path has one, has `+"`network.transport`"+` alone. A ledger that has a
name has it as `+"`natwise.ledger.name`"+`, an attribute of the instrumentation scope. Several without
one at one provider are one together; only the utilization is that of whichever is asked last.

Of more than 256 destinations the one that was of interest longest ago makes way, and its counts
go to `+"`_OTHER`"+`: all together stay right, and never fall. But the rate of all together is too high
where so many come and go, since what moves is counted once more.

## Metrics

| name | kind | unit | attributes | in Prometheus | what |
|--|--|--|--|--|--|
`)
	for _, name := range keysOf(seen) {
		m, i := seen[name], made[name]
		if !strings.HasSuffix(i.kind, m.kind) {
			t.Errorf("%s is a %s, and was made as %q", name, m.kind, i.kind)
		}
		kind := i.kind
		if len(m.bounds) > 0 {
			kind += " " + strings.ReplaceAll(strings.Trim(fmt.Sprint(m.bounds), "[]"), "0.", ".")
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | `%s` | %s |\n", name, kind, i.unit, m.attributes(), spelling(t, scraped, name), i.what)
	}
	io.WriteString(&b, `
`+"`db.client.connection.wait_time`"+` is described in the conventions' words. Here it has those only that did
wait, as `+"`natwise.connection.wait.duration`"+` has: its mean is not that of all. `+"`db.client.connection.idle.max`"+`
is the same as `+"`max`"+`, since all connections of a pool may be idle.

## Spans

All are of kind INTERNAL. A span that failed has the status Error and `+"`error.type`"+`.

| name | place | attributes | events |
|--|--|--|--|
`)
	for _, name := range slices.SortedFunc(maps.Keys(spans), func(a, b string) int { return strings.Compare(key(a), key(b)) }) {
		k := spans[name]
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, k.place(name), k.attributes(), strings.Join(keysOf(k.events), ", "))
	}
	io.WriteString(&b, errorsOfOurOwn)
	for name := range seen[dials].values("error.type") {
		if strings.HasPrefix(name, "natwise.") && !strings.Contains(errorsOfOurOwn, "`"+name+"`") {
			t.Errorf("error.type %s is not explained", name)
		}
	}
	return b.Bytes()
}

const dials = "natwise.connection.dial.duration"

// errorsOfOurOwn is what nobody but natwise knows.
const errorsOfOurOwn = `
## Errors

What the system or the conventions have a name for is called so: ` + "`connection_refused`, `name_resolution`, `host_unreachable`, `timed_out`" + `. These are natwise's
own; those of dials are verdicts of package dialer:

| ` + "`error.type`" + ` | of | means |
|--|--|--|
| ` + "`natwise.budget_exhausted`" + ` | waits | No port of those that the ledger may use came free in time. |
| ` + "`natwise.wait_timeout`" + ` | waits | The pool is as large as it may be, and none of its connections came free in time. |
| ` + "`natwise.exhausted`" + ` | dials | The NAT had no port left, though the ledger knew of one: others use them, or the limit is not known. The dial waits then, as those do that know. |
| ` + "`natwise.hairpin`" + ` | dials | A load balancer maps the flow back to this host. |
| ` + "`natwise.path_down`" + ` | dials | Packets vanish, and not for want of ports. |
| ` + "`natwise.local_ports`" + ` | dials | This machine has no local port left. |
| ` + "`natwise.blackhole`" + ` | exchanges | The connection was found dead, its packets vanish. |

A ` + "`connection_setup`" + ` that failed because a dial did has its verdict as ` + "`natwise.verdict`" + `: exhausted, hairpin, path-down,
peer-down, unreachable, local-ports, dns or unknown.
`

// key sorts the caller's own span to the end.
func key(name string) string {
	if name == callers {
		return "~"
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, "HTTP "), "DB ") + name
}

// spelling is what Prometheus calls a metric.
func spelling(t *testing.T, scraped []*dto.MetricFamily, name string) (found string) {
	stem := strings.ReplaceAll(name, ".", "_")
	for _, f := range scraped {
		if rest, ok := strings.CutPrefix(f.GetName(), stem); ok && slices.Contains([]string{"", "_total", "_seconds", "_ratio"}, rest) {
			found = f.GetName()
		}
	}
	if found == "" {
		t.Errorf("Prometheus has nothing of %s", name)
	}
	return found
}

// A convention is what a package of the semantic conventions says of a metric.
type convention interface {
	Name() string
	Unit() string
	Description() string
}

func conventional(t *testing.T, made map[string]instrument) {
	kinds := map[convention]string{
		httpconv.ClientOpenConnections{}:         "observable UpDownCounter",
		httpconv.ClientActiveRequests{}:          "observable UpDownCounter",
		httpconv.ClientConnectionDuration{}:      "Histogram",
		dbconv.ClientConnectionCount{}:           "observable UpDownCounter",
		dbconv.ClientConnectionIdleMax{}:         "observable UpDownCounter",
		dbconv.ClientConnectionIdleMin{}:         "observable UpDownCounter",
		dbconv.ClientConnectionMax{}:             "observable UpDownCounter",
		dbconv.ClientConnectionPendingRequests{}: "observable UpDownCounter",
		dbconv.ClientConnectionTimeouts{}:        "observable Counter",
		dbconv.ClientConnectionCreateTime{}:      "Histogram",
		dbconv.ClientConnectionWaitTime{}:        "Histogram",
		dbconv.ClientConnectionUseTime{}:         "Histogram",
	}
	named := make(map[string]bool)
	for c, kind := range kinds {
		named[c.Name()] = true
		if want := (instrument{kind, c.Unit(), c.Description()}); made[c.Name()] != want {
			t.Errorf("%s is %+v, want %+v", c.Name(), made[c.Name()], want)
		}
	}
	for name := range made {
		if !named[name] && !strings.HasPrefix(name, "natwise.") {
			t.Errorf("%s is neither natwise's nor known to this test as one of the conventions", name)
		}
	}
}

// promtool lints a scrape, as Prometheus' authors see it.
func promtool(t *testing.T, scraped []*dto.MetricFamily) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("NATWISE_LAB") == "must" {
			t.Fatal("needs promtool: apt-get install prometheus")
		}
		t.Skip("needs promtool: apt-get install prometheus")
	}
	var text bytes.Buffer
	for _, f := range scraped {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	if text.Len() == 0 {
		t.Fatal("nothing was scraped")
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = &text
	out, err := cmd.CombinedOutput()
	// The name is the semantic conventions', and has no other spelling.
	complaints := strings.Replace(string(out), `db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix`+"\n", "", 1)
	if complaints != "" || err != nil && len(out) == 0 {
		t.Errorf("promtool: %v\n%s", err, complaints)
	}
}
