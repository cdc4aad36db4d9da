package debug

import (
	"time"

	"github.com/natwise/natwise/dialer"
)

// Told is what is said of a diagnosis, and what to do.
func Told(d dialer.Diagnosis) (what, do string) {
	t := troubleOf(d)
	return t.What, t.Do
}

// LastLook is when the page looked at its ledger last, as far as it remembers.
func (p *Page) LastLook() time.Time {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	if p.recorder.last == nil {
		return time.Time{}
	}
	return p.recorder.last.at
}

// Remembers tells of how many destinations a past is kept, all together being one, and how
// much of it.
func (p *Page) Remembers() (rings, samples int) {
	r := &p.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	samples = cap(r.record.total.kept)
	for _, of := range r.record.by {
		samples += cap(of.kept)
	}
	return 1 + len(r.record.by), samples
}

// Tick looks as the page does once a second, encodes what it has seen for its viewers, and
// returns how long that is as it is and deflated.
func (p *Page) Tick() (plain, deflated int) {
	r := &p.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	s := p.lookLocked()
	r.record.add(s)
	shown := s.state
	shown.History = r.record.total.last()
	e := r.coder.encode(shown)
	return len(e.plain), len(e.deflated)
}
