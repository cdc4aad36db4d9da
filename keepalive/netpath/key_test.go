package netpath_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/natwise/natwise/keepalive/netpath"
)

var (
	src    = netip.MustParseAddr("10.0.0.4")
	server = netip.MustParseAddrPort("20.1.2.3:443")
	mapped = netip.MustParseAddrPort("[::ffff:20.1.2.3]:443")
	six    = netip.MustParseAddrPort("[2001:db8::1]:443")
	inside = netip.MustParseAddrPort("10.9.9.9:5432")
)

func withScopes(scopes ...netpath.Scope) netpath.Profile {
	var p netpath.Profile
	for _, s := range scopes {
		p.Limits = append(p.Limits, netpath.Limit{Scope: s, N: 10})
	}
	return p
}

func TestAFlowOwesOneAccountForEachScope(t *testing.T) {
	const (
		destination = netpath.Destination
		pair        = netpath.SourceDestination
		ports       = netpath.AllPorts
		sockets     = netpath.Sockets
	)
	exempting := withScopes(destination)
	exempting.Exempt = []netip.Prefix{netip.MustParsePrefix("20.0.0.0/8")}
	counting := withScopes(destination)
	counting.Exempt = netpath.NoExempt()
	toServer := netpath.Key{Dest: server, Network: "tcp"}

	tests := []struct {
		name    string
		path    netpath.Profile
		src     netip.Addr
		dst     netip.AddrPort
		network string
		want    []netpath.Key
	}{
		{"no limit, still seen", netpath.Profile{}, src, server, "tcp", []netpath.Key{toServer}},
		{"destination", withScopes(destination), src, server, "tcp", []netpath.Key{toServer}},
		{"tcp4 is tcp", withScopes(destination), src, server, "tcp4", []netpath.Key{toServer}},
		{"tcp6 is tcp", withScopes(destination), netip.Addr{}, six, "tcp6", []netpath.Key{{Dest: six, Network: "tcp"}}},
		{"mapped address", withScopes(destination), src, mapped, "tcp6", []netpath.Key{toServer}},
		{"source and destination", withScopes(pair), src, server, "tcp",
			[]netpath.Key{{Source: src, Dest: server, Network: "tcp"}}},
		{"mapped source", withScopes(pair), netip.MustParseAddr("::ffff:10.0.0.4"), server, "tcp",
			[]netpath.Key{{Source: src, Dest: server, Network: "tcp"}}},
		{"source not known yet", withScopes(pair), netip.Addr{}, server, "tcp", []netpath.Key{toServer}},
		{"all ports", withScopes(ports), src, server, "tcp", []netpath.Key{toServer, {Network: "tcp"}}},
		{"sockets", withScopes(sockets), src, server, "tcp", []netpath.Key{toServer, {}}},
		{"all four", withScopes(sockets, ports, pair, destination), src, server, "tcp",
			[]netpath.Key{{Source: src, Dest: server, Network: "tcp"}, toServer, {Network: "tcp"}, {}}},
		{"two limits of a scope", withScopes(destination, destination), src, server, "tcp", []netpath.Key{toServer}},
		{"private", withScopes(destination, sockets), src, inside, "tcp", nil},
		{"mapped private", withScopes(destination), src, netip.MustParseAddrPort("[::ffff:10.9.9.9]:80"), "tcp", nil},
		{"loopback", withScopes(destination), src, netip.MustParseAddrPort("[::1]:80"), "tcp", nil},
		{"link-local with a zone", withScopes(destination), src, netip.MustParseAddrPort("[fe80::1%eth0]:80"), "tcp", nil},
		{"own exemption", exempting, src, server, "tcp", nil},
		{"own exemption replaces the default", exempting, src, inside, "tcp", []netpath.Key{{Dest: inside, Network: "tcp"}}},
		{"nothing exempt", counting, src, inside, "tcp", []netpath.Key{{Dest: inside, Network: "tcp"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.path.Keys(nil, tt.src, tt.dst, tt.network); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestKeysAppendsToWhatIsThere(t *testing.T) {
	first := netpath.Key{Network: "tcp"}
	got := withScopes(netpath.Destination).Keys([]netpath.Key{first}, src, server, "tcp")
	if len(got) != 2 || got[0] != first {
		t.Errorf("got %v", got)
	}
}

func TestKeysDoesNotAllocateGivenRoom(t *testing.T) {
	p := withScopes(netpath.Destination, netpath.SourceDestination, netpath.AllPorts, netpath.Sockets)
	room := make([]netpath.Key, 0, 4)
	if n := testing.AllocsPerRun(100, func() { p.Keys(room, src, mapped, "tcp4") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAKeyTellsItsScopeAndReadsWell(t *testing.T) {
	tests := []struct {
		key   netpath.Key
		scope netpath.Scope
		text  string
	}{
		{netpath.Key{Dest: server, Network: "tcp"}, netpath.Destination, "tcp 20.1.2.3:443"},
		{netpath.Key{Source: src, Dest: server, Network: "tcp"}, netpath.SourceDestination, "tcp 10.0.0.4 to 20.1.2.3:443"},
		{netpath.Key{Network: "tcp"}, netpath.AllPorts, "tcp to anywhere"},
		{netpath.Key{}, netpath.Sockets, "open connections"},
	}
	for _, tt := range tests {
		if got := tt.key.Scope(); got != tt.scope {
			t.Errorf("%v: scope %v, want %v", tt.key, got, tt.scope)
		}
		if got := tt.key.String(); got != tt.text {
			t.Errorf("got %q, want %q", got, tt.text)
		}
	}
}
