package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive/netpath"
)

// patience is how long a client may take for its work. What it has not sent by
// then has failed.
const patience = 20 * time.Second

// work is what every client has to do: requests, so many at a time, as a
// program does that fans out. The next wave begins when the last one is back.
type work struct {
	requests, concurrency int
	service               time.Duration // the server's time for an answer
	ports                 int           // that the NAT has
}

func (w work) waves() int { return (w.requests + w.concurrency - 1) / w.concurrency }

// ideal is how long a wave takes if every port but one is put to use.
func (w work) ideal() time.Duration {
	ports := w.ports - 1
	return time.Duration((w.concurrency+ports-1)/ports) * w.service
}

// timeout is what each request is given: time enough for who wastes no ports.
func (w work) timeout() time.Duration { return max(time.Second, 4*w.ideal()) }

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// A contender is a way to send requests. open returns how, and what closes its
// idle connections.
type contender struct {
	name, what string
	open       func(dial dialFunc) (send func(*http.Request) (*http.Response, error), closeIdle func())
}

const natwise = "natwise"

func contenders(path netpath.Profile) []contender {
	return []contender{
		{"client-per-request", "a new http.Client for each request, the classic leak", clientPerRequest},
		{"http.DefaultTransport", "one client with the standard library's settings", defaultTransport},
		{natwise, "one client that knows its path", natwiseOn(path)},
	}
}

// clientPerRequest is the classic leak: each client keeps its connection open
// for a second request that never comes.
func clientPerRequest(dial dialFunc) (func(*http.Request) (*http.Response, error), func()) {
	var mu sync.Mutex // guards leaked
	var leaked []*http.Transport
	send := func(r *http.Request) (*http.Response, error) {
		tr := &http.Transport{DialContext: dial}
		mu.Lock()
		leaked = append(leaked, tr)
		mu.Unlock()
		client := http.Client{Transport: tr}
		return client.Do(r)
	}
	closeIdle := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, tr := range leaked {
			tr.CloseIdleConnections()
		}
	}
	return send, closeIdle
}

// defaultTransport is one client for all, as the standard library sets it up.
func defaultTransport(dial dialFunc) (func(*http.Request) (*http.Response, error), func()) {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.DialContext = dial
	client := http.Client{Transport: tr}
	return client.Do, client.CloseIdleConnections
}

// natwiseOn is one client for all that knows its path. There was no process
// before this one whose ports the NAT might still hold, so there is no Ramp.
func natwiseOn(path netpath.Profile) func(dialFunc) (func(*http.Request) (*http.Response, error), func()) {
	return func(dial dialFunc) (func(*http.Request) (*http.Response, error), func()) {
		client := httpx.NewClient(&dialer.Dialer{
			Ledger: &dialer.Ledger{Path: path, Ramp: -1},
			Dial:   dial,
		})
		return client.Do, client.CloseIdleConnections
	}
}

// A lane is one client at work behind its own NAT.
type lane struct {
	name string
	work work
	nat  *fauxnat.NAT

	mu       sync.Mutex // guards the fields below; no request under it
	ok       int
	failed   int
	firstErr error
	took     []time.Duration // of each request that was sent, in the end in order
	held     []sample        // ports over time
	counts   fauxnat.Counts  // once it is over
	over     bool
	ran      time.Duration // until now, or until it was over
}

// A sample is how many ports were held at a time since the start.
type sample struct {
	at   time.Duration
	held int
}

// race lets every contender do the work, all at the same time, and calls show
// ten times a second and once in the end.
func race(ctx context.Context, w work, path netpath.Profile, contenders []contender, show func([]*lane)) ([]*lane, error) {
	url, stop, err := origin(w.service)
	if err != nil {
		return nil, err
	}
	defer stop()
	tooLate := fmt.Errorf("cut off after %s", span(patience))
	cut, cancel := context.WithTimeoutCause(ctx, patience, tooLate)
	defer cancel()

	lanes := make([]*lane, len(contenders))
	for i, c := range contenders {
		lanes[i] = &lane{name: c.name, work: w, nat: &fauxnat.NAT{Path: path}}
	}
	start := time.Now()
	var running sync.WaitGroup
	for i, c := range contenders {
		running.Go(func() { lanes[i].run(cut, c, url, start) })
	}
	over := make(chan struct{})
	go func() { running.Wait(); close(over) }()
	watch(lanes, start, over, show)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted") // what was not sent has not failed
	}
	show(lanes)
	return lanes, nil
}

// watch samples the lanes until all are over.
func watch(lanes []*lane, start time.Time, over <-chan struct{}, show func([]*lane)) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-over:
			return
		}
		for _, l := range lanes {
			l.sample(time.Since(start))
		}
		if i%20 == 0 {
			show(lanes)
		}
	}
}

func (l *lane) sample(at time.Duration) {
	held := l.nat.Stats().Held
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.held = append(l.held, sample{at, held})
		l.ran = at
	}
}

// run does the work, and leaves no connection behind.
func (l *lane) run(ctx context.Context, c contender, url string, start time.Time) {
	ctx, cancel := context.WithCancel(ctx)
	send, closeIdle := c.open(dialUntil(ctx, l.nat.DialContext))
	for sent := 0; sent < l.work.requests && ctx.Err() == nil; sent += l.work.concurrency {
		var wave sync.WaitGroup
		for range min(l.work.concurrency, l.work.requests-sent) {
			wave.Go(func() { l.request(ctx, send, url) })
		}
		wave.Wait()
	}
	l.finish(context.Cause(ctx), l.nat.Stats().Counts, time.Since(start))
	cancel()
	closeIdle()
}

// dialUntil is dial for as long as ctx lasts: http.Transport lets a dial outlive
// the request that wanted it, and behind a full NAT that is two minutes.
func dialUntil(ctx context.Context, dial dialFunc) dialFunc {
	return func(inner context.Context, network, address string) (net.Conn, error) {
		inner, cancel := context.WithCancel(inner)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return dial(inner, network, address)
	}
}

func (l *lane) request(ctx context.Context, send func(*http.Request) (*http.Response, error), url string) {
	ctx, cancel := context.WithTimeout(ctx, l.work.timeout())
	defer cancel()
	start := time.Now()
	err := get(ctx, send, url)
	took := time.Since(start)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	if err == nil {
		l.ok++
		return
	}
	l.failed++
	if l.firstErr == nil {
		l.firstErr = err
	}
}

func get(ctx context.Context, send func(*http.Request) (*http.Response, error), url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := send(r)
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

// finish keeps what there was at the end, before the connections are closed.
func (l *lane) finish(cause error, counts fauxnat.Counts, ran time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.counts, l.ran = true, counts, ran
	l.held = append(l.held, sample{ran, counts.Held})
	if unsent := l.work.requests - len(l.took); unsent > 0 {
		l.failed += unsent
		if l.firstErr == nil {
			l.firstErr = cause
		}
	}
	slices.Sort(l.took)
}

func (l *lane) result() result {
	l.mu.Lock()
	defer l.mu.Unlock()
	return result{
		Name: l.name, Requests: l.work.requests, OK: l.ok, Failed: l.failed,
		FlowsOpened: l.counts.Opened, PeakPorts: l.counts.Peak, RefusedSYN: l.counts.RefusedSYNs,
		P50: milliseconds(percentile(l.took, 50)), P99: milliseconds(percentile(l.took, 99)),
		Seconds: math.Round(l.ran.Seconds()*1000) / 1000,
	}
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

const answer = "hello\n"

// origin starts a server that answers after service. stop ends it, and returns
// when it has ended.
func origin(service time.Duration) (url string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait := time.NewTimer(service)
		defer wait.Stop()
		select {
		case <-wait.C:
			io.WriteString(w, answer)
		case <-r.Context().Done():
		}
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve(ln)
	}()
	stop = func() {
		server.Close()
		<-ended
	}
	return "http://" + ln.Addr().String() + "/", stop, nil
}
