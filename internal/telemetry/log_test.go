package telemetry_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
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

// lines returns those of a log, once.
func lines(log *bytes.Buffer) []string {
	defer log.Reset()
	return strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
}

func TestOfTooManyWarningsOfAKindOneStandsForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newTold()
		leak := func(i int) { s.Warn("leak", fmt.Sprint(i), "a connection was lost", "address", i) }
		for i := range 300 {
			leak(i)
		}
		told := lines(log)
		const first = `msg="natwise: more than 256 within a minute, this one stands for the rest: a connection was lost" address=256 ledger=east`
		if len(told) != 257 || !strings.HasSuffix(told[256], first) {
			t.Errorf("%d lines, the last of which is %s", len(told), told[len(told)-1])
		}
		time.Sleep(time.Minute)
		for i := range 256 {
			leak(i)
		}
		lines(log)
		leak(300)
		if told := lines(log); len(told) != 1 || !strings.HasSuffix(told[0], `a connection was lost" address=300 ledger=east times=44`) {
			t.Errorf("a minute later: %s", told)
		}
		for i := range 300 {
			if s.Due("leak", fmt.Sprint(i)) {
				t.Fatalf("%d would be told", i)
			}
		}
		time.Sleep(time.Minute)
		leak(0)
		if told := lines(log); len(told) != 1 || !strings.HasSuffix(told[0], ` address=0 ledger=east times=2`) {
			t.Errorf("two minutes later: %s", told)
		}
	})
}

func TestHoweverMuchThereIsOfOneKindTheOthersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newTold()
		for i := range 1000 {
			s.Warn("leak", fmt.Sprint(i), "a connection was lost")
		}
		lines(log)
		if !s.Due("budget", "a") {
			t.Error("four fifths of a budget would not be told")
		}
		s.Warn("budget", "a", "few ports")
		s.Engines([]telemetry.Engine{{Name: "redis", Degraded: "no answer"}})
		s.Engines([]telemetry.Engine{{Name: "redis"}})
		told := lines(log)
		if len(told) != 3 {
			t.Fatalf("%s", told)
		}
		for i, want := range []string{"few ports", "is degraded", "as it should be again"} {
			if !strings.Contains(told[i], want) {
				t.Errorf("%s, want that it says %q", told[i], want)
			}
		}
	})
}
