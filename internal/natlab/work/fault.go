package work

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// A Fault is something that happens at a time of each round.
type Fault struct {
	At   time.Duration
	Kind Kind
}

// A Kind of fault is one that somebody can do.
type Kind int

// A Round is what happens again and again: work, then a rest, twice.
const (
	Round  = 20 * time.Second
	Half   = Round / 2
	Outage = time.Second // then what was killed is started again

	// RealIdle is what a path remembers whose clients are told of Path. A rest is longer.
	RealIdle = 3 * time.Second

	working    = 6500 * time.Millisecond // of each half, then all rest
	faultEvery = 500 * time.Millisecond  // for each client
)

// Resting returns for how long nobody asks anything, so long after the beginning.
func Resting(since time.Duration) time.Duration {
	if now := since % Half; now >= working {
		return Half - now
	}
	return 0
}

// Until waits for a time. It reports false if ctx ends before.
func Until(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A Schedule is what happens in a round. In the first rest nothing does, so that the path
// forgets what is idle; the second one is disturbed.
type Schedule struct {
	Outages []Fault
	Restart Kind     // ends each of them after Outage; it comes in the end too, where all may run
	Singles []Kind   // come in turn while all work and nothing is out
	Figures []string // by Kind: as what it is told how often that has struck
}

// Faults are those of a round, in order.
func (s *Schedule) Faults() (all []Fault) {
	for _, out := range s.Outages {
		all = append(all, out, Fault{out.At + Outage, s.Restart})
	}
	for i, at := 0, faultEvery; at < Round; at += faultEvery {
		down := slices.ContainsFunc(all, func(f Fault) bool { return f.Kind == s.Restart && at >= f.At-Outage && at <= f.At })
		if Resting(at) == 0 && !down {
			all = append(all, Fault{at, s.Singles[i%len(s.Singles)]})
			i++
		}
	}
	slices.SortStableFunc(all, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return all
}

// Check returns what is wrong with s: a fault that never comes proves nothing, nor does a
// first rest that is disturbed.
func (s *Schedule) Check() error {
	var out bool
	var disturbed [2]bool
	comes := make(map[Kind]bool)
	for _, f := range s.Faults() {
		outage := slices.Contains(s.Outages, f)
		switch {
		case f.At >= Round:
			return fmt.Errorf("fault %d comes at %v, after the round", f.Kind, f.At)
		case outage && out:
			return fmt.Errorf("fault %d comes at %v, before the last outage is over", f.Kind, f.At)
		case Resting(f.At) > 0:
			disturbed[f.At/Half] = true
		}
		comes[f.Kind] = true
		out = outage || out && f.Kind != s.Restart
	}
	for k, figure := range s.Figures {
		if !comes[Kind(k)] {
			return fmt.Errorf("fault %d never comes: %s", k, figure)
		}
	}
	if disturbed != [2]bool{false, true} {
		return fmt.Errorf("the second rest alone is to be disturbed: %v", disturbed)
	}
	return nil
}

// A Toll is how often each fault has struck.
type Toll map[Kind]int

// Harm does the faults of one round after the other, until ctx ends; what was killed runs
// then. Whoever does one says how often it has struck.
func (s *Schedule) Harm(ctx context.Context, begin time.Time, do func(Kind) (struck int, err error)) (Toll, error) {
	t := make(Toll)
	strike := func(k Kind) error {
		n, err := do(k)
		t[k] += n
		if err != nil {
			return fmt.Errorf("fault %d: %w", k, err)
		}
		return nil
	}
	for n := time.Duration(0); ; n += Round {
		for _, f := range s.Faults() {
			if !Until(ctx, begin.Add(n+f.At)) {
				return t, strike(s.Restart)
			}
			if err := strike(f.Kind); err != nil {
				return t, err
			}
		}
	}
}

// Note notes how often what struck. What never did has proved nothing.
func (s *Schedule) Note(r *Report, t Toll, took time.Duration) {
	for k, figure := range s.Figures {
		m := Told(figure, "", Number(t[Kind(k)]))
		if t[Kind(k)] == 0 && took >= Round {
			m.Miss("there was none")
		}
		r.Note(m)
	}
	r.Note(Told("it took", "s", Seconds(took)))
}
