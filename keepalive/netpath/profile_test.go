package netpath_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

var update = flag.Bool("update", false, "write testdata/profiles.golden anew")

// Whoever changes a number changes this file too, and sees its source beside it.
func TestTheProfilesAreThoseInTheGoldenFile(t *testing.T) {
	var got bytes.Buffer
	for p := range netpath.All() {
		fmt.Fprintf(&got, "%v\n\t%s (%v)\n", p, p.Source, p.Grade)
		for _, c := range p.Cites {
			fmt.Fprintf(&got, "\t%s: %s (%v)\n", c.Field, c.Source, c.Grade)
		}
	}
	const golden = "testdata/profiles.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the profiles differ from %s; look at the difference, then run with -update", golden)
	}
}

func TestEveryProfileIsValidAndSaysWhereItComesFrom(t *testing.T) {
	fields := map[string]bool{
		"Idle": true, "AtIdle": true, "Counts": true, "Limits[0]": true, "Limits[1]": true,
		"Hold.FIN": true, "Hold.RST": true, "Hold.SYN": true, "Hold.Idle": true,
	}
	names := map[string]bool{}
	for p := range netpath.All() {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
		if p.Source == "" || p.Name == "" || names[p.Name] {
			t.Errorf("%v: the name must be its own and the source not empty (%q)", p, p.Source)
		}
		names[p.Name] = true
		for _, c := range p.Cites {
			if !fields[c.Field] || c.Source == "" {
				t.Errorf("%s: cite %+v", p.Name, c)
			}
		}
	}
}

func TestAnApplicationProxyDoesNotCountProbesAndTakesNoPorts(t *testing.T) {
	for p := range netpath.All() {
		if p.AtIdle != netpath.Close {
			continue
		}
		if p.Counts == netpath.Segments {
			t.Errorf("%s counts segments", p.Name)
		}
		none := netpath.Hold{FIN: netpath.None, RST: netpath.None, SYN: netpath.None, Idle: netpath.None}
		if p.Hold != none || p.Limits != nil {
			t.Errorf("%s takes ports: %v", p.Name, p)
		}
	}
}

func TestCiteFallsBackToTheProfile(t *testing.T) {
	p := netpath.AzureAppService()
	if source, grade := p.Cite("Idle"); source != p.Source || grade != netpath.Documented {
		t.Errorf("Idle: %q, %v", source, grade)
	}
	if _, grade := p.Cite("Hold.SYN"); grade != netpath.Assumed {
		t.Errorf("Hold.SYN: %v", grade)
	}
}

func TestNobodysNumberIsNotThePagesNumber(t *testing.T) {
	p := netpath.AzureNATGateway(1)
	if source, grade := p.Cite("Hold.Idle"); source == p.Source || grade != netpath.Assumed {
		t.Errorf("got %q, %v", source, grade)
	}
}

func TestEffectiveDoesNotAllocate(t *testing.T) {
	p := netpath.AzureAppService()
	if n := testing.AllocsPerRun(100, func() { p = p.Effective() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOurPartOfALimitLeavesATenthAndIsAtLeastOne(t *testing.T) {
	const s = netpath.Destination
	tests := []struct {
		sharers int
		limits  []netpath.Limit
		want    int
	}{
		{0, nil, netpath.None},
		{0, []netpath.Limit{{s, 128}}, 128},
		{1, []netpath.Limit{{s, 128}}, 128},
		{2, []netpath.Limit{{s, 128}}, 57},
		{4, []netpath.Limit{{s, 1000}}, 225},
		{500, []netpath.Limit{{s, 128}}, 1},
		{2, []netpath.Limit{{s, netpath.None}}, netpath.None},
		{0, []netpath.Limit{{s, 300}, {s, netpath.None}, {s, 200}}, 200},
		{0, []netpath.Limit{{netpath.Sockets, 600}}, netpath.None},
	}
	for _, tt := range tests {
		p := netpath.Profile{Limits: tt.limits, Sharers: tt.sharers}
		if got := p.Limit(s); got != tt.want {
			t.Errorf("%v shared by %d: got %d, want %d", tt.limits, tt.sharers, got, tt.want)
		}
	}
}

func TestTheZeroProfileMeansUnknown(t *testing.T) {
	got, want := netpath.Profile{}.Effective(), netpath.Unknown()
	if got.Idle != want.Idle || got.Hold != want.Hold || len(got.Exempt) != len(want.Exempt) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEffectiveKeepsWhatIsKnown(t *testing.T) {
	p := netpath.Profile{Idle: netpath.None, Hold: netpath.Hold{RST: 15 * time.Second}}.Effective()
	if p.Idle != netpath.None || p.Hold.RST != 15*time.Second || p.Hold.FIN != 240*time.Second {
		t.Errorf("got %v", p)
	}
}

func TestValidateNamesTheFieldAndItsValue(t *testing.T) {
	const bad = -2 * time.Second
	tests := []struct {
		field, value string
		path         netpath.Profile
	}{
		{"Limits[1].Scope", "Scope(9)", netpath.Profile{Limits: []netpath.Limit{{netpath.Sockets, 1}, {9, 1}}}},
		{"Limits[0].N", "0", netpath.Profile{Limits: []netpath.Limit{{netpath.Destination, 0}}}},
		{"Limits[0].N", "-50000", netpath.AzureNATGateway(-1)},
		{"Sharers", "-1", netpath.Profile{Sharers: -1}},
		{"Idle", "-2s", netpath.Profile{Idle: bad}},
		{"Hold.FIN", "-2s", netpath.Profile{Hold: netpath.Hold{FIN: bad}}},
		{"Hold.RST", "-2s", netpath.Profile{Hold: netpath.Hold{RST: bad}}},
		{"Hold.SYN", "-2s", netpath.Profile{Hold: netpath.Hold{SYN: bad}}},
		{"Hold.Idle", "-2s", netpath.Profile{Hold: netpath.Hold{Idle: bad}}},
		{"Drain", "-2s", netpath.Profile{Drain: bad}},
		{"AtIdle", "4", netpath.Profile{AtIdle: 4}},
		{"Counts", "3", netpath.Profile{Counts: 3}},
		{"Grade", "5", netpath.Profile{Grade: 5}},
		{"Exempt[0]", "invalid Prefix", netpath.Profile{Exempt: []netip.Prefix{{}}}},
	}
	for _, tt := range tests {
		tt.path.Name = "mine"
		err := tt.path.Validate()
		if err == nil {
			t.Errorf("%s: no error", tt.field)
			continue
		}
		want := fmt.Sprintf(`netpath: profile "mine": %s is %s, want `, tt.field, tt.value)
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %q, want it to begin %q", err, want)
		}
	}
	if err := (netpath.Profile{Idle: netpath.None, Drain: netpath.None}).Validate(); err != nil {
		t.Errorf("None must be allowed: %v", err)
	}
}

func TestWordsForTheKinds(t *testing.T) {
	tests := []struct {
		v    fmt.Stringer
		want string
	}{
		{netpath.Destination, "destination"},
		{netpath.SourceDestination, "source and destination"},
		{netpath.AllPorts, "all ports"},
		{netpath.Sockets, "sockets"},
		{netpath.Drop, "drop"},
		{netpath.ResetNext, "reset next"},
		{netpath.ResetBoth, "reset both"},
		{netpath.Close, "close"},
		{netpath.Segments, "segments"},
		{netpath.Bytes, "bytes"},
		{netpath.Requests, "requests"},
		{netpath.Assumed, "assumed"},
		{netpath.Reported, "reported"},
		{netpath.Learned, "learned"},
		{netpath.Measured, "measured"},
		{netpath.Documented, "documented"},
		{netpath.Traffic(7), "Traffic(7)"},
	}
	for _, tt := range tests {
		if got := tt.v.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
