package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/natwise/natwise/internal/doctest"
)

func TestWhatTheDocumentationShowsCompiles(t *testing.T) { doctest.Check(t) }

var blocks = regexp.MustCompile("(?ms)^```(yaml|json)\n(.*?)^```$")

func TestWhatTheREADMEShowsAsYAMLOrJSONIs(t *testing.T) {
	seen := make(map[string]int)
	for _, b := range blocks.FindAllStringSubmatch(read(t, "README.md"), -1) {
		kind, text := b[1], b[2]
		seen[kind]++
		decoded := make(map[string]any)
		decode := yaml.Unmarshal
		if kind == "json" {
			decode = json.Unmarshal
		}
		if err := decode([]byte(text), &decoded); err != nil || len(decoded) == 0 {
			t.Errorf("%s (error %v):\n%s", kind, err, text)
		}
	}
	if seen["yaml"] != 4 || seen["json"] != 1 {
		t.Errorf("found %v", seen)
	}
}

var anchors = regexp.MustCompile(`\]\(#([a-z]+)\)`)

func TestLinksWithinTheREADMELeadSomewhere(t *testing.T) {
	readme := read(t, "README.md")
	lower := strings.ToLower(readme)
	found := anchors.FindAllStringSubmatch(readme, -1)
	for _, a := range found {
		if !strings.Contains(lower, "\n### "+a[1]+"\n") {
			t.Errorf("no heading for #%s", a[1])
		}
	}
	if len(found) < 3 {
		t.Errorf("only %d links were found", len(found))
	}
}

var inline = regexp.MustCompile("`(sum\\([^`]*)`")

// shownExpressions are those of the README's table.
func shownExpressions(t *testing.T) (exprs []string) {
	for _, e := range inline.FindAllStringSubmatch(read(t, "README.md"), -1) {
		exprs = append(exprs, e[1])
	}
	return exprs
}
