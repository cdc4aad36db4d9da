package work

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// Faults of a sample.
const (
	prick Kind = iota
	poke
	kill
	revive
)

func sample() *Schedule {
	return &Schedule{
		Outages: []Fault{{2 * time.Second, kill}, {Half + working, kill}},
		Restart: revive,
		Singles: []Kind{prick, poke},
		Figures: []string{"pricked", "poked", "killed"},
	}
}

func TestEveryFaultComesWhileThereIsSomethingToStrike(t *testing.T) {
	var down time.Duration // since when; zero: nothing is
	last := Fault{Kind: poke}
	for _, f := range sample().Faults() {
		switch {
		case f.At < last.At:
			t.Errorf("%+v comes after %+v", f, last)
		case f.Kind == kill:
			down = f.At
		case f.Kind == revive && f.At-down != Outage:
			t.Errorf("%+v, and it is down since %v", f, down)
		case f.Kind == revive:
			down = 0
		case down != 0 || Resting(f.At) > 0:
			t.Errorf("%+v strikes nobody", f)
		case f.Kind == last.Kind:
			t.Errorf("%+v comes again", f)
		}
		last.At = f.At
		if f.Kind < kill {
			last.Kind = f.Kind
		}
	}
	if down != 0 {
		t.Error("it is down in the end")
	}
}

func TestARestIsLongerThanThePathRemembersAndShorterThanTheFirstProbe(t *testing.T) {
	if rest := Resting(working); rest <= RealIdle || rest >= Path().Idle/4 {
		t.Errorf("it lasts for %v", rest)
	}
	if Resting(working-1) != 0 || Resting(Half) != 0 || Resting(Round-1) != 1 {
		t.Error("they rest when they are to work")
	}
}

func TestAScheduleThatProvesNothingIsRefused(t *testing.T) {
	if err := sample().Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(s *Schedule){
		"a fault that never comes":            func(s *Schedule) { s.Singles = s.Singles[:1] },
		"an outage within another":            func(s *Schedule) { s.Outages[0].At = s.Outages[1].At - Outage/2 },
		"an outage that outlasts the round":   func(s *Schedule) { s.Outages[1].At = Round - Outage },
		"an outage in the first rest":         func(s *Schedule) { s.Outages[0].At = working },
		"a restart in the first rest":         func(s *Schedule) { s.Outages[0].At = working - Outage/2 },
		"a second rest that is not disturbed": func(s *Schedule) { s.Outages[1].At = Half },
	} {
		s := sample()
		spoil(s)
		if s.Check() == nil {
			t.Errorf("%s is all right", name)
		}
	}
}

func TestHarmIsDoneRoundAfterRoundAndWhatIsDownIsStartedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sample()
		begin := time.Now()
		ctx, cancel := context.WithDeadline(t.Context(), begin.Add(Round+s.Outages[0].At+Outage/2))
		defer cancel()
		down := false
		toll, err := s.Harm(ctx, begin, func(k Kind) (int, error) {
			switch k {
			case kill:
				down = true
			case revive:
				down = false
			case prick:
				return 7, nil
			}
			return 1, nil
		})
		if err != nil || down {
			t.Errorf("it is down: %t, %v", down, err)
		}
		pricked := 0
		for _, f := range s.Faults() {
			if f.Kind == prick {
				pricked += 7
				if f.At < s.Outages[0].At {
					pricked += 7
				}
			}
		}
		if toll[kill] != 3 || toll[revive] != 3 || toll[prick] != pricked {
			t.Errorf("%v, want %d pricks", toll, pricked)
		}
	})
}

func TestAFaultThatCannotBeDoneEndsTheHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := sample().Harm(t.Context(), begin, func(k Kind) (int, error) {
			if k == poke {
				return 0, io.EOF
			}
			return 1, nil
		})
		if took := time.Since(begin); !errors.Is(err, io.EOF) || took != 2*faultEvery {
			t.Errorf("%v, after %v", err, took)
		}
	})
}

func TestWhatNeverStruckInARoundHasProvedNothing(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		want Status
	}{{Round, Missed}, {Round - 1, OK}} {
		r := new(Report)
		sample().Note(r, Toll{prick: 2, kill: 1}, c.took)
		for i, want := range []struct {
			ours float64
			is   Status
		}{{2, OK}, {0, c.want}, {1, OK}, {20, OK}} {
			if m := r.measurements[i]; m.Ours != want.ours || m.Status != want.is {
				t.Errorf("after %v: %+v, want %v", c.took, m, want)
			}
		}
	}
}
