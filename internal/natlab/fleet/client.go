package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// clientEnv marks the environment of a process that is a client.
const clientEnv = "NATWISE_FLEET_CLIENT"

// A Role is what a client is to do. It is told as JSON on standard input, at whose end the
// client ends in order.
type Role struct {
	Origin  netip.AddrPort
	Source  netip.Addr // where its flows begin, by which the gateway tells it from others
	Path    netpath.Profile
	Ramp    time.Duration
	Host    string        // the directory of the machine's budget; empty: none
	Redis   *Lease        // the fleet's budget; nil: none
	Workers int           // who ask, each the next thing when the last is done
	Service time.Duration // that the origin takes
	Closes  int           // one request of so many is the last on its connection
}

// A Lease is how a client shares by Redis.
type Lease struct {
	Server    string // its address
	Instances int
	TTL       time.Duration
	Drain     time.Duration
}

// A Line is what a client says on standard output, now and then.
type Line struct {
	At      time.Time
	Served  int // since the line before
	Failed  int
	Late    []time.Duration // of those served: how much longer than the service each took
	Error   string          // why the last of those failed
	Taken   int             // ports, as its ledger counts
	Reports []budget.Report // of its budget
}

const (
	reportEvery  = 100 * time.Millisecond
	deadline     = 10 * time.Second // of a request
	leaveWithin  = 5 * time.Second
	restAfterErr = 50 * time.Millisecond
)

// A client is a ledger, a transport and those who use it.
type client struct {
	Role
	ledger    *dialer.Ledger
	transport *httpx.Transport
	close     func(context.Context) error // of the budget
	asked     atomic.Int64

	mu   sync.Mutex // guards line
	line Line       // the next one
}

// beClient is a client until there is nothing to read any more. It returns the process's
// status.
func beClient(from io.Reader, to io.Writer) int {
	if err := serve(from, to); err != nil {
		fmt.Fprintln(os.Stderr, "fleet: client:", err)
		return 1
	}
	return 0
}

func serve(from io.Reader, to io.Writer) error {
	in := json.NewDecoder(from)
	var r Role
	if err := in.Decode(&r); err != nil {
		return fmt.Errorf("role: %w", err)
	}
	c, err := newClient(r)
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.Background())
	defer end()
	go func() {
		in.Decode(new(struct{})) // there is no more: this waits for the end
		end()
	}()
	return c.live(life, json.NewEncoder(to))
}

func newClient(r Role) (*client, error) {
	b, closeBudget, err := r.budget()
	if err != nil {
		return nil, err
	}
	c := &client{Role: r, close: closeBudget}
	c.ledger = &dialer.Ledger{Path: r.Path, Ramp: r.Ramp, Budget: b}
	c.transport = &httpx.Transport{
		Dialer: &dialer.Dialer{Ledger: c.ledger, Sources: []dialer.Source{{Addr: r.Source}}},
		Proxy:  httpx.NoProxy,
		// A connect that fails is no reason to give up: there may be no port for it.
		Patience: deadline,
	}
	return c, nil
}

// live works until life ends, and then closes everything.
func (c *client) live(life context.Context, to *json.Encoder) error {
	var workers sync.WaitGroup
	for range c.Workers {
		workers.Go(func() { c.work(life) })
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for life.Err() == nil {
		if err := to.Encode(c.report()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-life.Done():
		}
	}
	workers.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	return errors.Join(c.transport.Close(ctx), c.close(ctx), to.Encode(c.report()))
}

// work asks again and again. What is under way when life ends is called off.
func (c *client) work(life context.Context) {
	for life.Err() == nil {
		begin := time.Now()
		err := c.ask(life)
		late := time.Since(begin) - c.Service
		if life.Err() != nil {
			return
		}
		c.mu.Lock()
		if err == nil {
			c.line.Served++
			c.line.Late = append(c.line.Late, late)
		} else {
			c.line.Failed++
			c.line.Error = err.Error()
		}
		c.mu.Unlock()
		if err != nil {
			pause(life, restAfterErr)
		}
	}
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (c *client) ask(life context.Context) error {
	ctx, cancel := context.WithTimeout(life, deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Origin.String()+"/", nil)
	if err != nil {
		return err
	}
	req.Header.Set(serviceHeader, c.Service.String())
	req.Close = c.asked.Add(1)%int64(c.Closes) == 0
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// report returns the line that is complete, and begins the next.
func (c *client) report() Line {
	c.mu.Lock()
	l := c.line
	c.line = Line{}
	c.mu.Unlock()
	l.At = time.Now()
	for _, a := range c.ledger.Accounts() {
		l.Taken += a.Taken()
	}
	if e, ok := c.ledger.Budget.(budget.Engine); ok {
		l.Reports = e.Reports(netpath.Key{})
	}
	return l
}

// ports is how many there are, of all who share them.
func (r Role) ports() int { return r.Path.Limit(netpath.Destination) }
