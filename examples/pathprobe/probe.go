package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A prober measures one path.
type prober struct {
	options
	world
	dest  netip.AddrPort
	first int // of how many addresses
	began time.Time

	talking sync.Mutex // one line at a time goes to errs
}

// patientHold is how long ports may stay taken after they were counted.
const patientHold = 5 * time.Minute

var errTooLong = errors.New("it took too long")

// probe measures what is asked for and reports it, as far as it comes.
func probe(ctx context.Context, o options, w world) error {
	dest, addresses, err := w.resolve(ctx, o.target)
	if err != nil {
		return err
	}
	p := &prober{options: o, world: w, dest: dest, first: addresses, began: time.Now()}
	io.WriteString(w.errs, p.cost())
	if o.ports && !o.yes {
		return errUnasked
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.longest(), errTooLong)
	defer cancel()
	r := &report{prober: p}
	if o.ports {
		p.measurePorts(ctx, r)
	}
	if o.idle {
		start := time.Now()
		r.idle(p.findIdle(ctx), time.Since(start))
	}
	return r.end()
}

// measurePorts counts the ports and, if told to, measures the holds.
func (p *prober) measurePorts(ctx context.Context, r *report) {
	start := time.Now()
	found := p.countPorts(ctx)
	r.ports(found, time.Since(start))
	h := p.newHolder(found.flows)
	if p.options.holds {
		h.measure(ctx, found, r)
	}
	for _, f := range h.flows {
		f.Close()
	}
	if found.full {
		p.parallel = min(p.parallel, max(1, found.n/2)) // half of them, since each takes its port for some more time
	}
}

// say writes a line for who waits.
func (p *prober) say(format string, args ...any) {
	p.talking.Lock()
	defer p.talking.Unlock()
	fmt.Fprintf(p.errs, "%7s  %s\n", time.Since(p.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// cost says what it is going to do, before it does it.
func (p *prober) cost() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The path to %v", p.dest)
	if p.first > 1 {
		fmt.Fprintf(&b, ", the first of %d addresses", p.first)
	}
	b.WriteString(". What this costs:\n")
	if p.options.idle {
		usual := min(4*time.Minute, p.max)
		fmt.Fprintf(&b, "  idle   up to %d connections at a time, silent for up to %v; each takes a port of the NATs on the way, also for the\n"+
			"         hold after its end, so about %d ports; it takes about %v if the path forgets after %v\n",
			p.parallel, p.max, 2*p.parallel+1, estimate(usual, p.parallel), usual)
	}
	if p.options.ports {
		fmt.Fprintf(&b, "  ports  up to %d connections at a time. Where the path has fewer ports, no other program behind the same NAT can open\n"+
			"         a connection to this address and port until it is over, or to any, if the NAT counts all destinations together\n", p.maxPorts)
	}
	if p.options.holds {
		fmt.Fprintf(&b, "  holds  keep all these ports taken, for up to %v each for FIN, RST and an unanswered SYN. The server is unreachable\n"+
			"         for %v\n", p.max, muteTime)
	}
	fmt.Fprintf(&b, "  all    ends after %v at the latest, and when interrupted, with what is known by then\n", p.longest())
	return b.String()
}

// longest is when everything ends, whatever goes wrong.
func (p *prober) longest() time.Duration {
	d := patientHold
	if p.options.idle {
		d += estimate(p.max, p.parallel) + maxFruitless*p.max
	}
	if p.options.ports {
		d += time.Duration(p.maxPorts) * time.Second
	}
	if p.options.holds {
		d += time.Duration(len(holdKinds)+1) * p.max // the ports that SYN needs are waited for
	}
	return d
}
