package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/servers"
)

// asCommand in the environment makes this program the command that it tests.
const asCommand = "OBSERVABILITY_TEST_MAIN"

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(leak.Check(m.Run))
}

// soon is how long a test waits for what should come soon.
const soon = 10 * time.Second

// started runs the service with all its scenes until the test ends, and returns where it
// is scraped.
func started(t *testing.T, o options) (address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		r, err := o.serve(ctx, func(address string) { ready <- address })
		if err == nil && r.Status != "ok" {
			err = fmt.Errorf("%s: %s", r.Status, r.Bound)
		}
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case address = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal("it ended before it was ready")
	case <-time.After(soon):
		t.Fatal("it is not ready")
	}
	return address
}

// needPrometheus ends a test that cannot have Debian's Prometheus, and returns where its
// promtool is.
func needPrometheus(t *testing.T) (promtool string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	switch {
	case err == nil:
	case os.Getenv("NATWISE_LAB") == "must":
		t.Fatal("needs promtool: apt-get install prometheus")
	default:
		t.Skip("needs promtool: apt-get install prometheus")
	}
	return path
}

// promtool runs it, with input, and returns what it says.
func promtool(t *testing.T, input string, args ...string) (said string, err error) {
	t.Helper()
	cmd := exec.Command(needPrometheus(t), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A ruleFile is what is looked at of rules.yaml.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// rules returns those of rules.yaml, in order.
func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file ruleFile
	if err := yaml.Unmarshal([]byte(read(t, "rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

var minutes = regexp.MustCompile(`\b(\d+)m\b`)

// quicker are rules that run as many times as fast as they stand there as the demo's NAT
// does.
func quicker(rules string) string {
	if scale != 60 {
		panic("a minute is no second any more")
	}
	return minutes.ReplaceAllString(rules, "${1}s")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A watcher is a Prometheus that scrapes, and since when.
type watcher struct {
	*testing.T
	*servers.Server
	since time.Time
}

// A curve is what a query answers: the values over time of one set of labels.
type curve struct {
	Metric map[string]string
	Values [][2]any // when, and a string
}

// numbers reports whether any value is a number.
func (c curve) numbers() bool {
	for _, v := range c.Values {
		if text, ok := v[1].(string); ok && text != "NaN" {
			return true
		}
	}
	return false
}

// over answers a query for all the time that there was.
func (p *watcher) over(expr string) (curves []curve) {
	p.Helper()
	var answer struct{ Result []curve }
	p.ask("query_range", &answer, "query", expr, "step", "0.5",
		"start", seconds(p.since), "end", seconds(time.Now()))
	return answer.Result
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// ask decodes the answer of an endpoint of the API.
func (p *watcher) ask(endpoint string, data any, pairs ...string) {
	p.Helper()
	query := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		query.Add(pairs[i], pairs[i+1])
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	text := fetch(p.T, "http://"+p.Addr()+"/api/v1/"+endpoint+"?"+query.Encode())
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Status != "success" {
		p.Fatalf("%s %v: %s%s (error %v)", endpoint, query, answer.Status, answer.Error, err)
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		p.Fatalf("%s %v: %v", endpoint, query, err)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, r)
}

// send returns the body of the answer.
func send(t *testing.T, r *http.Request) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 500 {
		t.Fatalf("%s: %s (error %v)", r.URL, resp.Status, err)
	}
	return string(text)
}
