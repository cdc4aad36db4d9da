package work

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// crowdOf sends n things, each of which takes some time if nobody calls it off.
func crowdOf(n int, ours bool, takes time.Duration) *Crowd {
	return &Crowd{
		Ours: ours, Hands: 2, Deadline: 5 * time.Second,
		Pause: func() time.Duration { return time.Second },
		Judge: func(err error) Fate { return FateOf(err, io.EOF, func(error) bool { return false }) },
		Send: func(ctx context.Context, _ int) error {
			select {
			case <-time.After(takes):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		Sent: make([]Sent, n),
	}
}

// fates counts what became of what a crowd has sent.
func fates(c *Crowd) map[Fate]int {
	n := make(map[Fate]int)
	for _, s := range c.Sent {
		n[s.Fate]++
	}
	return n
}

func harmless(Kind) (int, error) { return 1, nil }

func TestAllIsOverWhenOursIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, peer := crowdOf(4, true, time.Second), crowdOf(100, false, 3*time.Second)
		var others time.Duration
		begin := time.Now()
		ours.Besides = func(life context.Context) {
			<-life.Done()
			others = time.Since(begin)
		}
		took, toll, err := sample().Torment([]*Crowd{ours, peer}, time.Hour, harmless)
		if err != nil || took != 5*time.Second || others != took { // 1 s of pause and 1 s, twice, and the pause of who finds no more
			t.Errorf("it took %v, the rest %v: %v", took, others, err)
		}
		if n := fates(ours); n[Succeeded] != 4 {
			t.Errorf("ours: %v", n)
		}
		// A second one was under way, and called off.
		if n := fates(peer); n[Succeeded] != 2 || n[Unsent] != 98 {
			t.Errorf("the peer: %v", n)
		}
		if toll[prick] == 0 {
			t.Errorf("nothing struck: %v", toll)
		}
	})
}

func TestOursEndsWhatItHasBegunWhenTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := crowdOf(100, true, 3*time.Second)
		took, _, err := sample().Torment([]*Crowd{ours}, 2*time.Second, harmless)
		if n := fates(ours); err != nil || took != 4*time.Second || n[Succeeded] != 2 || n[Unsent] != 98 {
			t.Errorf("%v after %v: %v", n, took, err)
		}
	})
}

func TestWhatDoesNotEndHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := crowdOf(2, true, time.Hour)
		if _, _, err := sample().Torment([]*Crowd{ours}, time.Hour, harmless); err != nil {
			t.Error(err)
		}
		for _, s := range ours.Sent {
			if s.Fate != Unknown || s.Err != context.DeadlineExceeded {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestNobodySendsWhileAllRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := crowdOf(20, true, 0)
		begin := time.Now()
		ours.Send = func(context.Context, int) error {
			if paused := time.Since(begin) - ours.Pause(); Resting(paused) > 0 {
				t.Errorf("sent at rest, after %v", time.Since(begin))
			}
			return nil
		}
		if took, _, err := sample().Torment([]*Crowd{ours}, time.Hour, harmless); err != nil || took < Half {
			t.Errorf("it took %v: %v", took, err)
		}
	})
}

func TestABadScheduleTormentsNobody(t *testing.T) {
	ours, s := crowdOf(1, true, 0), sample()
	s.Outages = s.Outages[:1]
	if _, _, err := s.Torment([]*Crowd{ours}, time.Hour, harmless); err == nil || fates(ours)[Unsent] != 1 {
		t.Errorf("%v: %v", ours.Sent, err)
	}
}
