package dialer_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
)

func TestRemotesTellWhereADialWouldGo(t *testing.T) {
	two := netip.MustParseAddrPort("[2001:db8::1]:443")
	one := netip.MustParseAddrPort("20.1.2.3:443")
	mapped := netip.MustParseAddr("::ffff:20.1.2.3")
	d := &dialer.Dialer{Resolver: names{"api.example": {two.Addr(), one.Addr(), mapped}}}
	for _, test := range []struct {
		network, address string
		want             []netip.AddrPort
		err              any
	}{
		{"tcp", "api.example:443", []netip.AddrPort{two, one}, nil},
		{"tcp4", "api.example:443", []netip.AddrPort{one}, nil},
		{"tcp6", "api.example:443", []netip.AddrPort{two}, nil},
		{"tcp", "[::ffff:20.1.2.3]:443", []netip.AddrPort{one}, nil},
		{"tcp6", "20.1.2.3:443", nil, new(*net.DNSError)},
		{"tcp", "nobody.example:443", nil, new(*net.DNSError)},
		{"tcp", "api.example", nil, new(*net.AddrError)},
		{"udp", "20.1.2.3:443", nil, new(net.UnknownNetworkError)},
		{"", "api.example:443", nil, new(net.UnknownNetworkError)},
	} {
		got, err := d.Remotes(t.Context(), test.network, test.address)
		if !slices.Equal(got, test.want) {
			t.Errorf("%q %s: %v, want %v", test.network, test.address, got, test.want)
		}
		if test.err == nil && err != nil || test.err != nil && !errors.As(err, test.err) {
			t.Errorf("%q %s: %v", test.network, test.address, err)
		}
	}
}

func TestALookUpTakesNoLongerThanTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dialer.Dialer{Timeout: 3 * time.Second, Resolver: resolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})}
		start := time.Now()
		_, err := d.Remotes(t.Context(), "tcp", "api.example:443")
		if took := time.Since(start); took != d.Timeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestALookUpThatFailsIsCalledSoWhateverTheResolverSays(t *testing.T) {
	for _, test := range []struct {
		err  error
		want dialer.Verdict
	}{
		{errors.New("consul: no healthy instance"), dialer.DNS},
		{context.DeadlineExceeded, dialer.DNS}, // its own
		{context.Canceled, dialer.Unknown},     // the caller's
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l := new(dialer.Ledger)
		d := &dialer.Dialer{Ledger: l, Resolver: resolver(func(context.Context, string) ([]netip.Addr, error) {
			if test.want == dialer.Unknown {
				cancel()
			}
			return nil, test.err
		})}
		_, err := d.DialContext(ctx, "tcp", "a.example:80")
		if dialer.VerdictOf(err) != test.want || !errors.Is(err, test.err) || len(l.Diagnoses()) > 0 != (test.want == dialer.DNS) {
			t.Errorf("%v: %v, diagnosed %+v", test.err, err, l.Diagnoses())
		}
	}
}
