package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// A board is what is looked at of natwise.json.
type board struct {
	UID           string
	SchemaVersion int
	Tags          []string
	Timezone      string
	GraphTooltip  int
	Refresh       string
	Inputs        []any `json:"__inputs"`
	Templating    struct {
		List []struct {
			Name, Type string
			Query      definition
		}
	}
	Panels []boardPanel
}

// A definition is a string in one kind of variable, and an object in the other.
type definition struct{ Query string }

func (d *definition) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &d.Query) == nil {
		return nil
	}
	type plain definition
	return json.Unmarshal(text, (*plain)(d))
}

type boardPanel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		RefID, Expr string
		Datasource  struct{ UID string }
	}
	Panels []boardPanel // of a row that is collapsed
}

func dashboard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "natwise.json")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b board) allPanels() (all []boardPanel) {
	for _, p := range b.Panels {
		all = append(append(all, p), p.Panels...)
	}
	return all
}

// substituted is an expression as Grafana would send it with "All" for each variable.
func substituted(expr string) string {
	for variable, value := range map[string]string{
		"$job": ".*", "$instance": ".*", "$destination": ".*", "$__rate_interval": "5s",
	} {
		expr = strings.ReplaceAll(expr, variable, value)
	}
	return strings.ReplaceAll(expr, " or vector(0)", "") // which is an answer to anything
}

func TestTheDashboardIsOneThatGrafanaImportsAnywhere(t *testing.T) {
	b := dashboard(t)
	if b.UID != "natwise-ports" || b.SchemaVersion < 36 || b.Timezone != "browser" || b.GraphTooltip != 1 || b.Refresh != "30s" ||
		len(b.Tags) != 1 || b.Tags[0] != "natwise" || b.Inputs != nil {
		t.Errorf("%+v", b)
	}
	var variables, rows []string
	for _, v := range b.Templating.List {
		variables = append(variables, v.Name)
	}
	if got := strings.Join(variables, " "); got != "datasource job instance destination" {
		t.Errorf("the variables are %s", got)
	}
	for _, p := range b.Panels {
		if p.Type == "row" {
			rows = append(rows, p.Title)
		}
	}
	if got := strings.Join(rows, ", "); got != "Overview, Ports per destination, Dial and wait, HTTP and databases, Keepalive and black holes, Shared budgets" {
		t.Errorf("the rows are %s", got)
	}
}

func TestEachPanelOfTheDashboardIsComplete(t *testing.T) {
	ids := make(map[int]string)
	for _, p := range dashboard(t).allPanels() {
		if other, taken := ids[p.ID]; taken || p.ID == 0 {
			t.Errorf("%s and %s have id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s: incomplete: %+v", p.Title, p)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || target.RefID == "" {
				t.Errorf("%s: %+v", p.Title, target)
			}
			for _, must := range []string{`job=~"$job"`, `instance=~"$instance"`} {
				if strings.Count(target.Expr, must) != strings.Count(target.Expr, "{") {
					t.Errorf("%s: not every selector has %s: %s", p.Title, must, target.Expr)
				}
			}
			if ranges := strings.Count(target.Expr, "["); ranges != strings.Count(target.Expr, "[$__rate_interval]") {
				t.Errorf("%s: a range of its own: %s", p.Title, target.Expr)
			}
		}
	}
}

func TestNoPanelOfTheDashboardCoversAnother(t *testing.T) {
	panels := dashboard(t).Panels
	for i, p := range panels {
		a := p.GridPos
		if a.W < 1 || a.H < 1 || a.X < 0 || a.X+a.W > 24 {
			t.Errorf("%s is at %+v", p.Title, a)
		}
		for _, q := range panels[:i] {
			if b := q.GridPos; a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s covers %s", p.Title, q.Title)
			}
		}
	}
}
