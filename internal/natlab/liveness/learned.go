package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	toldIdle     = 8 * time.Second // what natwise is told of each of these paths
	bracketBound = 0.1             // of the upper end
	mostLessons  = 30
)

// truths are for how long they really remember.
var truths = []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second}

// learned lets connections that are about to be closed teach what three paths
// remember, all of them less than natwise was told.
func learned(r *work.Report) error {
	errs := make([]error, len(truths))
	var all sync.WaitGroup
	for i, truth := range truths {
		all.Go(func() { errs[i] = learn(r, truth) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func learn(r *work.Report, truth time.Duration) (err error) {
	path := roomy()
	path.Idle = truth
	st, err := open(natlab.Config{Path: path})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	path.Idle = toldIdle
	p := &pupil{stage: st, told: path, learner: new(keepalive.Learner)}
	p.dialer = &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}, Dial: st.Dial, Learner: p.learner}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	began := time.Now()
	for lessons := 0; ; lessons++ {
		taught, err := p.lesson(ctx)
		if err != nil {
			return err
		}
		if !taught {
			break
		}
		if lessons == mostLessons {
			return fmt.Errorf("after %d lessons there is still something to learn: %+v", lessons, p.known())
		}
	}
	use, found := fmt.Sprintf("forgets after %v", truth), p.known()
	m := measured("what it may be, of its longest", "", work.Ratio(float64(found.Hi-found.Lo), float64(found.Hi)), bracketBound)
	if found.Lo > truth || found.Hi < truth {
		m.Miss("the learner found %v to %v", found.Lo, found.Hi)
	}
	r.Note(m.At("", use))
	r.Note(measured("intervals used that were not proved", "", work.Number(p.unproved), 0).At("", use))
	r.Note(work.Told("until it was learned", "s", work.Seconds(time.Since(began))).At("", use))
	return nil
}

// A pupil learns about one path.
type pupil struct {
	*stage
	told     netpath.Profile
	learner  *keepalive.Learner
	dialer   *dialer.Dialer
	unproved int
}

// lesson has one connection teach, and reports whether it had anything to.
func (p *pupil) lesson(ctx context.Context) (taught bool, err error) {
	s, err := p.dial(ctx)
	if err != nil {
		return false, err
	}
	defer s.close()
	c, _ := dialer.Unwrap(s.Conn)
	began := time.Now()
	c.Teach(ctx, s.ask, func(ctx context.Context) error {
		another, err := p.dial(ctx)
		if err != nil {
			return err
		}
		defer another.close()
		return another.ask(ctx)
	})
	p.check(c)
	return time.Since(began) > time.Second, ctx.Err()
}

func (p *pupil) dial(ctx context.Context) (*stream, error) {
	c, err := p.dialer.DialContext(ctx, "tcp", at(p.Server(0), plain).String())
	if err != nil {
		return nil, err
	}
	return newStream(c), nil
}

func (p *pupil) known() keepalive.Lesson {
	for _, l := range p.learner.Lessons() {
		return l
	}
	return keepalive.Lesson{}
}

// check counts the silence that fresh connections on this path are allowed to keep
// if it is neither proved nor what natwise was told, as far as that holds.
func (p *pupil) check(c *dialer.Conn) {
	known := p.known()
	allowed := max(known.Lo, toldIdle)
	if known.Hi > 0 && known.Hi <= toldIdle {
		allowed = max(known.Lo, known.Hi/2)
	}
	key := netpath.Key{Dest: addrPort(c.RemoteAddr()), Network: "tcp"}
	if p.learner.Path(key, p.told).Idle > allowed {
		p.unproved++
	}
}
