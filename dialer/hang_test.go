package dialer_test

import (
	"context"
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
	"github.com/natwise/natwise/keepalive/netpath"
)

const vip = "10.0.0.100:80" // of a balancer: private, so that no NAT counts it

// A balancer maps flows to its backends in turn, of which the first is this host: nothing
// comes of those.
type balancer struct {
	net      memnet.Network
	backends atomic.Int64
	silent   bool // nobody counts what comes back
	stray    bool // it does not come back
	slow     time.Duration

	syns, came atomic.Int64
}

func among(n int64) *balancer {
	b := new(balancer)
	b.backends.Store(n)
	return b
}

func (b *balancer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if n, of := b.syns.Add(1)-1, b.backends.Load(); of > 0 && n%of == 0 {
		if !b.stray {
			b.came.Add(1)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(b.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return b.net.DialContext(ctx, network, address)
}

func (b *balancer) strays() (uint64, bool) { return uint64(b.came.Load()), !b.silent }

// behind runs f in virtual time on a backend of a balancer.
func behind(t *testing.T, b *balancer, f func(t *testing.T, d *dialer.Dialer, last func() dialer.Event)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln, err := b.net.Listen(vip)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		defer ln.Close()
		var event dialer.Event
		l := &dialer.Ledger{Ramp: -1}
		l.SetHost(dialer.Host{Strays: b.strays, Listening: []uint16{8080}})
		d := &dialer.Dialer{Ledger: l, Dial: b.dial, Observe: func(e dialer.Event) {
			if e.Kind == dialer.Opened || e.Kind == dialer.Failed {
				event = e
			}
		}}
		f(t, d, func() dialer.Event { return event })
		time.Sleep(time.Minute) // who was asked has answered
	})
}

func dialOnce(t *testing.T, d *dialer.Dialer) (took time.Duration, err error) {
	t.Helper()
	start := time.Now()
	c, err := d.DialContext(t.Context(), "tcp", vip)
	if err == nil {
		c.Close()
	}
	return time.Since(start), err
}

func TestAHairpinIsDialedAgainFromAnotherSourcePort(t *testing.T) {
	b := among(2)
	behind(t, b, func(t *testing.T, d *dialer.Dialer, last func() dialer.Event) {
		for range 5 {
			took, err := dialOnce(t, d)
			if err != nil || took != 200*time.Millisecond || last().Tries != 2 {
				t.Errorf("after %v and %d tries: %v", took, last().Tries, err)
			}
			b.syns.Store(0)
		}
	})
}

func TestABalancerWithoutAnotherBackendIsToldWithinTwoSeconds(t *testing.T) {
	b := among(1)
	behind(t, b, func(t *testing.T, d *dialer.Dialer, last func() dialer.Event) {
		took, err := dialOnce(t, d)
		if dialer.VerdictOf(err) != dialer.Hairpin || !strings.Contains(err.Error(), "no other backend: dial this host's own address") {
			t.Errorf("after %v: %v", took, err)
		}
		if took > 2*time.Second {
			t.Errorf("after %v", took)
		}
		again, err := dialOnce(t, d)
		if dialer.VerdictOf(err) != dialer.Hairpin || again > took/2 {
			t.Errorf("the next time after %v: %v", again, err)
		}
		if ds := d.Ledger.Diagnoses(); len(ds) != 1 || ds[0].Verdict != dialer.Hairpin || ds[0].Dials != 2 || ds[0].Host != vip {
			t.Errorf("diagnoses: %+v", ds)
		}
	})
}

func TestATryThatIsUnluckyIsBounded(t *testing.T) {
	b := among(2)
	behind(t, b, func(t *testing.T, d *dialer.Dialer, _ func() dialer.Event) {
		if _, err := dialOnce(t, d); err != nil { // so that it is known that there is another backend
			t.Fatal(err)
		}
		b.backends.Store(1)
		b.syns.Store(0)
		took, err := dialOnce(t, d)
		if dialer.VerdictOf(err) != dialer.Hairpin || b.syns.Load() > 12 || took > 3*time.Second {
			t.Errorf("after %v and %d SYNs: %v", took, b.syns.Load(), err)
		}
	})
}

func TestABlackHoleWhosePortIsServedHereIsNoHairpin(t *testing.T) {
	for _, silent := range []bool{true, false} {
		b := among(1)
		b.stray, b.silent = true, silent
		behind(t, b, func(t *testing.T, d *dialer.Dialer, _ func() dialer.Event) {
			for range 3 {
				took, err := dialOnce(t, d)
				if dialer.VerdictOf(err) != dialer.PathDown || took != 10*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			}
			if n := b.syns.Load(); n > 36 {
				t.Errorf("%d SYNs", n)
			}
		})
	}
}

func TestWhereNobodyCountsWhatComesBackAHairpinIsKnownByItsWay(t *testing.T) {
	b := among(1)
	b.silent = true
	behind(t, b, func(t *testing.T, d *dialer.Dialer, last func() dialer.Event) {
		for range 2 { // two source ports repeat their SYN in vain, while others are answered at once
			var wg sync.WaitGroup
			wg.Go(func() {
				if took, err := dialOnce(t, d); err != nil || took != 1400*time.Millisecond {
					t.Errorf("after %v: %v", took, err)
				}
			})
			time.Sleep(900 * time.Millisecond)
			b.backends.Store(0)
			if took, err := dialOnce(t, d); err != nil || took != 0 {
				t.Errorf("after %v: %v", took, err)
			}
			wg.Wait()
			b.backends.Store(1)
		}
		took, err := dialOnce(t, d)
		if dialer.VerdictOf(err) != dialer.Hairpin {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestAShortOutageIsNoHairpin(t *testing.T) {
	for _, silent := range []bool{true, false} {
		b := among(0)
		b.stray, b.silent = true, silent
		behind(t, b, func(t *testing.T, d *dialer.Dialer, _ func() dialer.Event) {
			d.Observe = nil
			for range 3 {
				b.backends.Store(1)
				time.AfterFunc(5500*time.Millisecond, func() { b.backends.Store(0) })
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						if took, err := dialOnce(t, d); dialer.VerdictOf(err) == dialer.Hairpin {
							t.Errorf("after %v: %v", took, err)
						}
					})
					time.Sleep(130 * time.Millisecond)
				}
				wg.Wait()
				time.Sleep(10 * time.Second)
			}
			for _, d := range d.Ledger.Diagnoses() {
				if d.Verdict == dialer.Hairpin {
					t.Errorf("diagnosed %+v", d)
				}
			}
		})
	}
}

func TestABusyClientsBlackHoleBesideOthersHairpinsIsNone(t *testing.T) {
	b := among(1)
	b.stray = true
	behind(t, b, func(t *testing.T, d *dialer.Dialer, _ func() dialer.Event) {
		d.Observe = nil
		stop := make(chan struct{})
		go func() {
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-tick.C:
					b.came.Add(1) // a neighbour's
				case <-stop:
					return
				}
			}
		}()
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() {
				if took, err := dialOnce(t, d); dialer.VerdictOf(err) == dialer.Hairpin {
					t.Errorf("after %v: %v", took, err)
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		close(stop)
	})
}

func TestAPathThatIsSlowIsNotDialedTwiceForEver(t *testing.T) {
	b := &balancer{slow: 300 * time.Millisecond}
	behind(t, b, func(t *testing.T, d *dialer.Dialer, last func() dialer.Event) {
		for i := range 5 {
			took, err := dialOnce(t, d)
			if err != nil || took != b.slow || i > 0 && last().Tries != 1 {
				t.Errorf("after %v and %d tries: %v", took, last().Tries, err)
			}
		}
	})
}

func TestARefusalEndsAllTries(t *testing.T) {
	b := &balancer{slow: 300 * time.Millisecond}
	behind(t, b, func(t *testing.T, d *dialer.Dialer, last func() dialer.Event) {
		took, err := func() (time.Duration, error) {
			start := time.Now()
			_, err := d.DialContext(t.Context(), "tcp", "10.0.0.101:80")
			return time.Since(start), err
		}()
		if dialer.VerdictOf(err) != dialer.PeerDown || took != b.slow {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestAHairpinIsToldThoughAnotherSourcePortAlwaysHelps(t *testing.T) {
	b := among(4)
	behind(t, b, func(t *testing.T, d *dialer.Dialer, _ func() dialer.Event) {
		d.Observe = nil
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				if _, err := dialOnce(t, d); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(70 * time.Millisecond)
		}
		wg.Wait()
		if ds := d.Ledger.Diagnoses(); len(ds) != 1 || ds[0].Verdict != dialer.Hairpin || ds[0].Dials != 0 {
			t.Errorf("diagnoses: %+v", ds)
		}
	})
}

func TestABlackHoleIsNotStormedWithSourcePorts(t *testing.T) {
	for _, silent := range []bool{true, false} {
		b := among(1)
		b.stray, b.silent = true, silent
		behind(t, b, func(t *testing.T, d *dialer.Dialer, _ func() dialer.Event) {
			if dialOnce(t, d); b.syns.Load() > 4 {
				t.Errorf("one dial sent from %d source ports", b.syns.Load())
			}
			b.syns.Store(0)
			d.Observe = nil
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() { dialOnce(t, d) })
			}
			all.Wait()
			if n := b.syns.Load(); n > 50+12 {
				t.Errorf("50 dials sent from %d source ports", n)
			}
		})
	}
}

func TestOneDialAtATimeIsEvidenceEnoughWhereSYNsAreRepeatedSeldom(t *testing.T) {
	dialer.OldKernel(t)
	untold(t, 16, 0, func(t *testing.T, lab *lab) {
		d := lab.dialer()
		var conns []*dialer.Conn
		for range 16 {
			conns = append(conns, lab.dial(d, server))
		}
		if vs := verdictsOf(t, d, 3); vs[2] != dialer.Exhausted {
			t.Errorf("without a port: %v", vs)
		}
		if a := lab.account(server); a.Limit != 16 || a.Grade != netpath.Learned {
			t.Errorf("limit %d, %v", a.Limit, a.Grade)
		}
		for _, c := range conns {
			c.Close()
		}
	})
	inLab(t, 16, func(t *testing.T, lab *lab) {
		lab.ledger.SetHost(dialer.Host{Alive: func(netip.AddrPort) (int, int, int, int) { return 0, 0, 4, 0 }})
		lab.net.BlackHole(server)
		if vs := verdictsOf(t, lab.dialer(), 3); vs[2] != dialer.PathDown {
			t.Errorf("a dead server: %v", vs)
		}
	})
}

// verdictsOf dials so often, one after the other.
func verdictsOf(t *testing.T, d *dialer.Dialer, dials int) (vs []dialer.Verdict) {
	for range dials {
		_, err := d.DialContext(t.Context(), "tcp", server)
		vs = append(vs, dialer.VerdictOf(err))
		time.Sleep(time.Second)
	}
	return vs
}
