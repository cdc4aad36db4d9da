package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// A portsFinding is how many connections there may be.
type portsFinding struct {
	n     int
	full  bool  // one more was not answered
	err   error // why counting did not come to its end
	flows []*flow
}

// countPorts opens connections until one more is not answered while the first still
// lives, or there are as many as may be.
func (p *prober) countPorts(ctx context.Context) (found portsFinding) {
	for found.n < p.maxPorts {
		f, err := p.connect(ctx, connectPatience)
		if err != nil {
			found.full, found.err = p.exhausted(ctx, found.flows, err)
			break
		}
		f.keep()
		found.flows = append(found.flows, f)
		if found.n++; found.n%100 == 0 {
			p.say("%d connections", found.n)
		}
	}
	return found
}

// exhausted reports whether err says that no port was left: no answer, and again
// none, while another connection works.
func (p *prober) exhausted(ctx context.Context, flows []*flow, err error) (bool, error) {
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case len(flows) == 0:
		return false, fmt.Errorf("no connection at all: %w", err)
	case !errors.Is(err, errNoAnswer):
		return false, err
	}
	f, err := p.connect(ctx, connectPatience)
	if err == nil {
		f.Close()
		return false, errors.New("one more was not answered, and then was: others use this path too")
	}
	if living := flows[0].ask(flows[0].patience()); living != nil {
		return false, fmt.Errorf("one more was not answered, but the first no longer lives either: %w", living)
	}
	return errors.Is(err, errNoAnswer), ctx.Err()
}

// A holdFinding is how long the port of an ended connection stayed taken.
type holdFinding struct {
	atLeast, atMost time.Duration // atMost is zero if it was not free in time
	err             error
}

// A holder measures holds on a path of which all ports are taken.
type holder struct {
	*prober
	flows []*flow
	rtt   time.Duration
}

func (p *prober) newHolder(flows []*flow) *holder {
	h := &holder{prober: p, flows: flows}
	for _, f := range flows {
		h.rtt = max(h.rtt, f.rtt)
	}
	return h
}

// measure measures all holds, as far as it comes.
func (h *holder) measure(ctx context.Context, found portsFinding, r *report) {
	if !found.full {
		for _, kind := range holdKinds {
			r.skip(kind, "the ports were not exhausted")
		}
		return
	}
	timed := func(kind string, measure func() holdFinding) holdFinding {
		h.say("all %d ports are taken; now %s", found.n, kind)
		start := time.Now()
		hold := measure()
		r.hold(kind, hold, time.Since(start))
		return hold
	}
	timed(holdFIN, func() holdFinding { return h.fin(ctx) })
	rst := timed(holdRST, func() holdFinding { return h.rst(ctx) })
	timed(holdSYN, func() holdFinding { return h.syn(ctx, rst) })
}

// take removes a flow from those that are kept.
func (h *holder) take() *flow {
	f := h.flows[len(h.flows)-1]
	h.flows = h.flows[:len(h.flows)-1]
	return f
}

// fin ends a connection in order, and measures from the server's FIN on.
func (h *holder) fin(ctx context.Context) holdFinding {
	f := h.take()
	if err := f.CloseWrite(); err != nil {
		return holdFinding{err: err}
	}
	err := f.hush(time.Now().Add(connectPatience))
	since := time.Now()
	f.Close()
	if keepalive.FaultOf(err) != keepalive.Finished {
		return holdFinding{err: fmt.Errorf("the server did not close in order: %v", err)}
	}
	return h.await(ctx, since)
}

func (h *holder) rst(ctx context.Context) holdFinding {
	h.take().abandon()
	return h.await(ctx, time.Now())
}

// syn lets a SYN go unanswered and measures from then on. It needs a server that
// can be mute, and two ports: the first connection of a mute server is still
// answered, by its kernel. They come free as rst says.
func (h *holder) syn(ctx context.Context, rst holdFinding) holdFinding {
	switch {
	case len(h.flows) < 3:
		return holdFinding{err: fmt.Errorf("%d ports are too few, 3 are needed", len(h.flows))}
	case rst.atMost == 0:
		return holdFinding{err: errors.New("it is not known when a port comes free")}
	}
	h.take().abandon()
	h.take().abandon()
	if err := pause(ctx, rst.atMost+rst.atMost/10+2*time.Second); err != nil {
		return holdFinding{err: context.Cause(ctx)}
	}
	answer, err := h.flows[0].say(sayMute, h.flows[0].patience())
	if err == nil && answer != saidMute {
		err = fmt.Errorf("the server says: %s", answer)
	}
	if err != nil {
		return holdFinding{err: fmt.Errorf("the server cannot be mute: %w", err)}
	}
	since, err := h.knockInVain(ctx)
	if err != nil {
		return holdFinding{err: err}
	}
	if err := pause(ctx, muteTime); err != nil {
		return holdFinding{err: context.Cause(ctx)}
	}
	return h.await(ctx, since)
}

// knockInVain sends a SYN to the mute server, after one that it still answers.
func (h *holder) knockInVain(ctx context.Context) (since time.Time, err error) {
	brief, cancel := context.WithTimeout(ctx, muteTime/2)
	defer cancel()
	waiting, err := h.open(brief)
	if err != nil {
		return since, fmt.Errorf("no port came free: %w", err)
	}
	h.flows = append(h.flows, waiting)
	since = time.Now()
	single, cancel := context.WithTimeout(brief, h.knockTime())
	defer cancel()
	if f, err := h.open(single); err == nil {
		h.flows = append(h.flows, f)
		return since, errors.New("the server is not mute: it answered")
	}
	return since, ctx.Err()
}

// knockTime is long enough for an answer and too short for a second SYN.
func (h *holder) knockTime() time.Duration {
	return min(max(250*time.Millisecond, 8*h.rtt), 900*time.Millisecond)
}

// await tries again and again whether a port is free, with one SYN at a time, and
// keeps it. Every fiftieth of the time passed is often enough.
func (h *holder) await(ctx context.Context, since time.Time) (found holdFinding) {
	for {
		tried := time.Now()
		f, err := h.connect(ctx, h.knockTime())
		switch {
		case err == nil:
			f.keep()
			h.flows = append(h.flows, f)
			found.atMost = tried.Sub(since)
			return found
		case ctx.Err() != nil:
			found.err = context.Cause(ctx)
			return found
		case !errors.Is(err, errNoAnswer):
			found.err = err
			return found
		}
		found.atLeast = tried.Sub(since)
		if found.atLeast > h.max {
			return found
		}
		if err := pause(ctx, time.Since(since)/50); err != nil {
			found.err = context.Cause(ctx)
			return found
		}
	}
}
