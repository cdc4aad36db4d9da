package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// maxFruitless is after how many rounds in a row that taught nothing a search
// ends.
const maxFruitless = 2

// firstGap is where a search begins: where one round of doublings, side by side,
// reaches the longest, but not below what any kernel's probes could keep alive.
func firstGap(most time.Duration, parallel int) time.Duration {
	return max(most>>max(parallel-1, 6), time.Second)
}

// estimate is how long a search takes on a path that forgets after d: doubling,
// then rounds of bisection until what is left is a tenth, then the second vote.
func estimate(d time.Duration, parallel int) time.Duration {
	doubling := 2 * d // a round ends with its first death
	if parallel < 7 {
		doubling *= 2
	}
	rounds := math.Ceil(math.Log(10) / math.Log(float64(parallel+1)))
	return doubling + time.Duration(rounds+1)*d
}

// A search finds out for how long the path remembers.
type search struct {
	*prober
	learner keepalive.Learner
	key     netpath.Key
	from    netpath.Profile
	found   idleFinding
	actions map[netpath.IdleAction]int
}

// An idleFinding is what is known of the path's memory.
type idleFinding struct {
	keepalive.Lesson
	most      time.Duration // up to which it was searched
	action    netpath.IdleAction
	certified bool // the kernel saw that nothing slipped into any gap
	flows     int
	err       error // why the search did not come to its end
}

// findIdle searches until the bracket is a tenth wide, or ctx ends.
func (p *prober) findIdle(ctx context.Context) idleFinding {
	s := &search{
		prober:  p,
		learner: keepalive.Learner{Expires: -1},
		key:     netpath.Key{Dest: p.dest, Network: "tcp"},
		from:    netpath.Profile{Idle: firstGap(p.max, p.parallel)},
		found:   idleFinding{most: p.max, certified: true},
		actions: make(map[netpath.IdleAction]int),
	}
	s.found.err = s.run(ctx)
	for _, lesson := range s.learner.Lessons() { // at most one
		s.found.Lesson = lesson
	}
	for action, n := range s.actions {
		if n > s.actions[s.found.action] {
			s.found.action = action
		}
	}
	return s.found
}

func (s *search) run(ctx context.Context) error {
	greeting, err := s.begin(ctx)
	if err != nil {
		return err
	}
	greeting.Close()
	for fruitless := 0; ; {
		gaps := s.learner.Next(s.key, s.from, s.found.most, s.parallel)
		if len(gaps) == 0 {
			return nil
		}
		learned, err := s.round(ctx, gaps)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case learned:
			fruitless = 0
		default:
			if fruitless++; fruitless == maxFruitless {
				return fmt.Errorf("%d rounds without a result, the last: %w", fruitless, err)
			}
		}
	}
}

// round tries gaps side by side. A death makes it give up the longer ones. The
// error is why one of them says nothing.
func (s *search) round(ctx context.Context, gaps []time.Duration) (learned bool, err error) {
	s.say("silent, side by side: %v", shorts(gaps))
	results := make(chan gap, len(gaps))
	giveUp := make([]context.CancelFunc, len(gaps))
	for i, planned := range gaps {
		var one context.Context
		one, giveUp[i] = context.WithCancel(ctx)
		defer giveUp[i]()
		go func() { results <- s.gap(one, planned) }()
	}
	for range gaps {
		g := <-results
		if s.learn(g); g.err == nil {
			learned = true
		} else if !errors.Is(g.err, context.Canceled) {
			err = g.err
		}
		for i, planned := range gaps {
			if g.ended() && planned > g.planned {
				giveUp[i]()
			}
		}
	}
	return learned, err
}

// learn takes what became of a gap for what it says.
func (s *search) learn(g gap) {
	s.found.flows++
	if g.err != nil {
		if !errors.Is(g.err, context.Canceled) {
			s.say("  %v: not certified: %v", short(g.planned), g.err)
		}
		return
	}
	s.say("  %v: %v", g.length.Round(time.Millisecond), g.fate)
	s.found.certified = s.found.certified && g.certified
	switch g.fate {
	case survived:
		s.learner.Survived(s.key, g.length)
	case closed:
		s.learner.Closed(s.key, g.length)
		s.found.most = min(s.found.most, g.length*9/10) // beyond that nothing else can be seen
	default:
		s.learner.Died(s.key, g.began, g.length)
		s.actions[actions[g.fate]]++
	}
}

// A fate is what became of a silent connection.
type fate uint8

const (
	survived  fate = iota // it answered
	dropped               // it did not, and a new connection did
	resetNext             // what was sent on it was answered with a RST
	resetBoth             // a RST came by itself
	closed                // a FIN came by itself
)

// actions are what the path does with a flow that it forgot, by how that shows.
var actions = map[fate]netpath.IdleAction{dropped: netpath.Drop, resetNext: netpath.ResetNext, resetBoth: netpath.ResetBoth}

func (f fate) String() string {
	return [...]string{"survived", "no answer after it, while a new connection works", "answered with a RST", "a RST came", "a FIN came"}[f]
}

// A gap is a silence and what became of it.
type gap struct {
	planned   time.Duration
	err       error // why nothing is known; the fields below say nothing then
	fate      fate
	began     time.Time
	length    time.Duration // at least, where it was survived; at most, where not
	certified bool
}

// ended reports whether the silence was too long.
func (g gap) ended() bool { return g.err == nil && g.fate != survived }

// gap leaves a new connection silent and sees what has become of it.
func (p *prober) gap(ctx context.Context, planned time.Duration) gap {
	g := gap{planned: planned}
	f, err := p.begin(ctx)
	if err != nil {
		g.err = err
		return g
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	g.err = g.observe(ctx, f)
	if ctx.Err() != nil {
		g.err = ctx.Err()
	}
	if g.err != nil || g.ended() {
		f.abandon() // first: the control connection may need its port
	} else {
		f.Close()
	}
	if g.err == nil && g.fate == dropped {
		control, err := p.connect(ctx, connectPatience)
		if err != nil {
			g.err = fmt.Errorf("no answer, but no new connection either: %w", err)
			return g
		}
		control.Close()
	}
	return g
}

// begin opens a flow, and waits where the ports are still held for earlier ones.
func (p *prober) begin(ctx context.Context) (*flow, error) {
	start := time.Now()
	for {
		f, err := p.connect(ctx, connectPatience)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, errNoAnswer) || time.Since(start) > patientHold:
			return nil, fmt.Errorf("no connection to begin with: %w", err)
		}
		if err := pause(ctx, connectPatience); err != nil {
			return nil, err
		}
	}
}

// observe waits in silence, then asks, and says what it saw.
func (g *gap) observe(ctx context.Context, f *flow) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	before, counted := f.segments()
	g.began, g.certified = f.answered, counted
	quiet := time.Now()
	err := f.hush(quiet.Add(g.planned))
	g.length = time.Since(g.began)
	switch fault := keepalive.FaultOf(err); {
	case slept(quiet):
		return errors.New("this machine was stopped meanwhile")
	case fault == keepalive.Finished:
		g.fate = closed
		return nil
	case fault == keepalive.Reset:
		g.fate = resetBoth
		return nil
	case err != nil:
		return err
	}
	if after, _ := f.segments(); counted && after != before {
		return fmt.Errorf("%d segments slipped into the silence", after-before)
	}
	waited := time.Since(quiet)
	err = f.ask(f.patience())
	switch keepalive.FaultOf(err) {
	case keepalive.Deadline, keepalive.Blackhole:
		g.fate = dropped
		return nil
	case keepalive.Reset:
		g.fate = resetNext
		return nil
	}
	g.fate, g.length = survived, waited
	return err
}

// slept reports whether the two clocks went apart: the machine was suspended.
func slept(since time.Time) bool {
	wall := time.Now().Round(0).Sub(since.Round(0))
	return (wall - time.Since(since)).Abs() > time.Second
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
