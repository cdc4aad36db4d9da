package main

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

// A fault is something that happens at a time of each round.
type fault struct {
	at   time.Duration
	kind kind
}

type kind int

const (
	forget  kind = iota // a flow of each client, by the gateway
	sever               // by RST, when the client sends something
	reset               // by RST of the origin
	killRST             // the origin, all of whose connections end by RST
	killFIN             // or by FIN
	vanish              // or without a word
	restart             // the origin
)

// A round is what happens again and again: work, then a rest, twice.
const (
	round      = 20 * time.Second
	half       = round / 2
	working    = 6500 * time.Millisecond // of each half; the rest is longer than the path remembers
	realIdle   = 3 * time.Second
	outageOf   = time.Second
	faultEvery = 500 * time.Millisecond // for each client
)

// resting returns for how long nobody asks anything, so long after the beginning.
func resting(since time.Duration) time.Duration {
	if now := since % half; now >= working {
		return half - now
	}
	return 0
}

// faults are those of a round. The second rest is not quiet: in the first one, what
// is idle is forgotten.
func faults() (all []fault) {
	for _, outage := range []fault{{3 * time.Second, killRST}, {half + 3*time.Second, vanish}, {half + 7500*time.Millisecond, killFIN}} {
		all = append(all, outage, fault{outage.at + outageOf, restart})
	}
	singles := []kind{forget, reset, sever}
	for i, at := 0, faultEvery; at < round; at += faultEvery {
		down := slices.ContainsFunc(all, func(f fault) bool { return f.kind == restart && at >= f.at-outageOf && at <= f.at })
		if resting(at) == 0 && !down {
			all = append(all, fault{at, singles[i%len(singles)]})
			i++
		}
	}
	slices.SortStableFunc(all, func(a, b fault) int { return int(a.at - b.at) })
	return all
}

// A toll is how often each fault has struck.
type toll [restart + 1]int

// harm does the faults of one round after the other, until ctx ends; the origin runs
// then.
func (st *stage) harm(ctx context.Context, begin time.Time) (t toll, err error) {
	for n := time.Duration(0); ; n += round {
		for _, f := range faults() {
			if !until(ctx, begin.Add(n+f.at)) {
				return t, st.do(restart, &t)
			}
			if err := st.do(f.kind, &t); err != nil {
				return t, err
			}
		}
	}
}

// until waits for a time. It reports false if ctx ends before.
func until(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (st *stage) do(k kind, t *toll) error {
	switch k {
	case killRST, killFIN:
		st.origin.kill(k == killRST)
	case vanish:
		if err := st.Blackhole(netip.AddrPort{}, true); err != nil {
			return err
		}
		st.origin.kill(true)
	case restart:
		if err := st.Blackhole(netip.AddrPort{}, false); err != nil {
			return err
		}
		if st.origin.runs() {
			return nil
		}
		t[k]++
		return st.origin.start()
	default:
		t[k] += st.strike(k)
		return nil
	}
	t[k]++
	return nil
}

// strike ends a connection of each client, and returns of how many. Where one carries
// all that is asked it is spared three times in four, or little would be asked.
func (st *stage) strike(k kind) (struck int) {
	st.strikes++
	for _, c := range st.clients {
		if c.over == http2 && st.strikes%4 > 0 {
			continue
		}
		if k == reset {
			if st.origin.reset(c.at) {
				struck++
			}
			continue
		}
		flows := st.open(c.at)
		if len(flows) == 0 {
			continue
		}
		victim := flows[rand.N(len(flows))]
		if st.end(victim, k) == nil { // else it has ended by itself
			struck++
		}
	}
	return struck
}

func (st *stage) end(c *net.TCPConn, k kind) error {
	if k == forget {
		return st.ForgetFlow(c)
	}
	return st.cut(c)
}
