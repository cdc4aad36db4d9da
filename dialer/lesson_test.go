package dialer_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// untold is a lab whose ledger is told another limit than the NAT has, or none.
func untold(t *testing.T, ports, told int, f func(t *testing.T, lab *lab)) {
	t.Helper()
	path := azure(ports)
	onPath(t, path, func(t *testing.T, lab *lab) {
		path.Limits = nil
		if told > 0 {
			path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: told}}
		}
		lab.ledger = &dialer.Ledger{Path: path, Ramp: -1}
		lab.ledger.SetHost(dialer.Host{Alive: func(netip.AddrPort) (alive, dead, othersAlive, othersDead int) {
			for _, f := range lab.ledger.Flows() {
				if f.State == dialer.Active {
					alive++
				}
			}
			return alive, 0, 1, 0
		}})
		lab.serve(server)
		f(t, lab)
	})
}

// crowd has as many workers dial, and keep what they have for a while, until ctx ends. It
// returns how many dials there were, and what went wrong with the others.
func (l *lab) crowd(ctx context.Context, workers int) (done int64, failed []error) {
	var n atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	d := l.dialer()
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := d.DialContext(ctx, "tcp", server)
				if err != nil {
					if ctx.Err() == nil {
						mu.Lock()
						failed = append(failed, err)
						mu.Unlock()
					}
					continue
				}
				n.Add(1)
				select {
				case <-time.After(10 * time.Second):
				case <-ctx.Done():
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	return n.Load(), failed
}

func TestALimitThatNobodyToldIsLearned(t *testing.T) {
	for _, ports := range []int{16, 64, 128} {
		untold(t, ports, 0, func(t *testing.T, lab *lab) {
			lab.ledger.MaxWait = -1
			ctx, cancel := context.WithTimeout(t.Context(), 3*240*time.Second)
			defer cancel()
			time.AfterFunc(2*time.Minute, func() {
				if a := lab.account(server); a.Limit > ports || a.Limit*10 < ports*9 || a.Grade != netpath.Learned {
					t.Errorf("%d ports: learned %d, %v", ports, a.Limit, a.Grade)
				}
			})
			done, failed := lab.crowd(ctx, 2*ports)
			if len(failed) > 0 {
				t.Errorf("%d ports: %d dials failed: %v", ports, len(failed), failed[0])
			}
			// Each port carries a flow for 10 s, and is held for 240 s.
			if most := int64(ports) * 3; done < most*85/100 {
				t.Errorf("%d ports: %d dials, of %d that a known limit allows", ports, done, most)
			}
			if dropped := lab.nat.Stats().RefusedSYNs; dropped > 8*ports {
				t.Errorf("%d ports: %d SYNs dropped", ports, dropped)
			}
		})
	}
}

func TestPortsThatOthersTakeAreMissedAndComeBack(t *testing.T) {
	const ports, hold = 32, 240 * time.Second
	untold(t, ports, ports, func(t *testing.T, lab *lab) {
		lab.ledger.MaxWait = -1
		var others []interface{ Close() error }
		for range ports / 2 {
			c, err := lab.nat.DialContext(t.Context(), "tcp", server)
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 7*hold)
		defer cancel()
		time.AfterFunc(hold/2, func() {
			if a := lab.account(server); a.Limit != ports/2 || a.Grade != netpath.Learned {
				t.Errorf("others have half: limit %d, %v", a.Limit, a.Grade)
			}
			for _, c := range others {
				c.Close()
			}
		})
		time.AfterFunc(hold/2+5*hold, func() {
			if a := lab.account(server); a.Limit != ports || a.Grade == netpath.Learned {
				t.Errorf("nobody else has any: limit %d, %v", a.Limit, a.Grade)
			}
		})
		if _, failed := lab.crowd(ctx, ports); len(failed) > 0 {
			t.Errorf("%d dials failed: %v", len(failed), failed[0])
		}
	})
}

func TestWhileExhaustedOnlyALoneDialTriesAndMoreAndMoreSeldom(t *testing.T) {
	untold(t, 16, 0, func(t *testing.T, lab *lab) {
		lab.ledger.MaxWait = time.Second
		d := lab.dialer()
		var conns []*dialer.Conn
		for range 16 {
			conns = append(conns, lab.dial(d, server))
		}
		_, err := d.DialContext(t.Context(), "tcp", server)
		if dialer.VerdictOf(err) != dialer.Exhausted || !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("got %v", err)
		}
		if !strings.Contains(err.Error(), " SYNs not answered, 16 connections to there live") || !strings.Contains(err.Error(), "a learned limit, 16 active") {
			t.Errorf("%v does not say how that is known", err)
		}
		before := lab.nat.Stats().RefusedSYNs
		for range 600 { // s: tries begin after 1, 3, 7, 15, 31, 63, 127, 255, 495 and a bit
			if _, err := d.DialContext(t.Context(), "tcp", server); dialer.VerdictOf(err) != dialer.Exhausted {
				t.Errorf("got %v", err)
			}
			if n := lab.account(server).Cooling[keepalive.Unanswered]; n > 0 {
				t.Errorf("%d ports are booked, of which the NAT knows nothing", n)
			}
		}
		if n := lab.nat.Stats().RefusedSYNs - before; n < 16 || n > 27 {
			t.Errorf("%d SYNs while it was known that there is no port", n)
		}
		if ds := lab.ledger.Diagnoses(); len(ds) != 1 || ds[0].Verdict != dialer.Exhausted || ds[0].Dials < 590 || ds[0].Dials > 601 || ds[0].Host != server {
			t.Errorf("diagnoses: %+v", ds)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

// jammed dials a server that takes nothing while jam is set, and what comes then a second late.
func (l *lab) jammed(jam *atomic.Bool) *dialer.Dialer {
	return &dialer.Dialer{Ledger: l.ledger, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		for jam.Load() { // the kernel sends the SYN again
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return l.nat.DialContext(ctx, network, address)
	}}
}

func TestAServerThatTakesNoMoreForAMomentIsNotLockedOut(t *testing.T) {
	untold(t, 1000, 0, func(t *testing.T, lab *lab) {
		var jam atomic.Bool
		d := lab.jammed(&jam)
		var conns []*dialer.Conn
		dial := func(n int) (slowest time.Duration) {
			t.Helper()
			var mu sync.Mutex
			var all sync.WaitGroup
			start := time.Now()
			for range n {
				all.Go(func() {
					c, err := d.DialContext(t.Context(), "tcp", server)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					conns, slowest = append(conns, c.(*dialer.Conn)), max(slowest, time.Since(start))
				})
			}
			all.Wait()
			return slowest
		}
		dial(12)
		jam.Store(true)
		time.AfterFunc(8*time.Second, func() { jam.Store(false) })
		if took := dial(30); took > 20*time.Second {
			t.Errorf("8 s were enough to have dials wait for %v", took)
		}
		for range 5 { // as many more as the limit may rise by
			if took := dial(100); took > time.Second {
				t.Errorf("long after that dials take %v", took)
			}
		}
		if a := lab.account(server); a.Limit < 500 {
			t.Errorf("the limit is %d", a.Limit)
		}
		for _, c := range conns {
			c.Close()
		}
		time.Sleep(time.Hour)
		conns = nil
		if took := dial(30); took > time.Second {
			t.Errorf("an hour later dials take %v", took)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestAServersJamIsOverForWhoIsImpatientToo(t *testing.T) {
	for _, patience := range []time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond, 3 * time.Second} {
		untold(t, 1000, 0, func(t *testing.T, lab *lab) {
			var jam atomic.Bool
			d := lab.jammed(&jam)
			for range 12 {
				defer lab.dial(d, server).Close()
			}
			jam.Store(true)
			start := time.Now()
			time.AfterFunc(8*time.Second, func() { jam.Store(false) })
			var all sync.WaitGroup
			for range 30 {
				all.Go(func() {
					for time.Since(start) < 20*time.Second { // tries begin after 1, 3, 7 and 15 s, and a bit
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						c, err := d.DialContext(ctx, "tcp", server)
						cancel()
						if err == nil {
							c.Close()
							return
						}
					}
					t.Errorf("patience %v: not connected 12 s after the jam", patience)
				})
			}
			all.Wait()
		})
	}
}

func TestClientsThatWaitOnlyASecondLearnToo(t *testing.T) {
	untold(t, 16, 0, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		var conns []*dialer.Conn
		for range 16 {
			conns = append(conns, lab.dial(d, server))
		}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := d.DialContext(ctx, "tcp", server); err == nil {
				t.Error("there is no port")
			}
			cancel()
		}
		if a := lab.account(server); a.Limit != 16 || a.Grade != netpath.Learned {
			t.Errorf("limit %d, %v", a.Limit, a.Grade)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestADialThatFindsOutThatPortsAreWantingWaitsNoLongerThanOthers(t *testing.T) {
	untold(t, 16, 0, func(t *testing.T, lab *lab) {
		lab.ledger.MaxWait = 20 * time.Second
		d := lab.dialer()
		var conns []*dialer.Conn
		for range 16 {
			conns = append(conns, lab.dial(d, server))
		}
		start := time.Now()
		_, err := d.DialContext(t.Context(), "tcp", server)
		if took := time.Since(start); !errors.Is(err, dialer.ErrBudget) || took > 30*time.Second || len(err.Error()) > 300 {
			t.Errorf("after %v: %v", took, err)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestNothingIsTriedBeyondAKnownLimit(t *testing.T) {
	untold(t, 99, 100, func(t *testing.T, lab *lab) {
		lab.ledger.MaxWait = -1
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				if a := lab.account(server); a.Taken() > 100 {
					t.Errorf("taken %d", a.Taken())
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		var wg sync.WaitGroup
		for range 20 { // newcomers, each of them
			wg.Go(func() { lab.crowd(ctx, 10) })
		}
		wg.Wait()
	})
}

func TestInShadowALimitIsNotLearned(t *testing.T) {
	untold(t, 16, 0, func(t *testing.T, lab *lab) {
		lab.ledger.Shadow = true
		d := lab.dialer()
		var conns []*dialer.Conn
		for range 16 {
			conns = append(conns, lab.dial(d, server))
		}
		_, err := d.DialContext(t.Context(), "tcp", server)
		if dialer.VerdictOf(err) != dialer.Exhausted || errors.Is(err, dialer.ErrBudget) {
			t.Errorf("got %v", err)
		}
		if a := lab.account(server); a.Limit != netpath.None || a.Grade == netpath.Learned {
			t.Errorf("limit %d, %v", a.Limit, a.Grade)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestADeadServerIsNeverExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		n.BlackHole("20.7.7.7:8443")
		path := netpath.AzureAppService()
		l := &dialer.Ledger{Path: path, Ramp: -1}
		l.SetHost(dialer.Host{Strays: func() (uint64, bool) { return 0, false }, Alive: func(netip.AddrPort) (alive, dead, othersAlive, othersDead int) { return 0, 0, 4, 0 }})
		d := &dialer.Dialer{Ledger: l, Dial: n.DialContext}
		for i := range 40 {
			_, err := d.DialContext(t.Context(), "tcp", "20.7.7.7:8443")
			if v := dialer.VerdictOf(err); v != dialer.PathDown {
				t.Errorf("dial %d: %v", i+1, err)
			}
			time.Sleep(time.Second)
		}
	})
}
