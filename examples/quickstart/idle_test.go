package main

import (
	"strings"
	"testing"
)

func TestOnAPathThatForgetsNatwiseLosesNothing(t *testing.T) {
	v := playedInMemory(t, idle(visits{times: 4, atOnce: 10, scale: 1})) // in the time that it really takes
	if v.Status != "ok" || v.TimeScale != 1 {
		t.Fatalf("got %+v", v)
	}
	leak, standard, ours := v.Clients[0], v.Clients[1], v.Clients[2]
	if ours.Failed != 0 || ours.OK != 40 || ours.Astray != 0 || ours.FlowsOpened != 4 {
		t.Errorf("natwise: %+v, %+v", ours, ours.Trouble)
	}
	if standard.OK != 10 || standard.Failed != 30 || standard.Astray == 0 {
		t.Errorf("http.DefaultTransport: %+v, %+v", standard, standard.Trouble)
	}
	if leak.Failed != 0 || leak.FlowsOpened != 40 {
		t.Errorf("a client per request: %+v, %+v", leak, leak.Trouble)
	}
	if got := forgotten(v); !strings.Contains(got, "30 of its 40 requests got no answer") || !strings.Contains(got, "and opened 4 flows: none lost") {
		t.Errorf("the screen says %q", got)
	}
}

func TestTheScaleOfTheIdleSceneChangesNothing(t *testing.T) {
	v := playedInMemory(t, idle(visits{times: 4, atOnce: 10}))
	if v.Status != "ok" || v.TimeScale != 30 || v.Path != "azure-app-service + inspecting-firewall" {
		t.Fatalf("got %+v", v)
	}
	if standard, ours := v.Clients[1], v.Clients[2]; standard.Failed != 30 || ours.FlowsOpened != 4 {
		t.Errorf("http.DefaultTransport: %+v, natwise: %+v", standard, ours)
	}
}

func TestWhatThePathForgotIsMissedOfNatwise(t *testing.T) {
	s := idle(visits{times: 3, atOnce: 2})
	s.clients = []client{{natwise, "that knows nothing", defaultTransport}}
	v := playedInMemory(t, s)
	if v.Status != "missed" || !strings.Contains(v.Bound, "natwise: failed 4, want 0") || !strings.Contains(v.Bound, "natwise: astray ") {
		t.Errorf("%s: %s", v.Status, v.Bound)
	}
}

func TestWithoutTheFirewallNothingIsForgotten(t *testing.T) {
	s := idle(visits{times: 4, atOnce: 10, scale: 1})
	s.path = appService(1) // remembers for longer than http.DefaultTransport keeps what is idle
	v := playedInMemory(t, s)
	if n := v.ours().FlowsOpened; n != 1 { // the path counts its probes
		t.Errorf("natwise did not keep its connection, but opened %d", n)
	}
	for _, r := range v.Clients {
		if r.Failed != 0 || r.Astray != 0 {
			t.Errorf("%s: %+v, %+v", r.Name, r, r.Trouble)
		}
	}
}
