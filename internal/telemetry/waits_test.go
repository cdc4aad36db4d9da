package telemetry_test

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
)

const name = "example.com:443"

func waitsOf(s *telemetry.Scope) telemetry.Waits { return s.Waits()[name] }

func TestTheQuantilesOfWaits(t *testing.T) {
	s := newScope()
	for i := range 100 {
		s.Name(name).Waited(context.Background(), time.Duration(i+1)*time.Millisecond, nil)
	}
	w := waitsOf(s)
	if w.Count != 100 || !about(w.P50, 50*time.Millisecond) || !about(w.P99, 99*time.Millisecond) {
		t.Errorf("of 1 to 100 ms: %+v", w)
	}
}

// about reports whether a bound is the next half power of two of a tenth of a millisecond.
func about(bound, exact time.Duration) bool {
	return bound >= exact && float64(bound) < float64(exact)*1.415
}

// Whatever the waits, the quantiles are the buckets' bounds next above those of all of them, or
// the longest wait.
func FuzzTheQuantilesOfWaits(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 1, 0, 0, 0x7f, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		s := newScope()
		var all []time.Duration
		for ; len(program) >= 4; program = program[4:] {
			took := time.Duration(binary.BigEndian.Uint32(program)) * time.Microsecond // up to 71 min
			all = append(all, took)
			s.Name(name).Waited(context.Background(), took, nil)
		}
		w := waitsOf(s)
		if w.Count != uint64(len(all)) {
			t.Fatalf("%d of %d", w.Count, len(all))
		}
		slices.Sort(all)
		for percent, got := range map[int]time.Duration{50: w.P50, 99: w.P99} {
			if len(all) == 0 {
				continue
			}
			exact := all[int(math.Ceil(float64(len(all)*percent)/100))-1]
			const least, most = 100 * time.Microsecond, 104857600 * time.Microsecond
			longest := all[len(all)-1]
			switch {
			case exact <= least && got == min(least, longest), exact > most && got == longest:
			case !about(got, exact):
				t.Errorf("%d %% of %v: %v, want about %v", percent, all, got, exact)
			}
		}
	})
}

// A request waits for 30 s by default, and there is no end to MaxWait.
func TestLongWaitsAreToldAsLongAsTheyAre(t *testing.T) {
	for _, took := range []time.Duration{7 * time.Second, 29 * time.Second, time.Hour} {
		s := newScope()
		for range 100 {
			s.Name(name).Waited(context.Background(), took, nil)
		}
		if w := waitsOf(s); w.P50 != took || w.P99 != took {
			t.Errorf("of waits of %v: %+v", took, w)
		}
	}
}

func TestWhatNobodyHasLookedAtIsForgottenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScope()
		wait := func(took time.Duration) { s.Name(name).Waited(context.Background(), took, nil) }
		for _, quiet := range []time.Duration{2 * time.Minute, 24 * time.Hour} {
			for range 100 {
				wait(5 * time.Second)
			}
			time.Sleep(quiet)
			wait(time.Millisecond)
			if w := waitsOf(s); w.Count != 1 || w.P99 != time.Millisecond {
				t.Errorf("%v after others: %+v", quiet, w)
			}
		}
		time.Sleep(time.Hour)
		if _, there := s.Waits()[name]; there {
			t.Errorf("an hour after the last: %+v", waitsOf(s))
		}
	})
}

func TestWaitsAreForgottenAfterAMinuteOrTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScope()
		wait := func(took time.Duration) { s.Name(name).Waited(context.Background(), took, nil) }
		wait(5 * time.Second)
		waitsOf(s) // somebody looks
		time.Sleep(30 * time.Second)
		wait(time.Millisecond)
		if w := waitsOf(s); w.Count != 2 || w.P99 < 5*time.Second {
			t.Errorf("within a minute: %+v", w)
		}
		for range 3 {
			time.Sleep(time.Minute)
			waitsOf(s)
		}
		if _, there := s.Waits()[name]; there {
			t.Errorf("after three minutes: %+v", waitsOf(s))
		}
		wait(time.Millisecond)
		if w := waitsOf(s); w.Count != 1 || w.P99 > 2*time.Millisecond {
			t.Errorf("and then: %+v", w)
		}
	})
}
