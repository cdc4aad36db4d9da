package debug

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	// patience is for how long it is recorded what nobody sees.
	patience = 15 * time.Minute

	// fresh is how old a look may be that somebody gets who asks: however many ask, the
	// ledger is looked at a few times a second.
	fresh = 250 * time.Millisecond

	mostViewers = 16
)

// A recorder looks once a second while somebody does, and remembers.
type recorder struct {
	mu      sync.Mutex // guards the fields below; held while looking, so that all who ask share one look
	last    *sight
	record  record
	running bool
	asked   time.Time // when somebody did, last
	holds   int       // calls of Page.Record
	viewers map[*viewer]struct{}
	over    chan struct{} // closed by Page.Close; nil: nobody needs it yet
	shut    bool
	servers map[*http.Server]struct{} // that tell when they are shut down
	coder   coder
}

// Record keeps the last 15 minutes while nobody looks, too, until ctx is done, and returns
// why. It blocks: the caller writes
//
//	go page.Record(ctx)
func (p *Page) Record(ctx context.Context) error {
	r := &p.recorder
	r.mu.Lock()
	over := r.overLocked()
	r.holds++
	p.runLocked()
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.holds--
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-over:
		return errClosed
	}
}

var errClosed = errors.New("debug: page closed")

// Close ends what is recorded and what viewers see, at once; from then on the page answers that
// it is closed. Only who cannot wait for that quarter of an hour needs it: a test that looks for
// goroutines left behind. It always returns nil.
func (p *Page) Close() error {
	r := &p.recorder
	r.mu.Lock()
	if over := r.overLocked(); !r.shut {
		r.shut = true
		close(over)
	}
	r.mu.Unlock()
	p.endAll()
	return nil
}

func (p *Page) closed() bool {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	return p.recorder.shut
}

func (r *recorder) overLocked() chan struct{} {
	if r.over == nil {
		r.over = make(chan struct{})
	}
	return r.over
}

// seen says that somebody looks.
func (p *Page) seen() {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	p.seenLocked()
}

func (p *Page) seenLocked() {
	p.recorder.asked = time.Now()
	p.runLocked()
}

func (p *Page) runLocked() {
	if r := &p.recorder; !r.running && !r.shut {
		r.running = true
		r.asked = time.Now()
		r.record.add(p.beginLocked())
		go p.run(r.overLocked())
	}
}

// beginLocked is how it is before the first tick: what happens until then has happened since. Of
// a ledger that nobody uses yet nothing is asked, since its fields may still be set.
func (p *Page) beginLocked() *sight {
	if p.ledger().Used() {
		return p.lookLocked()
	}
	return &sight{at: time.Now(), state: state{Ports: ports{Limit: netpath.None}}}
}

// run looks once a second until nobody has looked for long.
func (p *Page) run(over <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			if !p.tick() {
				return
			}
		}
	}
}

// tick looks, remembers, and shows all viewers.
func (p *Page) tick() (more bool) {
	r := &p.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.viewers) > 0 || r.holds > 0 {
		r.asked = time.Now()
	}
	if time.Since(r.asked) >= patience {
		r.running, r.last = false, nil
		return false
	}
	s := p.lookLocked()
	r.record.add(s)
	if len(r.viewers) == 0 {
		return true
	}
	shown := s.state
	shown.History = r.record.total.last()
	e := r.coder.encode(shown)
	for v := range r.viewers {
		v.show(e)
	}
	return true
}

// now is what is there now.
func (p *Page) now() *sight {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	p.seenLocked()
	return p.freshLocked()
}

func (p *Page) freshLocked() *sight {
	if s := p.recorder.last; s != nil && time.Since(s.at) < fresh {
		return s
	}
	return p.lookLocked()
}

func (p *Page) lookLocked() *sight {
	r := &p.recorder
	s := look(p.ledger(), p.Learner)
	s.state = s.tell(r.record.rates(s))
	for i := range s.state.Destinations {
		if of := r.record.by[s.state.Destinations[i].key]; of != nil {
			s.state.Destinations[i].Trend = of.trend(s.at)
		}
	}
	s.state.History = r.record.total.since(s.at.Add(-kept).UnixMilli())
	r.last = s
	return s
}
