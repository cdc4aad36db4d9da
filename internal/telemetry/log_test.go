package telemetry_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheSameIsWarnedOfOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScope()
		for range 100 {
			s.Warn("refused", "a", "no port")
			time.Sleep(time.Second)
		}
		records := s.Records()
		if len(records) != 2 {
			t.Fatalf("in 100 s it was told %d times", len(records))
		}
		if gap := records[1].At.Sub(records[0].At); gap != time.Minute || records[0].Times != 1 || records[1].Times != 60 {
			t.Errorf("told of %d, and after %v of %d", records[0].Times, gap, records[1].Times)
		}
	})
}

func TestWarningsOfAnotherKindOrAddressAreNotTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScope()
		for range 2 {
			s.Warn("refused", "a", "no port")
			s.Warn("refused", "b", "no port")
			s.Warn("budget", "a", "few ports")
		}
		if records := s.Records(); len(records) != 3 {
			t.Errorf("%v", records)
		}
	})
}

func TestTheLastTwoHundredWarningsAreKeptInTheirOrder(t *testing.T) {
	s := newScope()
	for i := range 1000 {
		s.Warn("refused", fmt.Sprint(i), "no port")
		records := s.Records()
		if want := min(i+1, 200); len(records) != want {
			t.Fatalf("after %d: %d are kept, want %d", i+1, len(records), want)
		}
		for k, r := range records {
			if want := fmt.Sprint(i + 1 - len(records) + k); r.About != want {
				t.Fatalf("after %d, at %d: %s, want %s", i+1, k, r.About, want)
			}
		}
	}
}
