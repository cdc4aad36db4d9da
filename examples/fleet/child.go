package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// asProcess is the one argument with which the command starts itself.
const asProcess = "be-one-process"

// An order is the line that a process reads first. The end of its input is the end of its
// work, so that no process outlives the parent.
type order struct {
	Gateway, Dest netip.AddrPort
	Ports, Scale  int
	Late          time.Duration
	Want          int           // requests at a time
	Timeout       time.Duration // of each
	Shared        string        // the budget's directory; "": this process shares nothing
}

// A report is a line of what a process prints, every tick.
type report struct {
	Held, Waiting  int             // ports booked, requests without a connection: now
	Served, Failed int             // requests since the last report
	Waits          []time.Duration // of those, each until it had a connection or failed
	Error          string          // of one that failed
	Shared         []budget.Report // what the budget says
}

const tick = 250 * time.Millisecond

// A worker is one process of the fleet: an HTTP client that always has Want requests to
// send.
type worker struct {
	order
	ledger *dialer.Ledger
	client *http.Client

	mu  sync.Mutex // guards now; no request under it
	now report
}

// work obeys the order on in and reports on out, until in ends.
func work(in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(in)
	w := new(worker)
	if err := lines.Decode(&w.order); err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, in)
		cancel()
	}()
	return w.run(ctx, json.NewEncoder(out))
}

// run is what a program would do in main: name the path, share its ports, and use one
// client.
func (w *worker) run(ctx context.Context, out *json.Encoder) error {
	w.ledger = &dialer.Ledger{Path: processPath(w.Ports, w.Scale, w.Late)}
	if w.Shared != "" {
		shared, err := budget.Host(w.Shared, w.Ports)
		if err != nil {
			return err
		}
		defer shared.Close()
		w.ledger.Budget = shared
	}
	transport := &httpx.Transport{
		Dialer: &dialer.Dialer{Ledger: w.ledger, Dial: through(w.Gateway)},
		Proxy:  httpx.NoProxy,
	}
	defer transport.CloseIdleConnections()
	w.client = &http.Client{Transport: transport}

	var senders sync.WaitGroup
	for range w.Want {
		senders.Go(func() { w.send(ctx) })
	}
	err := w.tell(ctx, out)
	senders.Wait()
	return err
}

// tell reports until ctx is done: what was cut off then is not told. An error says that
// nobody listens.
func (w *worker) tell(ctx context.Context, out *json.Encoder) error {
	for pause(ctx, tick) {
		if err := out.Encode(w.report()); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) report() report {
	var held int
	for _, a := range w.ledger.Accounts() {
		held += a.Taken()
	}
	var shared []budget.Report
	if e, ok := w.ledger.Budget.(budget.Engine); ok {
		shared = e.Reports(netpath.Key{})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.now
	r.Held, r.Shared = held, shared
	w.now = report{Waiting: w.now.Waiting}
	return r
}

// send sends one request after the other.
func (w *worker) send(ctx context.Context) {
	for ctx.Err() == nil {
		if w.request(ctx) != nil {
			pause(ctx, tick) // what fails at once is not to be a storm
		}
	}
}

// request sends one, and books what became of it unless ctx ended it.
func (w *worker) request(ctx context.Context) error {
	var once sync.Once
	start := time.Now()
	got := func() {
		once.Do(func() { w.waited(time.Since(start)) })
	}
	w.asked()
	err := w.exchange(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { got() },
	}))
	got() // or it has waited in vain
	if ctx.Err() == nil {
		w.ended(err)
	}
	return err
}

func (w *worker) asked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now.Waiting++
}

func (w *worker) waited(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now.Waiting--
	w.now.Waits = append(w.now.Waits, d)
}

func (w *worker) ended(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.now.Failed++
		w.now.Error = err.Error()
		return
	}
	w.now.Served++
}

func (w *worker) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Dest.String()+"/", nil)
	if err != nil {
		return err
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != answer {
		err = fmt.Errorf("%s: %q", resp.Status, body)
	}
	return err
}
