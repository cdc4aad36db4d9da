package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/servers"
)

// watched starts the service, with all its scenes, and a Prometheus that scrapes it and has
// the rules, 60 times as fast.
func watched(t *testing.T) (p *watcher, address string) {
	t.Helper()
	needPrometheus(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	quick := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(quick, []byte(quicker(read(t, "rules.yaml"))), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options{listen: "127.0.0.1:0", scenes: scenes}
	since := time.Now()
	address = started(t, o)
	s := servers.Prometheus(t, fmt.Sprintf(`
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [%q]
scrape_configs:
  - job_name: demo
    static_configs: [{targets: [%q]}]
`, quick, address))
	return &watcher{t, s, since}, address
}

// fires says which scene has which alert.
var fires = map[string]string{
	"NatwiseSNATBudgetHigh":      "rush",
	"NatwiseSNATBudgetExhausted": "rush",
	"NatwiseSNATPortsRefused":    "rush",
	"NatwiseWaitP99High":         "rush",
	"NatwisePendingRequestsGrow": "rush",
	"NatwiseSNATPortChurn":       "churn",
	"NatwiseLowReuse":            "churn",
	"NatwiseBlackholes":          "holes",
	"NatwiseConnectionsLeaked":   "leak",
	"NatwiseDialsFail":           "down",
	"NatwiseSNATExhausted":       "shared",
	"NatwisePathDown":            "mute",
	"NatwiseBudgetDegraded":      "fleet",
}

func TestAPrometheusThatScrapesItAnswersEveryExpressionAndFiresEveryAlert(t *testing.T) {
	p, address := watched(t)
	asked := make(map[string]string) // expression: who asks
	for _, panel := range dashboard(t).allPanels() {
		for _, target := range panel.Targets {
			asked[substituted(target.Expr)] = panel.Title
		}
	}
	for _, r := range rules(t) {
		switch {
		case r.Record != "":
			asked[r.Record] = "rules.yaml"
		case r.Alert == "NatwiseHairpin": // takes a load balancer: what it asks for, of a verdict that a scene has
			asked[quicker(strings.ReplaceAll(r.Expr, "natwise.hairpin", "natwise.path_down"))] = "rules.yaml"
		case fires[r.Alert] == "":
			t.Errorf("no scene has alert %s", r.Alert)
		default:
			asked[firing(r.Alert, fires[r.Alert])] = "rules.yaml"
		}
	}
	for _, expr := range shownExpressions(t) {
		asked[quicker(expr)] = "README.md"
	}
	if len(asked) < 55 {
		t.Fatalf("only %d expressions were found", len(asked))
	}
	for tooLate := time.Now().Add(time.Minute); len(asked) > 0; time.Sleep(100 * time.Millisecond) {
		maps.DeleteFunc(asked, func(expr, _ string) bool { return slices.ContainsFunc(p.over(expr), curve.numbers) })
		if time.Now().After(tooLate) {
			break
		}
	}
	for expr, by := range asked {
		t.Errorf("%s: no answer to %s", by, expr)
	}
	t.Run("none of them where nothing is wrong", p.isCalmAbout("api", "db"))
	t.Run("the dashboard's variables", p.answersVariables)
	t.Run("promtool check metrics", func(t *testing.T) { checkMetrics(t, address) })
	t.Run("the trace of a dial as its exemplar", func(t *testing.T) { checkExemplars(t, address) })
}

// firing is what tells that an alert has fired for a scene, or for the engine that one has.
func firing(alert, scene string) string {
	return fmt.Sprintf(`ALERTS{alertname=%[1]q, alertstate="firing", network_peer_address=%[2]q}`+
		` or ALERTS{alertname=%[1]q, alertstate="firing", server_address=%[3]q}`+
		` or ALERTS{alertname=%[1]q, alertstate="firing", natwise_budget_engine="toy"}`, alert, addressOf(scene), scene+".demo")
}

// addressOf is where listen puts the server of a scene.
func addressOf(scene string) string {
	return fmt.Sprintf("127.0.0.%d", slices.Index(names(), scene)+2)
}

func (p *watcher) isCalmAbout(scenes ...string) func(*testing.T) {
	return func(t *testing.T) {
		for _, c := range p.over(`ALERTS{alertstate="firing"}`) {
			for _, s := range scenes {
				if c.Metric["network_peer_address"] == addressOf(s) || c.Metric["server_address"] == s+".demo" {
					t.Errorf("%s fired for %s", c.Metric["alertname"], s)
				}
			}
		}
	}
}

var labelValues = regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)

func (p *watcher) answersVariables(t *testing.T) {
	asked := 0
	for _, v := range dashboard(t).Templating.List {
		if v.Type != "query" {
			continue
		}
		parts := labelValues.FindStringSubmatch(v.Query.Query)
		if parts == nil {
			t.Fatalf("%s: %q", v.Name, v.Query.Query)
		}
		var values []string
		p.ask("label/"+parts[2]+"/values", &values, "match[]", substituted(parts[1]))
		if len(values) == 0 {
			t.Errorf("%s: no values of %s", v.Name, v.Query.Query)
		}
		asked++
	}
	if asked != 3 {
		t.Errorf("%d variables were asked for", asked)
	}
}

// checkMetrics has promtool look at what Prometheus is given in its classic form. One name
// it does not like is not ours to choose: db.client.connection.count is that of the
// semantic conventions.
func checkMetrics(t *testing.T, address string) {
	text := fetch(t, "http://"+address+"/metrics")
	if !strings.Contains(text, "\n# TYPE natwise_snat_port_usage gauge\n") {
		t.Fatalf("not the classic form, or no ports: %.500s", text)
	}
	said, err := promtool(t, text, "check", "metrics")
	const known = "db_client_connection_count non-histogram and non-summary metrics should not have \"_count\" suffix\n"
	if said != known {
		t.Errorf("%v: %s", err, said)
	}
}

// checkExemplars looks for the trace of a dial in what Prometheus is given in its newer form.
func checkExemplars(t *testing.T, address string) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/openmetrics-text")
	text := send(t, r)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "natwise_connection_dial_duration_seconds_bucket{") && strings.Contains(line, `trace_id="`) {
			return
		}
	}
	t.Errorf("there is none: %.2000s", text)
}

func TestPromtoolFindsNothingWrongWithTheRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		if said, err := promtool(t, "", args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

func TestEachAlertIsTestedAndSaysWhatToDo(t *testing.T) {
	tested, readme := read(t, "rules_test.yaml"), read(t, "README.md")
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if !strings.Contains(tested, "alertname: "+r.Alert+"\n        eval_time") {
			t.Errorf("%s has no test", r.Alert)
		}
		want := "https://github.com/natwise/natwise/blob/main/examples/observability/README.md#" + strings.ToLower(r.Alert)
		if got := r.Annotations["runbook_url"]; got != want {
			t.Errorf("%s: runbook_url %q, want %q", r.Alert, got, want)
		}
		if !strings.Contains(readme, "\n### "+r.Alert+"\n") {
			t.Errorf("the README has no heading %s", r.Alert)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s lacks a summary, a description or a severity", r.Alert)
		}
	}
}
