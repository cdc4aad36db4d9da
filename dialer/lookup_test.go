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

func TestALookUpTellsWhereADialWouldGo(t *testing.T) {
	two := netip.MustParseAddr("2001:db8::1")
	one := netip.MustParseAddr("20.1.2.3")
	mapped := netip.MustParseAddr("::ffff:20.1.2.3")
	d := &dialer.Dialer{Resolver: names{"api.example": {two, one, mapped}}}
	for _, test := range []struct {
		network, host string
		want          []netip.Addr
		err           any
	}{
		{"tcp", "api.example", []netip.Addr{two, one}, nil},
		{"tcp4", "api.example", []netip.Addr{one}, nil},
		{"tcp6", "api.example", []netip.Addr{two}, nil},
		{"tcp", "::ffff:20.1.2.3", []netip.Addr{one}, nil},
		{"tcp6", "20.1.2.3", nil, new(*net.DNSError)},
		{"tcp", "nobody.example", nil, new(*net.DNSError)},
		{"udp", "20.1.2.3", nil, new(net.UnknownNetworkError)},
		{"", "api.example", nil, new(net.UnknownNetworkError)},
	} {
		got, err := d.Lookup(t.Context(), test.network, test.host)
		if !slices.Equal(got, test.want) {
			t.Errorf("%q %s: %v, want %v", test.network, test.host, got, test.want)
		}
		if test.err == nil && err != nil || test.err != nil && !errors.As(err, test.err) {
			t.Errorf("%q %s: %v", test.network, test.host, err)
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
		_, err := d.Lookup(t.Context(), "tcp", "api.example")
		if took := time.Since(start); took != d.Timeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
