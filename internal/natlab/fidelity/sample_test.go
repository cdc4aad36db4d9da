package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
)

var (
	here  = netip.MustParseAddrPort("10.78.1.2:1000")
	there = netip.MustParseAddrPort("198.51.100.1:80")
)

func open(left time.Duration) natlab.Flow {
	return natlab.Flow{Source: here, Dest: there, Left: left}
}

func TestWhatIsMissing(t *testing.T) {
	elsewhere := netip.MustParseAddrPort("198.51.100.2:80")
	for _, c := range []struct {
		what    string
		gateway natlab.Flow
		ledger  []dialer.Flow
		missing int
	}{
		{"nobody booked it", open(time.Second), nil, 1},
		{"booked", open(time.Second), []dialer.Flow{{Local: here, Remote: there}}, 0},
		{"booked to another destination", open(time.Second), []dialer.Flow{{Local: here, Remote: elsewhere}}, 1},
		{"being dialed", open(time.Second), []dialer.Flow{{Remote: there, State: dialer.Dialing}}, 0},
		{"only asked for", open(time.Second), []dialer.Flow{{Remote: there, State: dialer.Asked}}, 1},
		{"over since", open(3 * time.Millisecond), nil, 0},
		{"over soon", open(15 * time.Millisecond), nil, 1},
	} {
		s := sample{gateway: []natlab.Flow{c.gateway}, ledger: c.ledger, took: time.Millisecond}
		if got := len(s.missing()); got != c.missing {
			t.Errorf("%s: %d missing, want %d", c.what, got, c.missing)
		}
	}
}

func TestOneDialUnderWayCoversOneFlow(t *testing.T) {
	two := []natlab.Flow{open(time.Second), open(time.Second)}
	s := sample{gateway: two, ledger: []dialer.Flow{{Remote: there, State: dialer.Dialing}}}
	if got := len(s.missing()); got != 1 {
		t.Errorf("%d missing, want 1", got)
	}
	if s.most() != 2 {
		t.Errorf("%d live", s.most())
	}
}

func TestLatenessIsTheLastWordOfBoth(t *testing.T) {
	now := time.Now()
	w := newFollower()
	cooling := dialer.Flow{Local: here, Remote: there, State: dialer.Cooling, How: keepalive.RSTByUs}
	w.add(sample{gateway: []natlab.Flow{open(16 * time.Second)}, gatewayAt: now})
	cooling.Free = 1520 * time.Millisecond
	w.add(sample{gateway: []natlab.Flow{open(1500 * time.Millisecond)}, ledger: []dialer.Flow{cooling}, gatewayAt: now, ledgerAt: now})
	got := w.lateness()
	if len(got) != 1 || got[0] != (Lateness{"rst-by-us", 1, 20, 20, 20}) {
		t.Errorf("%+v", got)
	}
}

func TestAFailedDialIsFoundByItsDestination(t *testing.T) {
	now := time.Now()
	w := newFollower()
	failed := dialer.Flow{Remote: there, State: dialer.Cooling, How: keepalive.Refused, Free: 30 * time.Millisecond}
	w.add(sample{gateway: []natlab.Flow{open(20 * time.Millisecond)}, ledger: []dialer.Flow{failed}, gatewayAt: now, ledgerAt: now})
	got := w.lateness()
	if len(got) != 1 || got[0] != (Lateness{"refused", 1, 10, 10, 10}) {
		t.Errorf("%+v", got)
	}
}
