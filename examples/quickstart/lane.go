package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
)

// A lane is one client at work behind its own NAT.
type lane struct {
	name    string
	scene   *scene
	servers *origins
	nat     *fauxnat.NAT
	user    user
	dialing context.Context // ends with the lane: no dial outlives it
	start   time.Time
	endDial context.CancelFunc

	mu       sync.Mutex // guards the fields below; no request under it
	conns    []net.Conn // that were dialed
	sent     int
	ok       int
	failed   int
	unsafe   int // of failed: requests that nobody may send twice
	firstErr error
	took     []time.Duration // of each request that is back, in the end in order
	slowest  time.Duration   // of those that were answered
	ends     []end           // of requests, in order
	held     []sample        // in order of time
	counts   fauxnat.Stats   // once it is over
	over     bool
	ran      time.Duration // until now, or until it was over
	unable   error         // to do to its flows what the scene wants
}

// An end is when a request was back, since the start.
type end struct {
	at     time.Duration
	site   int
	failed bool
}

// A sample is what the NAT counted at a time since the start.
type sample struct {
	at     time.Duration
	held   int // ports
	astray int // connections that lead nowhere
}

func newLane(c client, s *scene, servers *origins, nat *fauxnat.NAT) *lane {
	l := &lane{name: c.name, scene: s, servers: servers, nat: nat, start: time.Now()}
	l.dialing, l.endDial = context.WithCancel(context.Background())
	l.user = c.open(way{dial: l.dial, path: s.path, hosts: servers.names, roots: servers.roots, haste: s.haste})
	return l
}

// dial dials through the NAT for as long as the lane lasts: http.Transport lets a dial
// outlive the request that wanted it, and behind a full NAT that is two minutes.
func (l *lane) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := l.dialing.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.dialing, cancel)()
	c, err := l.nat.DialContext(ctx, network, address)
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

// close leaves no connection behind, not even one that leads nowhere, which is not idle
// for HTTP/2 while it does.
func (l *lane) close() {
	l.user.closeIdle()
	l.mu.Lock()
	conns := l.conns
	l.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// run does the work. What is idle then is left as it is, as in a program that goes on.
func (l *lane) run(ctx context.Context) {
	defer context.AfterFunc(ctx, l.endDial)()
	l.scene.play(ctx, l)
	ran := time.Since(l.start)
	l.endDial()
	l.finish(context.Cause(ctx), l.nat.Stats(), ran)
}

// wave sends n requests to the first site at once, and returns when all are back.
func (l *lane) wave(ctx context.Context, n int) {
	var wave sync.WaitGroup
	for range n {
		wave.Go(func() { l.request(ctx, get, 0) })
	}
	wave.Wait()
}

// request sends one request to a site and waits for the answer. It reports whether
// there was one.
func (l *lane) request(ctx context.Context, method string, site int) bool {
	ctx, cancel := context.WithTimeout(ctx, l.scene.timeout)
	defer cancel()
	l.mu.Lock()
	l.sent++
	l.mu.Unlock()
	start := time.Now()
	err := l.exchange(ctx, method, l.servers.urls[site])
	took := time.Since(start)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	l.ends = append(l.ends, end{time.Since(l.start), site, err != nil})
	if err == nil {
		l.ok++
		l.slowest = max(l.slowest, took)
		return true
	}
	l.failed++
	if method == post {
		l.unsafe++
	}
	if l.firstErr == nil {
		l.firstErr = err
	}
	return false
}

func (l *lane) exchange(ctx context.Context, method, url string) error {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	resp, err := l.user.send(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != answer) {
		err = fmt.Errorf("%s: %q", resp.Status, body)
	}
	return err
}

// pause waits, and reports whether it did to the end.
func pause(ctx context.Context, d time.Duration) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *lane) sample() {
	counts := l.nat.Stats().Counts
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.ran = time.Since(l.start)
		l.held = append(l.held, sample{l.ran, counts.Held, counts.Astray})
	}
}

// skip says why what the scene wants cannot be done here.
func (l *lane) skip(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unable = err
}

// cannot is why the scene could not be played; nil: it was.
func (l *lane) cannot() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unable
}

// finish keeps what there was at the end, before the connections are closed.
func (l *lane) finish(cause error, counts fauxnat.Stats, ran time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.counts, l.ran = true, counts, ran
	l.held = append(l.held, sample{ran, counts.Held, counts.Astray})
	if unsent := l.scene.total - len(l.took); unsent > 0 {
		l.failed += unsent
		if l.firstErr == nil {
			l.firstErr = cause
		}
	}
	slices.Sort(l.took)
}

// result is what became of the work, once the lane is over.
func (l *lane) result() result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := result{
		Name: l.name, Requests: l.ok + l.failed, OK: l.ok, Failed: l.failed,
		FlowsOpened: l.counts.Opened, PeakPorts: l.counts.Peak, RefusedSYN: l.counts.RefusedSYNs,
		P50: milliseconds(percentile(l.took, 50)), P99: milliseconds(percentile(l.took, 99)),
		Seconds: math.Round(l.ran.Seconds()*1000) / 1000,
	}
	if l.scene.stray != "" {
		r.Trouble = &Trouble{
			Astray: l.counts.Strayed, AstraySeconds: math.Round(astrayFor(l.held).Seconds()*1000) / 1000,
			Unsafe: l.unsafe, Slowest: milliseconds(l.slowest),
		}
	}
	return r
}

// astrayFor is for how long, at most, the client had connections that led nowhere,
// without a break.
func astrayFor(held []sample) (longest time.Duration) {
	since := time.Duration(-1)
	for _, s := range held {
		switch {
		case s.astray == 0:
			since = -1
		case since < 0:
			since = s.at
		}
		if since >= 0 {
			longest = max(longest, s.at-since)
		}
	}
	return longest
}

func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

// percentile returns the smallest of sorted that at least p per cent do not
// exceed; zero if there is nothing.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// unsent is how many requests were never sent, once the lane is over.
func (l *lane) unsent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.scene.total-len(l.took))
}
