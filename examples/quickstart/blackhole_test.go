package main

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
)

func TestInABlackHoleNatwiseLosesOnlyWhatMustNotRunTwice(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no black hole on this system")
	}
	t.Parallel()
	s := blackhole(load{every: 25 * time.Millisecond, before: 300 * time.Millisecond, after: 3 * time.Second})
	lanes, err := race(t.Context(), s, loopback(), func([]*lane) {})
	if err != nil {
		t.Fatal(err)
	}
	v := newVerdict(s, lanes)
	standard, ours := v.Clients[0], v.Clients[1]
	if v.Status == "skipped" || ours.Astray != 1 || standard.Astray == 0 {
		t.Fatalf("%+v: natwise %+v, http.DefaultTransport %+v", v, ours.Trouble, standard.Trouble)
	}
	if ours.Failed != ours.Unsafe || ours.AstraySeconds >= standard.AstraySeconds {
		t.Errorf("natwise: %+v, %+v", ours, ours.Trouble)
	}
	if err := firstErr(lanes); !errors.Is(err, keepalive.ErrBlackhole) {
		t.Errorf("natwise's callers are told %v", err)
	}
	if standard.Failed <= ours.Failed || standard.Failed == standard.Unsafe {
		t.Errorf("http.DefaultTransport: %+v, %+v", standard, standard.Trouble)
	}
	if got := darkened(v); !strings.Contains(got, "sent the GETs again") {
		t.Errorf("the screen says %q", got)
	}
}

func TestWhatABlackHoleMustNotCost(t *testing.T) {
	peer := result{Name: "http.DefaultTransport", FlowsOpened: 2, Trouble: &Trouble{Astray: 1}}
	for want, mine := range map[string]result{
		"": {FlowsOpened: 3, Failed: 7, Trouble: &Trouble{Astray: 1, AstraySeconds: 3, Unsafe: 7}},
		"natwise: astray 0, want more: nothing happened to it":         {Trouble: new(Trouble)},
		"natwise: failed 2 besides 1 POSTs, want 0 (the first: <nil>)": {Failed: 3, Trouble: &Trouble{Astray: 1, Unsafe: 1}},
		"natwise: astray_seconds 3.5, want at most 3":                  {Trouble: &Trouble{Astray: 1, AstraySeconds: 3.5}},
	} {
		mine.Name = natwise
		v := verdict{Clients: []result{peer, mine}}
		if got := strings.Join(blackhole(load{}).missed(v, nil), "; "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
