package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
)

// A scene is a server, and what is asked of it: each shows one thing.
type scene struct {
	name      string
	serve     func(net.Listener) (stop func())                            // the server
	ask       func(ctx context.Context, s *service, address string) error // one request
	every     time.Duration                                               // how often, whatever has become of those before
	atOnce    int                                                         // how many each time; 0: one
	healthy   bool                                                        // none may fail
	forgotten time.Duration                                               // how often the NAT forgets its connections; 0: never
	silent    bool                                                        // no SYN is answered
	others    int                                                         // ports that somebody else holds, of whom this process knows nothing
	leased    bool                                                        // ports are shared with others, by an engine
}

// scenes have a destination each, and so many ports as there are for one, each held for 4 s
// after a FIN: as by an Azure load balancer, but 60 times as fast.
var scenes = []scene{
	// 40 requests a second, two at a time: what a dashboard should look like.
	{name: "api", serve: answers(50 * time.Millisecond), ask: get, every: 25 * time.Millisecond, healthy: true},

	// A database, asked by six at once where two connections are allowed, so that some wait for a
	// tenth of a second. Between two such waves the connections are idle, and asked by heartbeats.
	{name: "db", serve: serveToyDB, ask: query, every: 2500 * time.Millisecond, atOnce: 6, healthy: true},

	// 77 requests a second of half a second each would take 39 connections, where there can be
	// 31. The queue grows for 20 s; from then on requests give up.
	{name: "rush", serve: answers(500 * time.Millisecond), ask: get, every: 13 * time.Millisecond},

	// A server that ends each connection after one answer: nothing is reused, and two thirds of
	// the ports are only cooling.
	{name: "churn", serve: hangsUp, ask: get, every: 200 * time.Millisecond},

	// A NAT that forgets all connections every three seconds, as a gateway does that fails over
	// without its table. What is lost is found, and sent again, so that no request fails.
	{name: "holes", serve: answers(20 * time.Millisecond), ask: get, every: 50 * time.Millisecond, forgotten: 3 * time.Second, healthy: true},

	// A program that forgets to close what it dials.
	{name: "leak", serve: answers(0), ask: drop, every: 2 * time.Second},

	// A server that is down.
	{name: "down", serve: nobody, ask: get, every: 2 * time.Second},

	// A server behind a firewall that drops what comes.
	{name: "mute", serve: nobody, ask: get, every: time.Second, silent: true},

	// Half of the ports are another program's, behind the same NAT. What is left would carry 32
	// requests a second; more than that are sent.
	{name: "shared", serve: answers(500 * time.Millisecond), ask: get, every: 25 * time.Millisecond, others: ports / 2},

	// Other instances behind one gateway: this one has leave for 8 ports, and for 8 more as long
	// as the server is there that lends them. 20 requests a second take 10.
	{name: "fleet", serve: answers(500 * time.Millisecond), ask: get, every: 50 * time.Millisecond, leased: true},
}

func names() (names []string) {
	for _, s := range scenes {
		names = append(names, s.name)
	}
	return names
}

// patience is how long a request waits for a connection. A deadline would bound the answer,
// too: then a request that has waited for most of it gets a connection, and does not get
// its answer any more.
const patience = 4 * time.Second

// play sends requests until ctx ends, and waits for those under way, which end with it.
func (s scene) play(ctx context.Context, w *world, by *service) result {
	t := tally{result: result{Name: s.name}}
	address := w.address(s.name)
	var underWay sync.WaitGroup
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for lost := time.Now(); ctx.Err() == nil; {
		for range max(1, s.atOnce) {
			underWay.Go(func() {
				err := s.ask(ctx, by, address)
				if err == nil || ctx.Err() == nil { // else it is us who gave up
					t.add(err)
				}
			})
		}
		if s.forgotten > 0 && time.Since(lost) > s.forgotten {
			w.nat.Darken(w.servers[s.name]) // elsewhere than on Linux there are no black holes
			lost = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	underWay.Wait()
	return t.result
}

// A tally counts what becomes of requests.
type tally struct {
	mu sync.Mutex // guards result
	result
}

func (t *tally) add(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Sent++
	switch {
	case err == nil:
		t.OK++
		return
	case errors.Is(err, dialer.ErrBudget):
		t.Refused++
	default:
		t.Failed++
	}
	if t.firstErr == nil {
		t.firstErr = err
	}
}

// get sends a GET and reads the answer.
func get(ctx context.Context, s *service, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// query has the database do something.
func query(ctx context.Context, s *service, _ string) error {
	_, err := s.db.ExecContext(ctx, "SELECT pg_sleep(0.05)")
	return err
}

// drop dials and forgets to close. The garbage collector finds such connections; here it
// is called, since this program makes too little garbage for it to come by itself.
func drop(ctx context.Context, s *service, address string) error {
	_, err := s.dialer.DialContext(ctx, "tcp", address)
	runtime.GC()
	return err
}
