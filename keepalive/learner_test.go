package keepalive_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

var (
	shop  = netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:443"), Network: "tcp"}
	bank  = netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.4:443"), Network: "tcp"}
	inner = netpath.Key{Source: netip.MustParseAddr("10.0.0.4"), Dest: shop.Dest, Network: "tcp"}
)

// idle returns a profile with nothing but an Idle.
func idle(d time.Duration) netpath.Profile { return netpath.Profile{Name: "mine", Idle: d} }

// A student tells a Learner of gaps that pass in virtual time, each after the
// other.
type student struct {
	*keepalive.Learner
	fell bool // as the last death said
}

func (s *student) survived(gap time.Duration) {
	time.Sleep(gap)
	s.Survived(shop, gap)
}

func (s *student) died(gap time.Duration) {
	began := time.Now()
	time.Sleep(gap)
	s.fell = s.Died(shop, began, gap)
}

func (s *student) closed(gap time.Duration) {
	time.Sleep(gap)
	s.Closed(shop, gap)
}

// lesson is what is known of the shop.
func (s *student) lesson() keepalive.Lesson {
	for _, lesson := range s.Lessons() {
		if lesson.Key == shop {
			return lesson
		}
	}
	return keepalive.Lesson{}
}

func TestWhatALearnerMakesOfAHistory(t *testing.T) {
	const sec = time.Second
	type steps = func(s *student)
	for _, test := range []struct {
		name           string
		history        steps
		lo, hi, server time.Duration
		votes          int
		of240, of30    time.Duration // Path's Idle for a profile of so many seconds
		ofNone         time.Duration
	}{
		{"nothing", func(s *student) {}, 0, 0, 0, 0, 240 * sec, 30 * sec, netpath.None},
		{"a survival", func(s *student) { s.survived(100 * sec) }, 100 * sec, 0, 0, 0, 240 * sec, 100 * sec, netpath.None},
		{"a shorter one after it", func(s *student) { s.survived(100 * sec); s.survived(50 * sec) },
			100 * sec, 0, 0, 0, 240 * sec, 100 * sec, netpath.None},
		{"one death", func(s *student) { s.died(100 * sec) }, 0, 0, 0, 1, 240 * sec, 30 * sec, netpath.None},
		{"two deaths that agree", func(s *student) { s.died(100 * sec); s.died(91 * sec) },
			0, 91 * sec, 0, 2, 91 * sec / 2, 30 * sec, 91 * sec / 2},
		{"two deaths that do not", func(s *student) { s.died(100 * sec); s.died(89 * sec) }, 0, 0, 0, 2, 240 * sec, 30 * sec, netpath.None},
		{"a third that agrees with the first", func(s *student) { s.died(100 * sec); s.died(80 * sec); s.died(99 * sec) },
			0, 99 * sec, 0, 3, 99 * sec / 2, 30 * sec, 99 * sec / 2},
		{"a third that agrees with both", func(s *student) { s.died(100 * sec); s.died(85 * sec); s.died(92 * sec) },
			0, 85 * sec, 0, 2, 85 * sec / 2, 30 * sec, 85 * sec / 2},
		{"a vote that was contradicted", func(s *student) { s.died(100 * sec); s.survived(100 * sec); s.died(100 * sec) },
			100 * sec, 0, 0, 1, 240 * sec, 100 * sec, netpath.None},
		{"a vote that was not", func(s *student) { s.died(100 * sec); s.survived(99 * sec); s.died(100 * sec) },
			99 * sec, 100 * sec, 0, 2, 99 * sec, 99 * sec, 99 * sec},
		{"a bracket, far apart", func(s *student) { s.survived(10 * sec); s.died(100 * sec); s.died(100 * sec) },
			10 * sec, 100 * sec, 0, 2, 50 * sec, 30 * sec, 50 * sec},
		{"a longer death says nothing new", func(s *student) { s.died(100 * sec); s.died(100 * sec); s.died(300 * sec); s.died(105 * sec) },
			0, 100 * sec, 0, 3, 50 * sec, 30 * sec, 50 * sec},
		{"the path got longer", func(s *student) { s.died(100 * sec); s.died(100 * sec); s.survived(100 * sec) },
			100 * sec, 0, 0, 0, 240 * sec, 100 * sec, netpath.None},
		{"the path got shorter", func(s *student) { s.survived(200 * sec); s.died(60 * sec); s.died(60 * sec) },
			0, 60 * sec, 0, 2, 30 * sec, 30 * sec, 30 * sec},
		{"shorter, by one vote", func(s *student) { s.survived(200 * sec); s.died(60 * sec) },
			200 * sec, 0, 0, 1, 240 * sec, 200 * sec, netpath.None},
		{"shorter twice", func(s *student) { s.died(100 * sec); s.died(100 * sec); s.died(20 * sec); s.died(20 * sec) },
			0, 20 * sec, 0, 2, 10 * sec, 10 * sec, 10 * sec},
		{"deaths beyond the profile's own", func(s *student) { s.died(300 * sec); s.died(300 * sec) },
			0, 300 * sec, 0, 2, 240 * sec, 30 * sec, 150 * sec},
		{"the server closes", func(s *student) { s.closed(75 * sec); s.closed(60 * sec); s.closed(65 * sec) },
			0, 0, 60 * sec, 0, 240 * sec, 30 * sec, netpath.None},
		{"it does not after all", func(s *student) { s.closed(60 * sec); s.survived(60 * sec) },
			60 * sec, 0, 0, 0, 240 * sec, 60 * sec, netpath.None},
		{"at the profile's own", func(s *student) { s.died(240 * sec); s.died(240 * sec) },
			0, 240 * sec, 0, 2, 120 * sec, 30 * sec, 120 * sec},
		{"only the last few votes are kept", func(s *student) {
			for gap := 10 * sec; gap < 100*sec; gap += gap / 5 {
				s.died(gap)
			}
		}, 0, 0, 0, 4, 240 * sec, 30 * sec, netpath.None},
		{"no gap at all", func(s *student) { s.survived(0); s.died(0); s.died(-sec); s.closed(0) }, 0, 0, 0, 0, 240 * sec, 30 * sec, netpath.None},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &student{Learner: new(keepalive.Learner)}
				test.history(s)
				want := keepalive.Lesson{Lo: test.lo, Hi: test.hi, Server: test.server, Votes: test.votes}
				got := s.lesson()
				got.Key, got.When = netpath.Key{}, time.Time{}
				if got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				for own, want := range map[time.Duration]time.Duration{
					240 * sec: test.of240, 30 * sec: test.of30, netpath.None: test.ofNone,
				} {
					if p := s.Path(shop, idle(own)); p.Idle != want {
						t.Errorf("a profile of %v may use %v, want %v", own, p.Idle, want)
					}
				}
			})
		})
	}
}

func TestWhatIsToBeTriedNext(t *testing.T) {
	const sec = time.Second
	for _, test := range []struct {
		name    string
		history func(s *student)
		own     time.Duration
		most    time.Duration
		n       int
		want    []time.Duration
	}{
		{"nothing is known", func(s *student) {}, 100 * sec, 1000 * sec, 1, []time.Duration{100 * sec}},
		{"side by side", func(s *student) {}, 100 * sec, 1000 * sec, 3, []time.Duration{100 * sec, 200 * sec, 400 * sec}},
		{"up to the most", func(s *student) {}, 100 * sec, 300 * sec, 9, []time.Duration{100 * sec, 200 * sec, 300 * sec}},
		{"less than the profile's", func(s *student) {}, 100 * sec, 60 * sec, 2, []time.Duration{60 * sec}},
		{"nobody knows", func(s *student) {}, 0, 1000 * sec, 1, []time.Duration{230 * sec}},
		{"it never forgets, they say", func(s *student) {}, netpath.None, 1000 * sec, 1, []time.Duration{230 * sec}},
		{"none are wanted", func(s *student) {}, 100 * sec, 1000 * sec, 0, nil},
		{"less was survived", func(s *student) { s.survived(70 * sec) }, 100 * sec, 1000 * sec, 1, []time.Duration{100 * sec}},
		{"more was", func(s *student) { s.survived(110 * sec) }, 100 * sec, 1000 * sec, 2, []time.Duration{220 * sec, 440 * sec}},
		{"the most was", func(s *student) { s.survived(1000 * sec) }, 100 * sec, 1000 * sec, 2, nil},
		{"one death", func(s *student) { s.died(100 * sec) }, 100 * sec, 1000 * sec, 3, []time.Duration{25 * sec, 50 * sec, 75 * sec}},
		{"a bracket by one vote", func(s *student) { s.survived(92 * sec); s.died(100 * sec) }, 100 * sec, 1000 * sec, 3, []time.Duration{100 * sec}},
		{"a bracket by two", func(s *student) { s.survived(92 * sec); s.died(100 * sec); s.died(100 * sec) }, 100 * sec, 1000 * sec, 3, nil},
		{"a death below what was survived", func(s *student) { s.survived(92 * sec); s.died(50 * sec) }, 100 * sec, 1000 * sec, 3, []time.Duration{50 * sec}},
		{"and below a bracket", func(s *student) { s.survived(92 * sec); s.died(100 * sec); s.died(100 * sec); s.died(50 * sec) },
			100 * sec, 1000 * sec, 3, []time.Duration{50 * sec}},
		{"but not beyond the most", func(s *student) { s.survived(92 * sec); s.died(50 * sec) }, 100 * sec, 40 * sec, 3, nil},
		{"deaths beyond the most", func(s *student) { s.survived(50 * sec); s.died(300 * sec); s.died(300 * sec) },
			100 * sec, 100 * sec, 3, []time.Duration{100 * sec}},
		{"a death just beyond it", func(s *student) { s.survived(60 * sec); s.died(102 * sec) }, 100 * sec, 100 * sec, 3,
			[]time.Duration{70 * sec, 80 * sec, 90 * sec}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &student{Learner: new(keepalive.Learner)}
				test.history(s)
				if got := s.Next(shop, idle(test.own), test.most, test.n); !slices.Equal(got, test.want) {
					t.Errorf("got %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestSilencesThatOverlapAreOneVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: new(keepalive.Learner)}
		began := time.Now()
		time.Sleep(50 * time.Second)
		for range 100 { // a gateway is started anew
			if s.Died(shop, began, 50*time.Second) || s.Died(shop, began.Add(time.Second), 49*time.Second) {
				t.Fatal("one event was taken for a timer")
			}
		}
		if got := s.Path(shop, idle(240*time.Second)).Idle; got != 240*time.Second {
			t.Errorf("%v may be used", got)
		}
		if s.died(50 * time.Second); !s.fell {
			t.Error("a silence of its own was not taken for a second vote")
		}
	})
}

func TestDiedTellsWhetherTheLimitFell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: new(keepalive.Learner)}
		for i, step := range []struct {
			gap  time.Duration
			fell bool
		}{{100, false}, {100, true}, {100, false}, {150, false}, {50, false}, {95, false}, {95, true}, {49, true}} {
			if s.died(step.gap * time.Second); s.fell != step.fell {
				t.Errorf("death %d, at %d s: fell is %v", i, step.gap, s.fell)
			}
		}
	})
}

// A road forgets a flow that was silent for longer than it remembers.
type road struct {
	*student
	remembers time.Duration
	late      time.Duration // by which deaths are found longer than they were planned
	probes    int
	began     time.Time
}

func newRoad(remembers time.Duration) *road {
	return &road{student: &student{Learner: new(keepalive.Learner)}, remembers: remembers, began: time.Now()}
}

// probe tries gaps side by side until Next has none. After a death the longer
// ones of the same time are given up.
func (r *road) probe(t *testing.T, p netpath.Profile, most time.Duration, n int) {
	t.Helper()
	for {
		gaps := r.Next(shop, p, most, n)
		if len(gaps) == 0 {
			return
		}
		if r.probes += len(gaps); r.probes > 200 {
			t.Fatalf("no end: %+v, next %v", r.lesson(), gaps)
		}
		began := time.Now()
		for _, gap := range gaps {
			time.Sleep(time.Until(began.Add(gap)))
			if gap > r.remembers {
				r.Died(shop, began, gap+r.late)
				break
			}
			r.Survived(shop, gap)
		}
	}
}

// wantBracket wants what the path remembers within a tenth.
func (r *road) wantBracket(t *testing.T) {
	t.Helper()
	got := r.lesson()
	if got.Lo > r.remembers || got.Hi <= r.remembers || got.Hi-got.Lo > got.Hi/10 {
		t.Errorf("a path that remembers for %v was found to remember for (%v, %v]", r.remembers, got.Lo, got.Hi)
	}
}

func TestASearchFindsTheTimeoutWithinATenth(t *testing.T) {
	for _, test := range []struct {
		remembers, from time.Duration
		parallel        int
		probes          int // at most
		takes           time.Duration
	}{
		{3900 * time.Millisecond, time.Second, 1, 8, 25 * time.Second},
		{7 * time.Second, time.Second, 1, 8, 40 * time.Second},
		{2700 * time.Millisecond, time.Second, 1, 8, 20 * time.Second},
		{239 * time.Second, 15 * time.Second, 1, 10, 25 * time.Minute},
		{239 * time.Second, 15 * time.Second, 4, 16, 20 * time.Minute},
		{239 * time.Second, 10 * time.Second, 8, 20, 15 * time.Minute},
		{350 * time.Second, 230 * time.Second, 1, 6, 35 * time.Minute},
		{29 * time.Second, 230 * time.Second, 1, 10, 15 * time.Minute}, // unexpectedly short
	} {
		t.Run(fmt.Sprintf("%v from %v by %d", test.remembers, test.from, test.parallel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoad(test.remembers)
				r.probe(t, idle(test.from), 20*time.Minute, test.parallel)
				r.wantBracket(t)
				took := time.Since(r.began)
				t.Logf("%d probes, %v, %+v", r.probes, took, r.lesson())
				if r.probes > test.probes || took > test.takes {
					t.Errorf("it took %d probes and %v, want at most %d and %v", r.probes, took, test.probes, test.takes)
				}
			})
		})
	}
}

func TestAPathWithoutATimeoutIsKnownUpToTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoad(time.Hour)
		r.probe(t, idle(netpath.None), 20*time.Minute, 1)
		if got := r.lesson(); got.Lo != 20*time.Minute || got.Hi != 0 {
			t.Errorf("got %+v", got)
		}
		if got := r.Path(shop, netpath.Profile{}).Idle; got != 20*time.Minute {
			t.Errorf("%v may be used", got)
		}
		r.remembers = 25 * time.Minute
		r.probe(t, idle(netpath.None), time.Hour, 1)
		r.wantBracket(t)
	})
}

func TestADeathJustBeyondTheMostIsWithinIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, remembers := range []time.Duration{5 * time.Second, 5900 * time.Millisecond} {
			for _, n := range []int{1, 10} {
				r := newRoad(remembers)
				r.late = 60 * time.Millisecond
				r.probe(t, idle(time.Second), 6*time.Second, n)
				r.wantBracket(t)
			}
		}
	})
}

func TestAPathThatForgetsSoonerUnderLoadIsUsedLessAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		azure := netpath.AzureLoadBalancer(128)
		r := newRoad(240 * time.Second)
		r.probe(t, azure, 10*time.Minute, 1)
		r.wantBracket(t)

		r.remembers = 40 * time.Second
		r.died(55 * time.Second)
		if r.fell {
			t.Error("one death counted")
		}
		if r.died(52 * time.Second); !r.fell {
			t.Fatal("two did not")
		}
		plan := keepalive.For(r.Path(shop, azure))
		if plan.Idle > 26*time.Second/4 || plan.Forgets > 26*time.Second {
			t.Errorf("the plan is %+v", plan)
		}
		r.probe(t, azure, 10*time.Minute, 1)
		r.wantBracket(t)

		r.remembers = 240 * time.Second // the load is gone
		r.survived(80 * time.Second)
		if got := r.Path(shop, azure).Idle; got != 240*time.Second {
			t.Errorf("%v may be used", got)
		}
	})
}

func TestALearnedIdleIsCited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: new(keepalive.Learner)}
		p := idle(240 * time.Second)
		p.Cites = []netpath.Cite{{Field: "AtIdle", Source: "a page"}, {Field: "Idle", Source: "another"}}
		if got := s.Path(shop, p); len(got.Cites) != 2 || &got.Cites[0] != &p.Cites[0] {
			t.Errorf("without a lesson the profile is %+v", got)
		}
		s.died(100 * time.Second)
		s.died(100 * time.Second)
		got := s.Path(shop, p)
		source, grade := got.Cite("Idle")
		if want := "natwise: this process's own flows, 2000-01-01"; source != want || grade != netpath.Learned {
			t.Errorf("got %q, %v, want %q", source, grade, want)
		}
		if source, _ := got.Cite("AtIdle"); source != "a page" || len(got.Cites) != 2 {
			t.Errorf("got %+v", got.Cites)
		}
		if source, _ := p.Cite("Idle"); source != "another" {
			t.Error("the caller's own slice was written to")
		}
		if err := got.Validate(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnyLearnedPathOutlivesTwoLostProbes(t *testing.T) {
	for lo := 4 * time.Second; lo < time.Hour; lo += lo / 7 {
		l := new(keepalive.Learner)
		l.Survived(shop, lo)
		plan := keepalive.For(l.Path(shop, idle(time.Second)))
		if third := plan.Idle + 2*plan.Interval; third >= lo {
			t.Errorf("%v was survived, and the third probe is sent after %v", lo, third)
		}
	}
}

func TestWhatIsKnownOfOneDestinationIsAHintForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: new(keepalive.Learner)}
		p := idle(30 * time.Second)
		first := func(key netpath.Key) time.Duration { return s.Next(key, p, time.Hour, 1)[0] }
		if got := first(bank); got != 30*time.Second {
			t.Errorf("a search begins at %v", got)
		}
		s.survived(200 * time.Second)
		s.died(220 * time.Second)
		s.died(220 * time.Second)
		if got := first(bank); got != 200*time.Second {
			t.Errorf("with a hint, a search begins at %v", got)
		}
		udp := bank
		udp.Network = "udp"
		for _, key := range []netpath.Key{inner, udp} {
			if got := first(key); got != 30*time.Second {
				t.Errorf("%v: a search begins at %v", key, got)
			}
		}
		for _, key := range []netpath.Key{bank, inner} {
			if got := s.Path(key, p).Idle; got != 30*time.Second {
				t.Errorf("%v: %v may be used", key, got)
			}
		}
		s.died(100 * time.Second)
		s.died(100 * time.Second)
		if got := first(bank); got != 50*time.Second {
			t.Errorf("where only deaths are known, a search begins at %v", got)
		}
	})
}

func TestLessonsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: &keepalive.Learner{Expires: time.Hour}}
		p := idle(30 * time.Second)
		s.survived(40 * time.Second)
		s.died(100 * time.Second)
		time.Sleep(time.Hour - 2*time.Minute)
		s.Survived(shop, 40*time.Second) // proved again
		s.Survived(shop, 20*time.Second)
		time.Sleep(2*time.Minute + time.Second)

		if got := s.lesson(); got.Lo != 40*time.Second || got.Votes != 0 {
			t.Errorf("after 1 h and a proof: %+v", got)
		}
		if s.died(100 * time.Second); s.fell {
			t.Error("an old vote counted")
		}
		s.died(100 * time.Second)
		s.closed(50 * time.Second)
		time.Sleep(50 * time.Minute)
		s.died(100 * time.Second)
		time.Sleep(50 * time.Minute)
		if got := s.lesson(); got.Hi != 100*time.Second || got.Server != 0 {
			t.Errorf("after a death that said so again: %+v", got)
		}
		time.Sleep(10*time.Minute + time.Second)
		if got := s.Path(shop, p).Idle; got != 30*time.Second {
			t.Errorf("after another hour %v may be used", got)
		}
		if got := s.Lessons(); len(got) != 0 {
			t.Errorf("and %+v is left", got)
		}
		if got := s.Next(shop, p, time.Hour, 1); !slices.Equal(got, []time.Duration{30 * time.Second}) {
			t.Errorf("and the next probe is %v", got)
		}
	})
}

func TestLessonsCanBeKeptForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: &keepalive.Learner{Expires: -1}}
		s.survived(40 * time.Second)
		time.Sleep(1000 * time.Hour)
		if got := s.lesson(); got.Lo != 40*time.Second {
			t.Errorf("got %+v", got)
		}
	})
}

func TestForgetDropsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &student{Learner: new(keepalive.Learner)}
		s.died(100 * time.Second)
		s.died(100 * time.Second)
		s.Forget()
		if got := s.Path(shop, idle(240*time.Second)).Idle; got != 240*time.Second || len(s.Lessons()) != 0 {
			t.Errorf("%v may be used, and %+v is known", got, s.Lessons())
		}
		if s.died(100 * time.Second); s.fell {
			t.Error("a vote was left")
		}
	})
}

func TestALearnerKeepsAtMostSomeThousandKeys(t *testing.T) {
	l := new(keepalive.Learner)
	key := shop
	l.Survived(bank, time.Minute)
	for i := range 20_000 {
		if i%100 == 0 {
			l.Survived(bank, time.Minute) // which is in use all the time
		}
		key.Dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 443)
		l.Survived(key, time.Minute)
	}
	if n := len(l.Lessons()); n != 4096 {
		t.Errorf("%d keys", n)
	}
	for _, key := range []netpath.Key{key, bank} {
		if got := l.Path(key, idle(time.Second)).Idle; got != time.Minute {
			t.Errorf("%v may use %v", key, got)
		}
	}
}

func TestLessonsAreSorted(t *testing.T) {
	l := new(keepalive.Learner)
	six := netpath.Key{Dest: shop.Dest, Network: "udp"}
	for _, key := range []netpath.Key{bank, inner, six, shop} {
		l.Survived(key, time.Second)
	}
	var got []netpath.Key
	for _, lesson := range l.Lessons() {
		got = append(got, lesson.Key)
	}
	if want := []netpath.Key{shop, six, inner, bank}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestObserveIsToldOfChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []keepalive.Lesson
		s := &student{Learner: new(keepalive.Learner)}
		s.Observe = func(lesson keepalive.Lesson) {
			if got := s.lesson(); got != lesson {
				t.Errorf("told of %+v while %+v is known", lesson, got)
			}
			told = append(told, lesson)
		}
		s.survived(100 * time.Second)
		s.survived(105 * time.Second) // hardly more
		s.survived(100 * time.Second)
		s.survived(111 * time.Second)
		s.died(200 * time.Second)
		s.died(200 * time.Second)
		s.died(200 * time.Second)
		s.closed(150 * time.Second)
		s.closed(160 * time.Second)
		s.survived(115 * time.Second) // hardly more
		s.died(50 * time.Second)
		s.died(50 * time.Second)
		s.survived(20 * time.Second)

		var got []string
		for _, lesson := range told {
			got = append(got, fmt.Sprint(lesson.Lo, lesson.Hi, lesson.Server))
		}
		want := []string{"1m40s 0s 0s", "1m51s 0s 0s", "1m51s 3m20s 0s", "1m51s 3m20s 2m30s", "0s 50s 2m30s", "20s 50s 2m30s"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestManyGoroutinesMayTeachALearner(t *testing.T) {
	l := &keepalive.Learner{Observe: func(keepalive.Lesson) {}}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 200 {
				gap := time.Duration(1+(i*j)%97) * time.Second
				switch (i + j) % 6 {
				case 0:
					l.Survived(shop, gap)
				case 1:
					l.Died(shop, time.Now(), gap)
				case 2:
					l.Closed(bank, gap)
				case 3:
					l.Next(shop, idle(gap), time.Hour, 3)
				case 4:
					l.Path(shop, idle(gap))
				default:
					if l.Lessons(); j == 150 {
						l.Forget()
					}
				}
			}
		})
	}
	group.Wait()
}

func TestALearnerDoesNotAllocateWhereNothingIsNew(t *testing.T) {
	l := new(keepalive.Learner)
	p := netpath.AzureLoadBalancer(128)
	l.Survived(shop, time.Minute)
	if n := testing.AllocsPerRun(100, func() {
		l.Survived(shop, time.Second)
		l.Path(shop, p)
		l.Path(bank, p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ExampleLearner() {
	var l keepalive.Learner
	key := netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:443"), Network: "tcp"}
	path := netpath.AzureLoadBalancer(128) // forgets after 4 minutes, its maker says

	fmt.Println("worth trying:", l.Next(key, path, 20*time.Minute, 3))

	l.Survived(key, 8*time.Minute) // then somebody was silent for so long, and was answered
	fmt.Println("may be used: ", l.Path(key, path).Idle)
	// Output:
	// worth trying: [4m0s 8m0s 16m0s]
	// may be used:  8m0s
}

func TestAProbeThatWasAnsweredMakesADeathThePeersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l keepalive.Learner
		key := netpath.Key{Dest: netip.MustParseAddrPort("20.1.2.3:443"), Network: "tcp"}
		die := func() bool {
			began := time.Now()
			time.Sleep(time.Minute)
			return l.Died(key, began, time.Minute)
		}
		l.Probed(key, time.Minute)
		if n := len(l.Lessons()); n != 0 {
			t.Errorf("%d lessons from a probe", n)
		}
		if die() {
			t.Error("one death was enough")
		}
		l.Probed(key, time.Minute)
		if die() {
			t.Error("a death counted that a probe had made void")
		}
		if !die() {
			t.Error("two that agree were not enough")
		}
	})
}
