package debug

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

const (
	heartbeat = 15 * time.Second

	// stuck is how long a viewer may take to read before its place is given to another.
	stuck = 30 * time.Second
)

// An encoded event goes to each viewer as it is.
type encoded struct{ plain, deflated []byte }

// A coder encodes for all viewers at once. What it deflates can follow anything that was
// deflated before, since it refers to nothing outside: so that each viewer has a stream of its
// own, and the work is done once.
type coder struct {
	out bytes.Buffer
	to  *flate.Writer
}

func (c *coder) encode(s state) encoded {
	data, err := json.Marshal(s)
	if err != nil {
		panic("debug: " + err.Error()) // numbers and strings
	}
	var b []byte
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, s.At, 10)
	b = append(b, "\nevent: state\ndata: "...)
	b = append(b, data...)
	return c.deflate(append(b, "\n\n"...))
}

func (c *coder) deflate(plain []byte) encoded {
	c.out.Reset()
	if c.to == nil {
		c.to, _ = flate.NewWriter(&c.out, flate.BestSpeed) // the level is one
	} else {
		c.to.Reset(&c.out)
	}
	c.to.Write(plain)
	c.to.Flush()
	return encoded{plain, bytes.Clone(c.out.Bytes())}
}

// gzipHead begins a stream that has no end (RFC 1952, section 2.3).
var gzipHead = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

// A viewer is one who is shown each event, or if that takes it too long, the latest.
type viewer struct {
	next chan encoded  // capacity one: whoever shows never waits for whoever sees
	over chan struct{} // closed when its server is shut down
}

// show puts e in the place of one that was not taken. Only one goroutine at a time may.
func (v *viewer) show(e encoded) {
	select {
	case <-v.next:
	default:
	}
	v.next <- e
}

// stream answers with events, one a second, for as long as the viewer stays.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would wait for more
	h.Set("Vary", "Accept-Encoding")
	if r.Method == http.MethodHead {
		return
	}
	v, ok := p.join(r)
	if !ok {
		h.Set("Retry-After", "5")
		http.Error(w, "16 viewers are the most that this page has", http.StatusServiceUnavailable)
		return
	}
	defer p.leave(v)
	out := newOutlet(w, r)
	if !out.flushes {
		// What it is shown first is all of this answer. A browser asks again by itself, and then
		// from there on.
		out.put([]byte("retry: 1000\n\n"))
		out.put((<-v.next).plain)
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	p.recorder.mu.Lock()
	hello, pulse := p.recorder.coder.deflate([]byte("retry: 2000\n\n")), p.recorder.coder.deflate([]byte(": here\n\n"))
	p.recorder.mu.Unlock()
	out.write(hello)
	for out.err == nil {
		select {
		case e := <-v.next:
			out.write(e)
		case <-beat.C:
			out.write(pulse)
		case <-v.over:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// join makes a viewer, who is first shown all there is.
func (p *Page) join(r *http.Request) (*viewer, bool) {
	c := &p.recorder
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || len(c.viewers) >= mostViewers {
		return nil, false
	}
	p.seenLocked()
	v := &viewer{next: make(chan encoded, 1), over: make(chan struct{})}
	if c.viewers == nil {
		c.viewers = make(map[*viewer]struct{})
	}
	c.viewers[v] = struct{}{}
	shown := p.freshLocked().state
	if known, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		shown.History = c.record.total.since(known + 1)
	}
	v.show(c.coder.encode(shown))
	if s, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		p.endWithLocked(s)
	}
	return v, true
}

func (p *Page) leave(v *viewer) {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	delete(p.recorder.viewers, v)
	p.recorder.asked = time.Now()
}

// endWithLocked lets a server be shut down, which waits for every request: those of viewers
// would never end.
func (p *Page) endWithLocked(s *http.Server) {
	r := &p.recorder
	if _, known := r.servers[s]; known {
		return
	}
	if r.servers == nil {
		r.servers = make(map[*http.Server]struct{})
	}
	r.servers[s] = struct{}{}
	s.RegisterOnShutdown(p.endAll)
}

// endAll ends what all viewers see; those of another server come back.
func (p *Page) endAll() {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	for v := range p.recorder.viewers {
		close(v.over)
		delete(p.recorder.viewers, v)
	}
}

// An outlet writes events to one viewer.
type outlet struct {
	to      http.ResponseWriter
	ctl     *http.ResponseController
	flushes bool // else nothing goes out before the answer is whole
	zip     bool
	err     error // the first
}

func newOutlet(w http.ResponseWriter, r *http.Request) *outlet {
	o := &outlet{to: w, ctl: http.NewResponseController(w), flushes: flushes(w)}
	o.zip = o.flushes && takesGzip(r)
	if o.zip {
		w.Header().Set("Content-Encoding", "gzip")
		o.put(gzipHead)
	}
	return o
}

// flushes reports whether an http.ResponseController can flush w. One that is asked to do so
// sends the headers, for which it is too early.
func flushes(w http.ResponseWriter) bool {
	for {
		switch to := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = to.Unwrap()
		default:
			return false
		}
	}
}

func (o *outlet) write(e encoded) {
	// Not the deadline that the server has set for a whole answer; and where nobody can set
	// one, there is none.
	o.ctl.SetWriteDeadline(time.Now().Add(stuck))
	if o.zip {
		o.put(e.deflated)
	} else {
		o.put(e.plain)
	}
	if o.err == nil {
		o.err = o.ctl.Flush()
	}
}

func (o *outlet) put(b []byte) {
	if o.err == nil {
		_, o.err = o.to.Write(b)
	}
}
