package telemetry_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
)

// peerAt is one of many destinations.
func peerAt(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 1, byte(i >> 8), byte(i)}), 443)
}

// total adds up the counts of all destinations.
func total(s *telemetry.Scope) (all telemetry.Counts) {
	for _, c := range s.Counts() {
		all.Dialed += c.Dialed
		all.Waited += c.Waited
		all.Rejected += c.Rejected
		all.Opened += c.Opened
		all.Reused += c.Reused
	}
	return all
}

func TestOnlyADestinationWithoutConnectionsMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScope()
		var busy, last *telemetry.Peer
		for i := range 256 {
			last = s.Opened(context.Background(), "example.com:443", peerAt(i), 0)
			if i == 0 {
				busy = last
			} else {
				s.Closed(last, "closed", 0)
			}
			time.Sleep(time.Second)
		}
		s.Taken(peerAt(1000), false) // in place of the second, which is idle for longest
		if s.PeerAt(peerAt(0)) != busy {
			t.Error("a destination with a connection had to make way")
		}
		if s.PeerAt(peerAt(255)) != last {
			t.Error("the destination that was of interest last had to make way")
		}
		if n := len(s.Counts()); n != 258 { // with the one that made way, and the rest
			t.Errorf("%d destinations", n)
		}
	})
}

func TestWhereNoDestinationCanMakeWayTheOthersAreOneTogether(t *testing.T) {
	s := newScope()
	for i := range 300 {
		s.Taken(peerAt(i), i%2 == 0)
		s.Opened(context.Background(), "example.com:443", peerAt(i), 0)
	}
	rest := s.Counts()[netip.AddrPort{}]
	if rest.Opened != 44 || rest.Dialed+rest.Waited != 44 {
		t.Errorf("the rest has %+v, want 44 of 300", rest)
	}
	if all := total(s); all.Opened != 300 || all.Dialed != 150 || all.Waited != 150 {
		t.Errorf("in all there are %+v", all)
	}
}

func TestNothingIsLostOfDestinationsThatComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScope()
		for i := range 5000 {
			at := peerAt(i * 7 % 1500)
			s.Taken(at, false)
			p := s.Opened(context.Background(), "example.com:443", at, 0)
			s.Closed(p, "closed", 2)
			if i%3 == 0 {
				s.Rejected(at)
			}
			time.Sleep(time.Millisecond)
			if i%97 > 0 {
				continue
			}
			n := uint64(i + 1)
			if all := total(s); all.Dialed != n || all.Opened != n || all.Reused != 2*n || all.Rejected != (n+2)/3 {
				t.Fatalf("after %d: %+v", n, all)
			}
			if len(s.Counts()) > 2*256+1 {
				t.Fatalf("after %d there are %d destinations", n, len(s.Counts()))
			}
		}
	})
}

func TestWhatIsOfNoOneDestinationIsCountedWithTheRest(t *testing.T) {
	s := newScope()
	s.Rejected(netip.AddrPort{})
	if rest := s.Counts()[netip.AddrPort{}]; rest.Rejected != 1 || len(s.Counts()) != 1 {
		t.Errorf("%+v", s.Counts())
	}
}

func TestMoreNamesThanHaveSeriesOfTheirOwnAreOneTogether(t *testing.T) {
	s := newScope()
	first := s.Name("0.example.com:443")
	for i := range 300 {
		s.Name(fmt.Sprintf("%d.example.com:443", i))
	}
	if s.Name("0.example.com:443") != first {
		t.Error("the first had to make way")
	}
	if s.Name("298.example.com:443") != s.Name("299.example.com:443") || s.Name("255.example.com:443") == s.Name("256.example.com:443") {
		t.Error("not the first 256 have a series of their own")
	}
}
