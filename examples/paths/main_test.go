package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/natwise/natwise/keepalive/netpath"
)

// The numbers themselves are in netpath's own golden file.
func TestTheTableHasALineForEachProfile(t *testing.T) {
	lines := map[string]string{}
	for line := range strings.Lines(mustRun(t)) {
		cells := strings.Fields(line)
		if len(cells) > 0 {
			lines[cells[0]] = strings.Join(cells, " ")
		}
	}
	for p := range netpath.All() {
		if lines[p.Name] == "" {
			t.Errorf("no line for %s", p.Name)
		}
	}
	for _, want := range []string{
		"azure-app-service 128 by destination 240 drop segments 240 15 ~240 - documented",
		"aws-lambda-vpc 65000 by all ports 350 reset next segments ? ? ? ? reported",
		"aws-nlb none known 350 reset next segments - - - - documented",
	} {
		name, _, _ := strings.Cut(want, " ")
		if lines[name] != want {
			t.Errorf("got %q, want %q", lines[name], want)
		}
	}
}

func TestJSONIsOneObjectALine(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(mustRun(t, "-json")), "\n")
	i := 0
	for p := range netpath.All() {
		var r row
		if err := json.Unmarshal([]byte(lines[i]), &r); err != nil {
			t.Fatal(err)
		}
		if r.Name != p.Name || r.Idle != p.Idle.Seconds() && p.Idle != netpath.None || len(r.Limits) != len(p.Limits) {
			t.Errorf("got %+v, want %v", r, p)
		}
		i++
	}
	if i != len(lines) {
		t.Errorf("%d lines for %d profiles", len(lines), i)
	}
}

func TestNoneIsMinusOneInJSON(t *testing.T) {
	var r row
	if err := json.Unmarshal([]byte(mustRun(t, "-json", "-name", "aws-alb")), &r); err != nil {
		t.Fatal(err)
	}
	if r.FIN != -1 || r.Idle != 60 || r.Drain != 0 || r.Counts != "requests" {
		t.Errorf("got %+v", r)
	}
}

func TestANameShowsTheSourceOfEachNumber(t *testing.T) {
	out := mustRun(t, "-name", "azure-functions")
	for _, want := range []string{"600 by sockets", "manage-connections", "Hold.SYN   assumed"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestAnUnknownNameIsAnErrorAndStatusOne(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run([]string{"-name", "azure-functoins"}, &out, &errs); status != 1 || out.Len() > 0 {
		t.Errorf("status %d, output %q", status, &out)
	}
	if !strings.Contains(errs.String(), `no profile "azure-functoins"`) || !strings.Contains(errs.String(), "azure-functions") {
		t.Errorf("got %q", &errs)
	}
}

func TestABadFlagIsStatusTwo(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run([]string{"-nmae", "x"}, &out, &errs); status != 2 {
		t.Errorf("status %d", status)
	}
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run(args, &out, &errs); status != 0 {
		t.Fatalf("status %d: %s", status, &errs)
	}
	return out.String()
}
