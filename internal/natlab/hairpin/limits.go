package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive/netpath"
)

// What is asked of natwise where nobody tells it the limit. Times are in holds.
const (
	near        = 0.1 // a learned limit may be off by that share
	learnedIn   = 3
	halfLearned = 2
	givenBackIn = 4
	slower      = 0.15 // at most, beside a ledger that is told

	steadyFor = 3

	// What is closed holds its port for so long.
	shortHold = 3 * time.Second
	longHold  = 6 * time.Second // with -full

	// A connection of the load lives so long.
	lifeLeast = 500 * time.Millisecond
	lifeMost  = 3 * time.Second
)

// limits lets natwise find out how many ports there are, and how many are left where another
// process takes half of them; and that a server which takes no more for a while is no limit.
func limits(r *work.Report) error {
	all := []int{16, 64, 128}
	found := make([][]work.Measurement, len(all)+1)
	errs := make([]error, len(all)+1)
	var learning sync.WaitGroup
	for i, n := range all {
		learning.Go(func() {
			errs[i] = learn(n, r.Full, func(m work.Measurement) { found[i] = append(found[i], m.At(fmt.Sprintf("limit %d", n), "")) })
		})
	}
	learning.Go(func() {
		last := len(all)
		errs[last] = jam(func(m work.Measurement) {
			found[last] = append(found[last], m.At("no limit, a server jammed for 8 s", ""))
		})
	})
	learning.Wait()
	for _, m := range slices.Concat(found...) {
		r.Note(m)
	}
	return errors.Join(errs...)
}

// limitPath forgets a closed flow after one hold, however it was closed.
func limitPath(n int, hold time.Duration) netpath.Profile {
	p := work.Path()
	p.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
	p.Hold.FIN, p.Hold.SYN = hold, hold
	return p
}

// A pupil is a client that learns the limit of its path, or has been told, under a load that
// wants more.
type pupil struct {
	*stage
	limit  int
	hold   time.Duration
	client int
	begin  time.Time
}

func newPupil(limit int, hold time.Duration, told bool) (p *pupil, err error) {
	st, err := open(natlab.Config{Path: limitPath(limit, hold)})
	if err != nil {
		return nil, err
	}
	p = &pupil{stage: st, limit: limit, hold: hold}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	for _, at := range []netip.AddrPort{p.dest(), p.other()} {
		ln, err := st.Listen(at.String())
		if err != nil {
			return nil, err
		}
		go st.origin.echo(ln, 0)
	}
	s := Setup{Path: limitPath(limit, hold)}
	if !told {
		s.Path.Limits = nil
	}
	if p.client, err = st.client(s); err != nil {
		return nil, err
	}
	var talks []Dialed // somewhere else all is well
	if err := st.guest.ask("Dial", Dials{Client: p.client, Address: p.other().String(), N: 2, Keep: true}, &talks); err != nil {
		return nil, err
	}
	p.begin = time.Now()
	load := Load{Client: p.client, Address: p.dest().String(), Workers: 2 * limit, Least: lifeLeast, Most: lifeMost}
	return p, st.guest.ask("Begin", load, &struct{}{})
}

func (p *pupil) dest() netip.AddrPort  { return netip.AddrPortFrom(p.Server(0), 80) }
func (p *pupil) other() netip.AddrPort { return netip.AddrPortFrom(p.Server(0), elsewhere) }

// learned returns the limit that natwise keeps to; netpath.None: to none.
func (p *pupil) learned() (limit int, err error) {
	var seen Client
	err = p.guest.ask("Look", p.client, &seen)
	for _, a := range seen.Accounts {
		if a.Key.Dest == p.dest() {
			return a.Limit, err
		}
	}
	return netpath.None, err
}

// A mark is what was done until some time.
type mark struct {
	at              time.Time
	served, refused int
}

func (p *pupil) mark() (m mark, err error) {
	var seen Client
	err = p.guest.ask("Look", p.client, &seen)
	c, also := p.Counts()
	return mark{time.Now(), seen.Served, c.Refused}, errors.Join(err, also)
}

// since is what was served a second, and how many SYNs were refused.
func (p *pupil) since(before mark) (rate float64, refused int, err error) {
	now, err := p.mark()
	return float64(now.served-before.served) / now.at.Sub(before.at).Seconds(), now.refused - before.refused, err
}

// until waits until the limit is as it should be, and returns how many holds that took.
func (p *pupil) until(since time.Time, most float64, ok func(limit int) bool) (work.Reading, error) {
	for {
		limit, err := p.learned()
		took := time.Since(since)
		switch {
		case err != nil:
			return work.Reading{}, err
		case limit != netpath.None && ok(limit):
			return p.holds(took), nil
		case took.Seconds() > (most+1)*p.hold.Seconds():
			return work.Reading{Value: most + 1, More: true}, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *pupil) holds(d time.Duration) work.Reading {
	return work.Reading{Value: math.Round(100*d.Seconds()/p.hold.Seconds()) / 100}
}

// off is by which share a limit is not what it should be.
func off(limit, should int) float64 { return math.Abs(float64(limit-should)) / float64(should) }

// learn follows one limit from the first dial on.
func learn(n int, full bool, note func(work.Measurement)) (err error) {
	hold := shortHold
	if full {
		hold = longHold
	}
	p, err := newPupil(n, hold, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	told, err := newPupil(n, hold, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, told.close()) }()
	took, err := p.until(p.begin, learnedIn, func(limit int) bool { return off(limit, n) <= near })
	if err != nil {
		return err
	}
	note(work.Told("learned, off by 10 % at most", "holds", took).AtMost(learnedIn))
	if err := p.steady(note, told); err != nil {
		return err
	}
	return p.shared(note)
}

// steady compares what is served with a limit that was learned and with one that was told.
func (p *pupil) steady(note func(work.Measurement), told *pupil) error {
	time.Sleep(time.Until(p.begin.Add(learnedIn * p.hold)))
	mine, err := p.mark()
	if err != nil {
		return err
	}
	others, err := told.mark()
	if err != nil {
		return err
	}
	var offs []float64
	for time.Since(mine.at) < steadyFor*p.hold {
		limit, err := p.learned()
		if err != nil {
			return err
		}
		offs = append(offs, 100*off(limit, p.limit))
		time.Sleep(50 * time.Millisecond)
	}
	rate, refused, err := p.since(mine)
	if err != nil {
		return err
	}
	peer, peerRefused, err := told.since(others)
	if err != nil {
		return err
	}
	note(work.Told("then off, the median", "%", work.Ratio(work.Median(offs), 1)).AtMost(100 * near))
	note(work.Told("then off, at its worst", "%", work.Ratio(slices.Max(offs), 1)))
	note(work.Told("SYNs refused then", "", work.Number(refused)).Beside(toldLimit, work.Number(peerRefused)))
	note(work.Told("served", "a second", work.Ratio(rate, 1)).Beside(toldLimit, work.Ratio(peer, 1)))
	note(work.Told("slower than where the limit is told", "%", work.Ratio(100*(1-rate/peer), 1)).AtMost(100 * slower))
	return nil
}

const toldLimit = "told the limit"

// shared lets another process take half, and give it back.
func (p *pupil) shared(note func(work.Measurement)) error {
	left := p.limit - p.limit/2
	conns, err := p.take(p.limit / 2)
	defer func() {
		for _, c := range conns {
			reset(c)
		}
	}()
	if err != nil {
		return err
	}
	took, err := p.until(time.Now(), halfLearned, func(limit int) bool { return off(limit, left) <= near })
	if err != nil {
		return err
	}
	note(work.Told("another process has half, learned", "holds", took).AtMost(halfLearned))
	half := !took.More
	time.Sleep(p.hold)
	for _, c := range conns {
		reset(c)
	}
	conns = nil
	took, err = p.until(time.Now(), givenBackIn, func(limit int) bool { return off(limit, p.limit) <= near })
	if err != nil {
		return err
	}
	m := work.Told("it gives that back, learned", "holds", took).AtMost(givenBackIn)
	if !half {
		m.Miss("it was not known to be gone")
	}
	note(m)
	return nil
}

// take has another process take n ports, for which it tries as long as it must, and more often
// than natwise does.
func (p *pupil) take(n int) (conns []net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	taken := make(chan net.Conn)
	for range n {
		go func() {
			for ctx.Err() == nil {
				once, end := context.WithTimeout(ctx, 200*time.Millisecond)
				c, err := p.Lab.Dial(once, "tcp", p.dest().String())
				end()
				if err == nil {
					taken <- c
					return
				}
			}
			taken <- nil
		}()
	}
	for range n {
		if c := <-taken; c != nil {
			conns = append(conns, c)
		} else {
			err = fmt.Errorf("another process did not get %d ports", n)
		}
	}
	return conns, err
}
