package main

import (
	"strings"
	"testing"
	"time"
)

func TestALiarIsBelievedOnce(t *testing.T) {
	t.Parallel()
	v := played(t, lyingProxy(lie{before: 300 * time.Millisecond, lasts: 3500 * time.Millisecond, after: 500 * time.Millisecond}), loopback())
	standard, ours := v.Clients[0], v.Clients[1]
	if v.Status != "ok" || ours.Failed != 1 || ours.Astray != 1 || ours.FlowsOpened != 2 {
		t.Errorf("%s: %s: natwise: %+v, %+v", v.Status, v.Bound, ours, ours.Trouble)
	}
	if standard.Failed < 2 || standard.AstraySeconds <= ours.AstraySeconds {
		t.Errorf("http.DefaultTransport: %+v, %+v", standard, standard.Trouble)
	}
	if got := liedTo(v); !strings.Contains(got, "natwise lost one: ") {
		t.Errorf("the screen says %q", got)
	}
}

func TestOnHTTP1ALiarCostsEitherClientARequestForEachConnection(t *testing.T) {
	t.Parallel()
	s := lyingProxy(lie{before: 300 * time.Millisecond, lasts: 2 * time.Second})
	s.secure = false
	for _, r := range played(t, s, loopback()).Clients {
		if r.Failed != 1 || r.Astray != 1 {
			t.Errorf("%s: %+v, %+v", r.Name, r, r.Trouble)
		}
	}
}

func TestToBelieveALiarTwiceIsMissed(t *testing.T) {
	peer := result{Name: "http.DefaultTransport", Trouble: &Trouble{Astray: 1}}
	mine := result{Name: natwise, Failed: 2, Trouble: &Trouble{Astray: 1}}
	got := lyingProxy(lie{}).missed(verdict{Clients: []result{peer, mine}}, nil)
	if len(got) != 1 || got[0] != "natwise: failed 2, want at most 1 (the first: <nil>)" {
		t.Errorf("got %q", got)
	}
}
