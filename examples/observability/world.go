package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	ports = 32 // for each destination
	scale = 60 // how many times as fast as the NAT's real timers ours run
)

// A world is what a service stands in: a NAT, and behind it the servers of the scenes.
type world struct {
	nat     *fauxnat.NAT
	hosts   hosts
	servers map[string]netip.AddrPort // by scene
	silent  map[netip.AddrPort]bool   // answer no SYN
	engine  *toyEngine                // that ports to one of them are shared by
	stops   []func()
}

// newWorld starts the servers. Whoever calls it calls close.
func newWorld() (*world, error) {
	// An Azure load balancer with few ports and quick timers, which counts loopback.
	path := netpath.AzureLoadBalancer(ports)
	path.Exempt = netpath.NoExempt()
	w := &world{
		nat:     &fauxnat.NAT{Path: fauxnat.Scale(path, scale)},
		hosts:   make(hosts),
		servers: make(map[string]netip.AddrPort),
		silent:  make(map[netip.AddrPort]bool),
	}
	w.nat.Dial = w.dial
	for i, s := range scenes {
		ln, err := listen(i)
		if err != nil {
			w.close()
			return nil, err
		}
		at := netip.MustParseAddrPort(ln.Addr().String())
		w.hosts[s.name+".demo"] = at.Addr()
		w.servers[s.name] = at
		w.silent[at] = s.silent
		w.stops = append(w.stops, s.serve(ln))
		if s.leased {
			w.engine = newToyEngine(at)
			w.stops = append(w.stops, w.engine.close)
		}
		if err := w.hold(at, s.others); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

// dial is what lies behind the NAT.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if at, err := netip.ParseAddrPort(address); err == nil && w.silent[at] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// hold has another program hold so many ports to at.
func (w *world) hold(at netip.AddrPort, n int) error {
	other := w.dialer()
	for range n {
		c, err := other.DialContext(context.Background(), "tcp", at.String())
		if err != nil {
			return err
		}
		w.stops = append(w.stops, func() { c.Close() })
	}
	return nil
}

func (w *world) close() {
	for _, stop := range w.stops {
		stop()
	}
}

// dialer returns one that stands behind the NAT and knows it.
func (w *world) dialer() *dialer.Dialer {
	return &dialer.Dialer{
		Ledger:   &dialer.Ledger{Path: w.nat.Path, Ramp: -1}, // there was no process before this one
		Dial:     w.nat.DialContext,
		Resolver: w.hosts,
		Plan:     keepalive.Plan{Linger: time.Second}, // a minute, 60 times as fast: in a black hole no FIN is answered
		Timeout:  3 * time.Second,                     // as fast as that it is not, since the kernel sends a SYN once a second
	}
}

// address is where a scene's server is, as a program knows it: host:port.
func (w *world) address(s string) string {
	return fmt.Sprintf("%s.demo:%d", s, w.servers[s].Port())
}

// listen gives each server an address of its own, so that each is a destination of its
// own. Where loopback has only one address, it is a port of its own.
func listen(i int) (net.Listener, error) {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", i+2))
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return ln, err
}

// hosts is a dialer.Resolver that knows the servers by name.
type hosts map[string]netip.Addr

func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := h[host]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// serve plays the scenes until the time is over or ctx ends. It calls ready once it can be
// scraped.
func (o options) serve(ctx context.Context, ready func(address string)) (r report, err error) {
	p, err := newProviders(ctx, "observability", o.otlp)
	if err != nil {
		return r, err
	}
	defer finish(&err, p.shutdown)
	w, err := newWorld()
	if err != nil {
		return r, err
	}
	defer w.close()
	d := w.dialer()
	d.Ledger.Budget = w.engine
	s := newService(d, p, w.address("db"))
	defer finish(&err, s.close)
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return r, fmt.Errorf("-listen %s: %w", o.listen, err)
	}
	defer serveHTTP(ln, &http.Server{Handler: s.pages})()
	ready(ln.Addr().String())
	return o.play(ctx, w, s), nil
}

// finish calls f, which has 5 s, and adds its error to *err.
func finish(err *error, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // the caller's has ended
	defer cancel()
	*err = errors.Join(*err, f(ctx))
}

// play plays all scenes at once.
func (o options) play(ctx context.Context, w *world, s *service) report {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.lasts > 0 {
		// Not a deadline: that would be the requests', which are to wait for patience.
		defer time.AfterFunc(o.lasts, cancel).Stop()
	}
	start := time.Now()
	results := make([]result, len(o.scenes))
	var playing sync.WaitGroup
	for i, scene := range o.scenes {
		playing.Go(func() { results[i] = scene.play(ctx, w, s) })
	}
	playing.Wait()
	return newReport(time.Since(start), o.scenes, results)
}
