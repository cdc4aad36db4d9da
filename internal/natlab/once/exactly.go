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
	st, err := open(work.RealIdle, three, ours, tuned)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	crowds := st.crowds(n)
	var all []*work.Crowd
	for _, c := range crowds {
		all = append(all, &c.Crowd)
	}
	taken, toll, err := faults.Torment(all, most, st.do)
	if err != nil {
		return err
	}
	time.Sleep(late)
	for i := 0; i < len(crowds); i += 2 {
		notePosts(r, st.origin, crowds[i], crowds[i+1])
		noteGets(r, crowds[i], crowds[i+1])
	}
	r.Note(work.Told("the bodies of other requests", "", work.Number(st.origin.wrong())).AtMost(0))
	faults.Note(r, toll, taken)
	return nil
}

// A crowd is those who use one client.
type crowd struct {
	work.Crowd
	client *client
	name   string

	mu  sync.Mutex // guards got
	got gets
}

// gets are the GETs and HEADs of a crowd.
type gets struct {
	all, failed int
	broken      int // answers that ended in the middle, which no client can mend
	causes      work.Causes
	slowest     time.Duration
}

// crowds are those of all clients, who send n POSTs in all.
func (st *stage) crowds(n int) (all []*crowd) {
	for i, c := range st.clients {
		share := n / len(three)
		if i < len(st.clients)/len(three) {
			share += n % len(three)
		}
		all = append(all, newCrowd(c, fmt.Sprint(i), share))
	}
	return all
}

func newCrowd(of *client, name string, posts int) *crowd {
	c := &crowd{client: of, name: name}
	c.Crowd = work.Crowd{
		Ours: of.who == ours, Hands: posters, Deadline: deadline,
		Pause: func() time.Duration { return pause },
		Send:  c.post, Judge: judge, Sent: make([]work.Sent, posts),
		Besides: c.get,
	}
	return c
}

// id is that of a POST.
func (c *crowd) id(i int) string { return fmt.Sprintf("%s.%d", c.name, i) }

// post sends a POST.
func (c *crowd) post(ctx context.Context, i int) error {
	id := c.id(i)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.client.base+"/count", body(id, i%2 == 1))
	if err != nil {
		return errors.Join(errStrange, err)
	}
	return c.client.answered(req, id)
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
func judge(err error) work.Fate { return work.FateOf(err, errStrange, dialer.SafeToRetry) }

// get sends GETs and HEADs, some at a time, until life ends.
func (c *crowd) get(life context.Context) {
	var wg sync.WaitGroup
	for range getters {
		wg.Go(func() {
			for i := 0; c.Ready(life); i++ {
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

// notePosts notes what became of the POSTs of ours and of a peer.
func notePosts(r *work.Report, o *origin, own, other *crowd) {
	weigh := func(c *crowd) work.Verdict { return work.Weigh(c.Sent, func(i int) int { return o.count(c.id(i)) }) }
	v, p := weigh(own), weigh(other)
	t := work.Trial{Over: own.client.over, Peer: other.client.who, Ours: v, Peers: p}
	t.Note(r, "POSTs")
	t.Never(r, "ran twice", len(v.Twice), len(p.Twice), work.Unsent)
	t.Never(r, "succeeded, never ran", v.Phantoms, p.Phantoms, work.Unsent)
	t.Never(r, "failed, cannot have run, did", v.Broken, p.Broken, work.Unsent)
	t.Never(r, "answered with something else", v.Strange, p.Strange, work.Strange)
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
