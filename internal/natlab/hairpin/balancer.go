package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// What is asked of natwise behind balancers with so many backends.
var asked = map[int]struct {
	fail float64       // the share of dials that may
	p99  time.Duration // of those that work
}{
	2: {0.001, 1800 * time.Millisecond},
	4: {0.0001, time.Second},
}

const (
	soon        = 3 * time.Second // a dial that takes longer has failed
	verdictSoon = 2 * time.Second

	// goTimeout is that of Go's own dial: http.DefaultTransport's is 30 s, which is waited for
	// in the long form only. A net.Dialer has none, and the kernel gives up after 134 s.
	goTimeout     = soon
	goTimeoutFull = 30 * time.Second

	goDials = 200
)

// What a connection speaks.
const (
	plain   = "plain"
	overTLS = "tls"
)

var overs = []string{plain, overTLS}

// hairpin dials balancers with one, two and four backends, of which one is who dials.
func hairpin(r *work.Report) (err error) {
	st, err := open(natlab.Config{Path: work.Path(), Servers: 3})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	if err := st.service(); err != nil {
		return err
	}
	for n := range maxBackends {
		if err := st.balance(n, n+1); err != nil {
			return err
		}
	}
	hopeless, err := st.hopeless(colds(r.Full))
	if err != nil {
		return err
	}
	var ours []lot
	for _, n := range []int{2, 4} {
		for _, over := range overs {
			l, err := st.lot(n, over, Setup{}, dials(r.Full, n), 32)
			if err != nil {
				return err
			}
			ours = append(ours, l)
		}
	}
	peers, err := st.peers(r.Full)
	if err != nil {
		return err
	}
	for i, l := range hopeless {
		l.noteVerdict(r, peers[i])
	}
	for i, l := range ours {
		l.note(r, peers[len(hopeless)+i])
	}
	return nil
}

// maxBackends is how many the largest balancer has.
const maxBackends = 4

// dials is how many it takes to see what is asked for.
func dials(full bool, backends int) int {
	switch {
	case !full:
		return 400
	case backends == 2:
		return 3000
	}
	return 10000
}

// colds is how many clients that know nothing dial where there is no hope.
func colds(full bool) int {
	if full {
		return 20
	}
	return 1
}

// A lot is many dials to one balancer.
type lot struct {
	backends int
	over     string
	timeout  time.Duration // of Go's own
	dials    []Dialed
}

// lot has a new client dial, so many at once.
func (st *stage) lot(backends int, over string, s Setup, n, atOnce int) (l lot, err error) {
	l = lot{backends: backends, over: over, timeout: s.Timeout}
	d := Dials{Address: vip(backends-1, 80).String(), N: n, AtOnce: atOnce}
	if over == overTLS {
		d.TLS, d.Address = true, vip(backends-1, 443).String()
	}
	if d.Client, err = st.client(s); err != nil {
		return l, err
	}
	return l, st.guest.ask("Dial", d, &l.dials)
}

// client has the guest make a client, and returns its number.
func (st *stage) client(s Setup) (number int, err error) {
	s.Root = st.origin.root.Raw
	err = st.guest.ask("New", s, &number)
	return number, err
}

// hopeless dials the balancer that has no other backend, each time with a client that knows
// nothing yet.
func (st *stage) hopeless(times int) (all []lot, err error) {
	for _, over := range overs {
		for i := range times {
			l, err := st.lot(1, over, Setup{}, 1, 1)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				all = append(all, l)
				continue
			}
			last := &all[len(all)-1]
			last.dials = append(last.dials, l.dials...)
		}
	}
	return all, nil
}

// peers has Go's own dialer do the same. It mostly waits, so it dials all balancers at once.
func (st *stage) peers(full bool) (all []lot, err error) {
	s := Setup{Plain: true, Timeout: goTimeout}
	if full {
		s.Timeout = goTimeoutFull
	}
	all = make([]lot, 3*len(overs))
	errs := make([]error, len(all))
	var waiting sync.WaitGroup
	for i := range all {
		waiting.Go(func() {
			backends := []int{1, 2, 4}[i/len(overs)]
			all[i], errs[i] = st.lot(backends, overs[i%len(overs)], s, goDials, goDials)
		})
	}
	waiting.Wait()
	return all, errors.Join(errs...)
}

// failed counts the dials that were not through in time.
func (l *lot) failed(within time.Duration) (n int, why work.Causes) {
	for _, d := range l.dials {
		switch {
		case d.Error != "":
			n++
			why.Add(errors.New(d.Error))
		case d.Took > within:
			n++
			why.Add(fmt.Errorf("connected, but only after %v", within))
		}
	}
	return n, why
}

// took returns a percentile of the dials that worked, in seconds.
func (l *lot) took(q float64) work.Reading { return work.Seconds(l.percentile(q)) }

func (l *lot) milliseconds(q float64) work.Reading {
	return work.Reading{Value: work.Milliseconds(l.percentile(q))}
}

func (l *lot) percentile(q float64) time.Duration {
	var all []time.Duration
	for _, d := range l.dials {
		if d.Error == "" {
			all = append(all, d.Took)
		}
	}
	return work.Percentile(all, q)
}

// flows is how many flows were spent for each dial that worked.
func (l *lot) flows() work.Reading {
	spent, worked := 0, 0
	for _, d := range l.dials {
		if d.Error == "" {
			spent, worked = spent+d.Tries, worked+1
		}
	}
	return work.Ratio(float64(spent), float64(worked))
}

// note notes what became of dials to a balancer that has others than us.
func (l *lot) note(r *work.Report, peer lot) {
	at := func(m work.Measurement) { r.Note(m.At(l.over, fmt.Sprintf("%d backends", l.backends))) }
	failed, why := l.failed(soon)
	peerFailed, peerWhy := peer.failed(peer.timeout)
	low, high := bounds(failed, len(l.dials))
	m := work.Told(fmt.Sprintf("%d dials, fail (95 %%: %.4f to %.4f %%)", len(l.dials), 100*low, 100*high), "%", share(failed, len(l.dials))).
		Beside(goDial, share(peerFailed, len(peer.dials))).Said(why.Err(), peerWhy.Err())
	most := 100 * asked[l.backends].fail
	m.Bound = &most
	if low > asked[l.backends].fail { // a failure among few dials proves nothing
		m.Status = work.Missed
	}
	at(m)
	at(work.Told("p50", "s", l.took(0.5)).Beside(goDial, peer.took(0.5)))
	at(work.Told("p99", "s", l.took(0.99)).AtMost(asked[l.backends].p99.Seconds()).Beside(goDial, peer.took(0.99)))
	at(work.Told("slowest", "s", l.took(1)).Beside(goDial, peer.took(1)))
	at(work.Told("flows for each that works", "", l.flows()))
}

// noteVerdict notes what became of dials to a balancer that only has us.
func (l *lot) noteVerdict(r *work.Report, peer lot) {
	at := func(m work.Measurement) { r.Note(m.At(l.over, "1 backend")) }
	peerFailed, peerWhy := peer.failed(peer.timeout)
	failed, why := l.failed(soon)
	at(work.Told(fmt.Sprintf("%d dials, fail", len(l.dials)), "%", share(failed, len(l.dials))).
		Beside(goDial, share(peerFailed, len(peer.dials))).Said(why.Err(), peerWhy.Err()))
	slowest := slices.MaxFunc(l.dials, func(a, b Dialed) int { return int(a.Took - b.Took) })
	at(work.Told("until the verdict", "s", work.Seconds(slowest.Took)).AtMost(verdictSoon.Seconds()).
		Beside(goDial+", fails without any", work.Seconds(peer.timeout)))
	at(work.Told("dials whose error does not name the hairpin", "", work.Number(l.unnamed("hairpin"))).AtMost(0).Said(why.Err(), nil))
}

// unnamed counts the dials whose error does not give and say a verdict.
func (l *lot) unnamed(v string) (n int) {
	for _, d := range l.dials {
		if d.Verdict != v || !strings.Contains(d.Error, v) {
			n++
		}
	}
	return n
}
