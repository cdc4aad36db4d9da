package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	posts     = 20_000
	postsFull = 100_000
	postTime  = 52 * time.Second // in which they are sent, or it is said how many were not
	fullTime  = 350 * time.Second

	posters = 12 // at a time, of each client
	getters = 4

	pause    = 10 * time.Millisecond // of who has its answer
	deadline = 10 * time.Second      // of a request

	// late is for what may still be on its way to the origin when all is over.
	late = 2 * time.Second
)

// exactlyOnce is figure by figure what package main says of it.
func exactlyOnce(r *work.Report) (err error) {
	n, most := posts, postTime
	if r.Full {
		n, most = postsFull, fullTime
	}
	st, err := open(realIdle, three, ours, tuned)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	crowds := st.crowds(n)
	taken, toll, err := st.torment(crowds, most)
	if err != nil {
		return err
	}
	time.Sleep(late)
	for i := 0; i < len(crowds); i += 2 {
		notePosts(r, st.origin, crowds[i], crowds[i+1])
		noteGets(r, crowds[i], crowds[i+1])
	}
	r.Note(work.Told("the bodies of other requests", "", work.Number(st.origin.wrong())).AtMost(0))
	noteFaults(r, toll, taken)
	return nil
}

// crowds are those of all clients, who send n POSTs in all.
func (st *stage) crowds(n int) (all []*crowd) {
	begin := time.Now()
	for i, c := range st.clients {
		share := n / len(three)
		if i < len(st.clients)/len(three) {
			share += n % len(three)
		}
		all = append(all, &crowd{client: c, begin: begin, sent: make([]post, share), name: fmt.Sprint(i)})
	}
	return all
}

// torment lets the crowds send their requests while faults happen, until those of ours
// are done, and returns how long that took.
func (st *stage) torment(crowds []*crowd, most time.Duration) (took time.Duration, t toll, err error) {
	begin := crowds[0].begin
	life, end := context.WithDeadline(context.Background(), begin.Add(most))
	defer end()
	var mine, all sync.WaitGroup
	var harmed error
	for _, c := range crowds {
		if c.client.who == ours {
			mine.Go(func() { c.post(life) })
		} else {
			all.Go(func() { c.post(life) })
		}
		all.Go(func() { c.get(life) })
	}
	all.Go(func() { t, harmed = st.harm(life, begin) })
	mine.Wait()
	took = time.Since(begin)
	end()
	all.Wait()
	return took, t, harmed
}

// A crowd is those who use one client.
type crowd struct {
	client *client
	begin  time.Time
	name   string
	next   atomic.Int64
	sent   []post // each is written once, by whoever sends it

	mu  sync.Mutex // guards got
	got gets
}

// A fate is what the client was told of a request.
type fate uint8

const (
	unsent   fate = iota // nobody has begun it, or the end came before the answer
	answered             // with success
	strange              // with something else than its answer
	safe                 // it has failed, and cannot have run
	unknown              // it has failed, and may have run
)

// A post is one POST and its fate.
type post struct {
	fate fate
	err  error
}

// gets are the GETs and HEADs of a crowd.
type gets struct {
	all, failed int
	broken      int // answers that ended in the middle, which no client can mend
	causes      work.Causes
	slowest     time.Duration
}

// post sends all POSTs, some at a time, until life ends.
func (c *crowd) post(life context.Context) {
	var wg sync.WaitGroup
	for range posters {
		wg.Go(func() {
			for c.ready(life) {
				i := int(c.next.Add(1)) - 1
				if i >= len(c.sent) {
					return
				}
				c.sent[i] = c.once(life, i)
			}
		})
	}
	wg.Wait()
}

// ready waits as long as everybody rests, and a little in any case. It reports false
// if life has ended.
func (c *crowd) ready(life context.Context) bool {
	return until(life, time.Now().Add(pause+resting(time.Since(c.begin))))
}

// id is that of a POST.
func (c *crowd) id(i int) string { return fmt.Sprintf("%s.%d", c.name, i) }

// once sends a POST, once as far as it is concerned.
func (c *crowd) once(life context.Context, i int) post {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(life), deadline)
	defer cancel()
	defer context.AfterFunc(life, func() {
		if c.client.who != ours { // what ours has begun is ended
			cancel()
		}
	})()
	id := c.id(i)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.client.base+"/count", body(id, i%2 == 1))
	if err != nil {
		return post{strange, err}
	}
	err = c.client.answered(req, id)
	if err != nil && context.Cause(ctx) == context.Canceled {
		return post{}
	}
	return post{judge(err), err}
}

// padding makes bodies of all lengths.
var padding = strings.Repeat("p", 16<<10)

// body is the id and some more, in memory or as a stream of unknown length.
func body(id string, streamed bool) io.Reader {
	r := strings.NewReader(id + "\n" + padding[:rand.N(len(padding))])
	if streamed {
		return struct{ io.Reader }{r}
	}
	return r
}

var (
	errStrange = errors.New("an answer that is not the request's")
	errBroken  = errors.New("an answer that ended in the middle")
)

// answered sends a request and reads the answer, which has to be its own.
func (c *client) answered(req *http.Request, id string) error {
	req.Header.Set(idField, id)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errBroken, err)
	case resp.StatusCode != http.StatusOK || resp.Header.Get(idField) != id || req.Method != http.MethodHead && string(text) != id:
		return fmt.Errorf("%w: %s %q", errStrange, resp.Status, text)
	}
	return nil
}

// judge says what a client is told by err.
func judge(err error) fate {
	switch {
	case err == nil:
		return answered
	case errors.Is(err, errStrange):
		return strange
	case dialer.SafeToRetry(err):
		return safe
	}
	return unknown
}

// get sends GETs and HEADs, some at a time, until life ends.
func (c *crowd) get(life context.Context) {
	var wg sync.WaitGroup
	for range getters {
		wg.Go(func() {
			for i := 0; c.ready(life); i++ {
				method := http.MethodGet
				if i%4 == 3 {
					method = http.MethodHead
				}
				c.ask(life, method)
			}
		})
	}
	wg.Wait()
}

func (c *crowd) ask(life context.Context, method string) {
	ctx, cancel := context.WithTimeout(life, deadline)
	defer cancel()
	var tries tries
	req, err := http.NewRequestWithContext(tries.in(ctx), method, c.client.base+"/", nil)
	begin := time.Now()
	if err == nil {
		err = c.client.answered(req, fmt.Sprint(begin.UnixNano()))
	}
	took := time.Since(begin)
	if life.Err() != nil {
		return // its deadline was not waited for
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got.all++
	c.got.slowest = max(c.got.slowest, took)
	switch {
	case errors.Is(err, errBroken):
		c.got.broken++
	case err != nil:
		c.got.failed++
		c.got.causes.Add(fmt.Errorf("%w, %v", err, &tries))
	}
}

// tries are the connections that a request was sent on.
type tries struct {
	mu   sync.Mutex // guards each
	each []string
}

// in notes them.
func (t *tries) in(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if info.Reused {
			t.each = append(t.each, "a kept one")
		} else {
			t.each = append(t.each, "a fresh one")
		}
	}})
}

func (t *tries) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.each) == 0 {
		return "on no connection"
	}
	return "on " + strings.Join(t.each, ", then on ")
}

// A verdict is what the origin knows of the POSTs of a crowd, beside what their clients
// were told.
type verdict struct {
	sent, answered, safe int
	ran, lost            int // of those that may have run: they did, or did not

	// What must not be.
	twice    int // the origin has counted them more than once
	phantoms int // succeeded, and were never counted
	broken   int // cannot have run, and were counted
	strange  int // were answered with something else

	causes map[fate]work.Causes
}

// weigh compares each request's fate with the origin's count of it.
func weigh(sent []post, count func(i int) int) (v verdict) {
	v.causes = make(map[fate]work.Causes)
	for i, p := range sent {
		n := count(i)
		if n > 1 {
			v.twice++
		}
		if p.fate == unsent {
			continue
		}
		v.sent++
		if p.err != nil {
			of := v.causes[p.fate]
			of.Add(p.err)
			v.causes[p.fate] = of
		}
		switch {
		case p.fate == strange:
			v.strange++
		case p.fate == answered && n == 0:
			v.phantoms++
		case p.fate == answered:
			v.answered++
		case p.fate == safe && n > 0:
			v.broken++
		case p.fate == safe:
			v.safe++
		case n > 0:
			v.ran++
		default:
			v.lost++
		}
	}
	return v
}

// notePosts notes what became of the POSTs of ours and of a peer.
func notePosts(r *work.Report, o *origin, own, other *crowd) {
	v := weigh(own.sent, func(i int) int { return o.count(own.id(i)) })
	p := weigh(other.sent, func(i int) int { return o.count(other.id(i)) })
	over, peer := own.client.over, other.client.who
	for _, f := range []struct {
		figure     string
		own, other int
		of         fate // whose causes are told
		asked      bool // that there is none
	}{
		{"POSTs", v.sent, p.sent, answered, false},
		{"succeeded", v.answered, p.answered, answered, false},
		{"failed, cannot have run, did not", v.safe, p.safe, safe, false},
		{"failed, may have run, did", v.ran, p.ran, unknown, false},
		{"failed, may have run, did not", v.lost, p.lost, answered, false},
		{"ran twice", v.twice, p.twice, answered, true},
		{"succeeded, never ran", v.phantoms, p.phantoms, answered, true},
		{"failed, cannot have run, did", v.broken, p.broken, answered, true},
		{"answered with something else", v.strange, p.strange, strange, true},
	} {
		m := told(over, f.figure, "", work.Number(f.own)).Beside(peer, work.Number(f.other)).Said(v.causes[f.of].Err(), p.causes[f.of].Err())
		if f.asked {
			m = m.AtMost(0)
		}
		if want := len(own.sent); f.figure == "POSTs" && f.own < want {
			m.Miss("%d were to be sent, and time was over", want)
		}
		r.Note(m)
	}
}

// noteGets notes what became of the GETs and HEADs.
func noteGets(r *work.Report, own, other *crowd) {
	over, peer := own.client.over, other.client.who
	r.Note(told(over, "GETs and HEADs", "", work.Number(own.got.all)).Beside(peer, work.Number(other.got.all)))
	r.Note(told(over, "GETs and HEADs that failed", "", work.Number(own.got.failed)).Beside(peer, work.Number(other.got.failed)).
		Said(own.got.causes.Err(), other.got.causes.Err()).AtMost(0))
	r.Note(told(over, "GETs and HEADs whose answer ended in the middle", "", work.Number(own.got.broken)).Beside(peer, work.Number(other.got.broken)))
	r.Note(told(over, "the slowest GET or HEAD", "s", work.Seconds(own.got.slowest)).Beside(peer, work.Seconds(other.got.slowest)))
}

// noteFaults notes how often what struck. What never did has proved nothing.
func noteFaults(r *work.Report, t toll, took time.Duration) {
	for _, f := range []struct {
		figure string
		kind   kind
	}{
		{"flows forgotten by the gateway", forget},
		{"flows reset by the gateway", sever},
		{"flows reset by the origin", reset},
		{"the origin killed, FIN", killFIN},
		{"the origin killed, RST", killRST},
		{"the origin killed, without a word", vanish},
	} {
		m := work.Told(f.figure, "", work.Number(t[f.kind]))
		if t[f.kind] == 0 && took >= round {
			m.Miss("there was none")
		}
		r.Note(m)
	}
	r.Note(work.Told("it took", "s", work.Seconds(took)))
}
