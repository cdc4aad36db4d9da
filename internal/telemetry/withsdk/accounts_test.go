package withsdk_test

import (
	"context"
	"net/netip"
	"runtime"
	"testing"

	"github.com/natwise/natwise/internal/telemetry"
)

const (
	limit       = "natwise.snat.port.limit"
	wanted      = "natwise.snat.port.pending"
	utilization = "natwise.snat.port.utilization"
)

// holding has a ledger that holds what f returns.
func (l *lens) holding(f func() telemetry.Snapshot) *telemetry.Scope {
	return telemetry.New(telemetry.Config{MeterProvider: l.meters, TracerProvider: l.tracers, Snapshot: f})
}

// A path may limit what one source address holds, and what all of them do. The flows are the same.
func TestOfTheAccountsOfADestinationTheOneWithTheLeastRoomIsTold(t *testing.T) {
	peer := netip.MustParseAddrPort("20.1.2.6:443")
	source := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, i}) }
	for name, c := range map[string]struct {
		accounts            []telemetry.Account
		limit, used, wanted float64
	}{
		"all sources together": {[]telemetry.Account{
			{Source: source(1), Peer: peer, Limit: 28232, Active: 100},
			{Source: source(2), Peer: peer, Limit: 28232, Active: 26},
			{Peer: peer, Limit: 128, Active: 126, Waiting: 7},
		}, 128, 126, 7},
		"each source": {[]telemetry.Account{
			{Peer: peer, Limit: 1000, Active: 90, Waiting: 7},
			{Source: source(1), Peer: peer, Limit: 50, Active: 45, Waiting: 7},
			{Source: source(2), Peer: peer, Limit: 50, Active: 45, Waiting: 7},
		}, 100, 90, 7},
		"the one that has a limit": {[]telemetry.Account{
			{Source: source(1), Peer: peer, Limit: -1, Active: 3},
			{Source: source(2), Peer: peer, Limit: 64, Active: 3},
			{Peer: peer, Limit: 128, Active: 6},
		}, 128, 6, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLens(t)
			s := l.holding(func() telemetry.Snapshot { return telemetry.Snapshot{Accounts: c.accounts, Twice: true} })
			defer runtime.KeepAlive(s)
			s.Taken(peer, false)
			r := l.read()
			r.want(c.limit, limit, at(peer.String())...)
			r.want(c.used, usage, at(peer.String())...)
			r.want(c.wanted, wanted, at(peer.String())...)
			r.want(c.used/c.limit, utilization)
		})
	}
}

func TestWhoWaitsForAPortIsSeenByDestination(t *testing.T) {
	l := newLens(t)
	peer := func(i byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 1, 2, i}), 443)
	}
	s := l.holding(func() telemetry.Snapshot {
		return telemetry.Snapshot{Accounts: []telemetry.Account{
			{Peer: peer(1), Limit: 4, Active: 4, Waiting: 3},
			{Peer: peer(2), Limit: 4, Active: 1},
			{Peer: peer(3), Limit: 4, Active: 4, Waiting: 2}, // this and the next have no series of their own
			{Peer: peer(4), Limit: 4, Active: 4, Waiting: 1},
			{Limit: 100, Active: 13, Waiting: 6},
		}}
	})
	defer runtime.KeepAlive(s)
	s.Taken(peer(1), false)
	s.Taken(peer(2), false)
	r := l.read()
	r.want(3, wanted, at("20.1.2.1:443")...)
	r.want(0, wanted, at("20.1.2.2:443")...)
	r.want(3, wanted, "network.peer.address=_OTHER")
	r.want(3+3+6, wanted)
}

// The first connection that is lost is one too many: a counter that begins with it has no increase.
func TestConnectionsThatAreLostAreToldFromZeroOn(t *testing.T) {
	l := newLens(t)
	s := l.holding(func() telemetry.Snapshot { return telemetry.Snapshot{} })
	defer runtime.KeepAlive(s)
	peer := netip.MustParseAddrPort(lines)
	p := s.Opened(context.Background(), lines, peer, 0)
	l.read().want(0, closed, at(lines, reason("lost"))...)
	s.Closed(p, "lost", 0)
	l.read().want(1, closed, at(lines, reason("lost"))...)
}

func TestPoolsOfOneNameHaveNoBoundIfOneOfThemHasNone(t *testing.T) {
	l := newLens(t)
	s := l.holding(func() telemetry.Snapshot { return telemetry.Snapshot{} })
	const max, name = "db.client.connection.max", "db.client.connection.pool.name="
	bounds := map[string][]int{"two": {3, 10}, "one": {0, 10}, "other": {10, 0}}
	telemetry.Join(s, &bounds, func(bounds *map[string][]int) (pools []telemetry.Pool, alive bool) {
		for name, each := range *bounds {
			for _, most := range each {
				pools = append(pools, telemetry.Pool{Kind: "sql", Name: name, DB: &telemetry.DB{Max: most}})
			}
		}
		return pools, true
	})
	r := l.read()
	r.want(13, max, name+"two")
	r.absent(max, name+"one")
	r.absent(max, name+"other")
	runtime.KeepAlive(&bounds)
}
