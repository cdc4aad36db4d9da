package keepalive_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestForDerivesAPlanFromAProfile(t *testing.T) {
	const (
		s    = time.Second
		none = netpath.None
	)
	for _, test := range []struct {
		name             string
		path             netpath.Profile
		idle, interval   time.Duration
		forgets, silence time.Duration
		linger           time.Duration
	}{
		{"Azure App Service", netpath.AzureAppService(), 60 * s, 5 * s, 240 * s, 230 * s, 60 * s},
		{"AWS NAT Gateway", netpath.AWSNATGateway(1), 60 * s, 5 * s, 350 * s, 340 * s, 60 * s},
		{"Azure SQL's gateway", netpath.AzureSQLGateway(), 60 * s, 5 * s, 1800 * s, 1790 * s, 0},
		{"nobody knows", netpath.Profile{}, 57 * s, 5 * s, 230 * s, 220 * s, 0},
		{"never forgets", netpath.Profile{Idle: none}, 60 * s, 5 * s, none, 0, 0},
		{"a minute", netpath.Profile{Idle: 60 * s}, 15 * s, 3 * s, 60 * s, 50 * s, 0},
		{"16 s", netpath.Profile{Idle: 16 * s}, 4 * s, s, 16 * s, 12 * s, 0},
		{"4 s", netpath.Profile{Idle: 4 * s}, s, s, 4 * s, 3 * s, 0},
		{"too short for the kernel", netpath.Profile{Idle: s / 10}, s, s, s / 10, 75 * time.Millisecond, 0},
		{"a year", netpath.Profile{Idle: 365 * 24 * time.Hour}, 60 * s, 5 * s, 365 * 24 * time.Hour, 365*24*time.Hour - 10*s, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := keepalive.For(test.path)
			want := keepalive.Plan{
				Idle: test.idle, Interval: test.interval, Count: 3,
				UserTimeout: 90 * s, RTOMax: s, Forgets: test.forgets, Linger: test.linger,
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if got := got.MaxSilence(); got != test.silence {
				t.Errorf("a connection may be silent for %v, want %v", got, test.silence)
			}
		})
	}
}

func TestTwoProbesMayBeLost(t *testing.T) {
	for idle := 4 * time.Second; idle < time.Hour; idle += 250 * time.Millisecond {
		p := keepalive.For(netpath.Profile{Idle: idle})
		if third := p.Idle + 2*p.Interval; third >= idle {
			t.Fatalf("on a path that forgets after %v, the third probe leaves after %v", idle, third)
		}
		if p.UserTimeout < 90*time.Second || p.UserTimeout < p.Idle+3*p.Interval {
			t.Fatalf("on a path that forgets after %v, the user timeout is %v: %+v", idle, p.UserTimeout, p)
		}
	}
	for p := range netpath.All() {
		plan := keepalive.For(p)
		if third := plan.Idle + 2*plan.Interval; plan.Forgets > 0 && third >= plan.Forgets {
			t.Errorf("%s forgets after %v, and the third probe leaves after %v", p.Name, plan.Forgets, third)
		}
	}
}

func TestOverFillsInWhatIsZero(t *testing.T) {
	derived := keepalive.Plan{1, 2, 3, 4, 5, 6, 7}
	for _, test := range []struct{ over, want keepalive.Plan }{
		{keepalive.Plan{}, derived},
		{keepalive.Plan{Idle: -1}, keepalive.Plan{-1, 2, 3, 4, 5, 6, 7}},
		{keepalive.Plan{Interval: 9, Forgets: -1}, keepalive.Plan{1, 9, 3, 4, 5, -1, 7}},
		{keepalive.Plan{Count: -1, Linger: 9}, keepalive.Plan{1, 2, -1, 4, 5, 6, 9}},
		{keepalive.Plan{UserTimeout: -1, RTOMax: 9}, keepalive.Plan{1, 2, 3, -1, 9, 6, 7}},
	} {
		if got := test.over.Over(derived); got != test.want {
			t.Errorf("%+v over the derived plan is %+v, want %+v", test.over, got, test.want)
		}
	}
}

func TestKeepAliveFitsPackageNet(t *testing.T) {
	const most = 32767 * time.Second
	for _, test := range []struct {
		plan keepalive.Plan
		want net.KeepAliveConfig
	}{
		{keepalive.For(netpath.AzureAppService()), net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 5 * time.Second, Count: 3}},
		{keepalive.Plan{Idle: 24 * time.Hour, Interval: 24 * time.Hour, Count: 1000}, net.KeepAliveConfig{Enable: true, Idle: most, Interval: most, Count: 127}},
		{keepalive.Plan{Idle: 1, Interval: 2999 * time.Millisecond, Count: 1}, net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: 2 * time.Second, Count: 1}},
		{keepalive.Plan{Idle: time.Second, Interval: -1, Count: -1}, net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: -1, Count: -1}},
		{keepalive.Plan{Idle: -1, Interval: time.Second, Count: 3}, net.KeepAliveConfig{}},
	} {
		if got := test.plan.KeepAlive(); got != test.want {
			t.Errorf("%+v is %+v, want %+v", test.plan, got, test.want)
		}
	}
}

func TestApplySaysWhyItCannot(t *testing.T) {
	plan := keepalive.For(netpath.AzureAppService())

	closed, _ := loopback(t)
	closed.Close()
	if err := plan.Apply(closed); !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "keepalive: apply plan: ") {
		t.Errorf("on a closed connection: %v", err)
	}
	memory, _, _ := inMemory(t, plan)
	if err := plan.Apply(memory); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on what is no socket: %v", err)
	}
	memory.Close()
}

func TestEveryWayToEndHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for h := range keepalive.Hows {
		if name := h.String(); name == "" || name == "unknown" || seen[name] {
			t.Errorf("ending %d is called %q", h, name)
		} else {
			seen[name] = true
		}
	}
	if got := keepalive.Hows.String(); got != "unknown" {
		t.Errorf("what is no ending is called %q", got)
	}
}
