package main

import (
	"strings"
	"testing"
	"time"
)

func TestNatwiseDoesWhatExhaustsTheOthers(t *testing.T) {
	v := mustRun(t, "-json", "-requests", "300", "-concurrency", "150", "-service", "10ms")
	leak, standard, ours := v.Clients[0], v.Clients[1], v.Clients[2]
	if leak.Failed == 0 || leak.RefusedSYN == 0 || leak.PeakPorts != 128 {
		t.Errorf("a client per request was not exhausted: %+v", leak)
	}
	if standard.RefusedSYN == 0 || standard.PeakPorts != 128 {
		t.Errorf("http.DefaultTransport was not exhausted: %+v", standard)
	}
	if ours.Failed != 0 || ours.RefusedSYN != 0 || ours.PeakPorts > 128 || ours.OK != 300 {
		t.Errorf("natwise: %+v", ours)
	}
}

func TestWhatTheFlagsMayAskForEndsInTime(t *testing.T) {
	for _, w := range []work{
		{requests: 1, concurrency: 1000, service: 10 * time.Second, ports: 128},
		{requests: 20000, concurrency: 1000, service: 60 * time.Millisecond, ports: 128},
		{requests: 1200, concurrency: 100, service: 833 * time.Millisecond, ports: 128},
	} {
		if err := w.check(); err != nil {
			t.Error(err)
		}
		w.concurrency = min(w.concurrency, w.requests)
		if best := time.Duration(w.waves()) * w.ideal(); best > patience/2 || w.timeout() <= w.ideal() {
			t.Errorf("%+v: %v at best, %v a request", w, best, w.timeout())
		}
	}
}

func TestWhatHappenedIsWhatTheNumbersSay(t *testing.T) {
	other := func(failed, dropped int) result {
		return result{Name: "other", Requests: 1200, OK: 1200 - failed, Failed: failed, RefusedSYN: dropped, FlowsOpened: 128}
	}
	ours := result{Name: natwise, Requests: 1200, OK: 1200, FlowsOpened: 100}
	for _, c := range []struct {
		other result
		want  string
	}{
		{other(1000, 3000), "Of 1,200 requests, other lost 1,000: the NAT had no port left and dropped 3,000 SYNs."},
		{other(0, 3000), "costs time, not requests"},
		{other(0, 0), "no SYN was dropped and no request failed, so this run shows no difference"},
		{other(7, 0), "other lost 7, but not for want of ports"},
	} {
		if got := exhausted(verdict{Status: "ok", Limit: 128, Clients: []result{c.other, ours}}); !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
