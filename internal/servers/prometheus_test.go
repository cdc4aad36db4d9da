package servers_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/servers"
)

// answers tells whether an expression of PromQL has an answer.
func answers(t *testing.T, s *servers.Server, expr string) bool {
	t.Helper()
	resp, err := http.Get("http://" + s.Addr() + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status string
		Data   struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %s, %+v (error %v)", expr, resp.Status, answer, err)
	}
	return len(answer.Data.Result) > 0
}

func TestPrometheusRemembersWhatItHasScrapedAfterAKillAndARestart(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	nginx := servers.Nginx(t, `location /metrics { return 200 "one 1\n"; }`)
	s := servers.Prometheus(t, `
global: {scrape_interval: 100ms}
scrape_configs:
  - job_name: nginx
    static_configs: [{targets: ["`+nginx.Addr()+`"]}]
`)
	for since := time.Now(); !answers(t, s, "one"); time.Sleep(10 * time.Millisecond) {
		if time.Since(since) > patience {
			t.Fatal("it has scraped nothing")
		}
	}
	nginx.Kill() // nothing new from here on
	for _, again := range []func(){s.Restart, func() { s.Kill(); refused(t, s); s.Start() }} {
		again()
		if !answers(t, s, "count_over_time(one[1h])") {
			t.Error("it has forgotten")
		}
	}
}

func TestACrashedTestLeavesNoPrometheus(t *testing.T) { crash(t, servers.Prometheus(t, "")) }
