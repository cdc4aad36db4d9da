package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// TestMain is a guest where it is started as one, and fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if os.Getenv(guestEnv) != "" {
		os.Exit(beGuest(os.Stdin, os.Stdout))
	}
	os.Exit(leak.Check(func() int { return natlab.Main(m) }))
}

func needStage(t *testing.T, cfg natlab.Config) *stage {
	t.Helper()
	natlab.Need(t, natlab.Config{}) // or skip
	st, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func (st *stage) mustDial(t *testing.T, s Setup, d Dials) []Dialed {
	t.Helper()
	var err error
	if d.Client, err = st.client(s); err != nil {
		t.Fatal(err)
	}
	var all []Dialed
	if err := st.guest.ask("Dial", d, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAHairpinHangsAndEachWorkaroundGetsThrough(t *testing.T) {
	st := needStage(t, natlab.Config{Path: work.Path(), Clients: 2})
	for _, begin := range []func() error{st.service, func() error { return st.balance(0, 1) }, st.forward} {
		if err := begin(); err != nil {
			t.Fatal(err)
		}
	}
	here := map[netip.AddrPort]netip.AddrPort{vip(0, 443): netip.AddrPortFrom(st.Client(0), tlsPort)}
	for how, s := range map[string]Setup{
		"local address": {Hairpin: here}, "second address": {Sources: []netip.Addr{st.Client(1)}},
		"CONNECT": {Proxy: "http://" + connectProxy}, "SOCKS5": {Proxy: "socks5h://" + socksProxy},
	} {
		s.Service = vip(0, 0).Addr()
		for _, d := range st.mustDial(t, s, Dials{Address: service(443), N: 4, Each: 20 * time.Second, TLS: true, Say: true}) {
			if d.Error != "" {
				t.Errorf("%s: %s", how, d.Error)
			}
		}
	}
	d := st.mustDial(t, Setup{Plain: true}, Dials{Address: vip(0, 80).String(), N: 1, Each: 400 * time.Millisecond})[0]
	if !strings.Contains(d.Error, "timeout") {
		t.Errorf("Go's own dial: %+v", d)
	}
}

func TestWhatAGuestTells(t *testing.T) {
	st := needStage(t, natlab.Config{Path: work.Path()})
	closed := netip.AddrPortFrom(st.Server(0), 9)
	if err := st.Count(closed); err != nil {
		t.Fatal(err)
	}
	d := st.mustDial(t, Setup{Path: work.Path()}, Dials{Address: closed.String(), N: 1})[0]
	if d.Verdict != dialer.PeerDown.String() || !strings.Contains(d.Error, "refused") {
		t.Errorf("%+v", d)
	}
	var seen Client
	if err := st.guest.ask("Look", 0, &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen.Accounts) != 1 || len(seen.Diagnoses) != 1 || seen.Diagnoses[0].Remote != closed {
		t.Errorf("%+v", seen)
	}
}

func TestOneWrongWordIsEnough(t *testing.T) {
	failed := func(verdicts ...string) (all []Dialed) {
		for _, v := range verdicts {
			all = append(all, Dialed{Error: "timeout", Verdict: v})
		}
		return append(all, Dialed{})
	}
	here := netip.MustParseAddrPort("198.51.100.1:80")
	diagnosed := Client{Diagnoses: []dialer.Diagnosis{
		{Remote: netip.MustParseAddrPort("198.51.100.2:80"), Verdict: dialer.Exhausted}, {Remote: here, Verdict: dialer.Hairpin},
	}}
	for _, c := range []struct {
		class  string
		dials  []Dialed
		seen   Client
		called string
	}{
		{healthy, failed(), Client{}, healthy},
		{healthy, failed("unknown"), Client{}, "unknown"},
		{healthy, failed(), diagnosed, "hairpin"},
		{"hairpin", failed(), diagnosed, "hairpin"},
		{"path-down", failed("path-down", "path-down"), Client{}, "path-down"},
		{"path-down", failed("path-down", "unknown", "path-down"), Client{}, "unknown"},
		{"path-down", failed("path-down"), diagnosed, "hairpin"},
		{"path-down", failed(), Client{}, healthy},
	} {
		e := &episode{class: c.class, dest: here, dials: c.dials, seen: c.seen}
		if got := e.called(); got != c.called {
			t.Errorf("%s is called %s, want %s: %v", c.class, got, c.called, e)
		}
	}
}

func TestAMissedClassAndAFalseAlarmAreNoted(t *testing.T) {
	p := &playbill{}
	for class, verdicts := range map[string][]string{healthy: {"", "exhausted"}, "exhausted": {"exhausted", "unknown"}} {
		for _, v := range verdicts {
			e := &episode{class: class, dials: []Dialed{{Verdict: v, Error: v}}}
			p.played = append(p.played, e)
		}
	}
	// As the command prints it.
	play := work.Command{Acts: []work.Act{{Name: "x", Play: func(r *work.Report) error { p.matrix().note(r); return nil }}}}
	var out bytes.Buffer
	if status := play.Run([]string{"-json"}, &out, io.Discard); status != 1 {
		t.Errorf("status %d", status)
	}
	missed := make(map[string]float64)
	for d := json.NewDecoder(&out); ; {
		var m work.Measurement
		if err := d.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if m.Status == work.Missed {
			missed[m.Over+", "+m.Figure] = m.Ours
		}
	}
	for what, n := range map[string]float64{
		"healthy, not recognised (1 - recall)": 50, "exhausted, not recognised (1 - recall)": 50,
		"exhausted, are others (1 - precision)": 50, "healthy, called exhausted or hairpin": 1,
	} {
		if missed[what] != n {
			t.Errorf("%s: %v, want %v", what, missed[what], n)
		}
	}
}

func TestEachClassHasScenes(t *testing.T) {
	for _, class := range classes {
		if len(scenes[class]) == 0 {
			t.Errorf("%s has none", class)
		}
	}
	if len(classes) != len(scenes) {
		t.Errorf("%d classes and scenes of %d", len(classes), len(scenes))
	}
}

func TestBoundsAreExact(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 10, 0, 0.25887}, {1, 10, 0.0051162, 0.39416}, {5, 10, 0.22244, 0.77756}, {10, 10, 0.74113, 1},
		{0, 3000, 0, 0.00099808},
	} {
		low, high := bounds(c.k, c.n)
		if math.Abs(low-c.low) > 1e-5 || math.Abs(high-c.high) > 1e-5 {
			t.Errorf("%d of %d: %.6f to %.6f, want %.6f to %.6f", c.k, c.n, low, high, c.low, c.high)
		}
	}
}
