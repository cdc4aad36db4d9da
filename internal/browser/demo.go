package main

import (
	"context"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool/conns"
)

// A demo is a stage on which much happens at the same time. Whoever plays it closes it.
type demo struct {
	stage   *stage
	ctx     context.Context
	end     context.CancelFunc
	workers sync.WaitGroup
}

// A part is the traffic to one destination.
type part struct {
	host    string
	at      string
	workers int           // that send one request after the other
	work    time.Duration // that a request takes
	pause   time.Duration // between two requests of a worker, on the average
	breaks  float64       // the share of connections that is closed after a request
	resets  float64       // and that the server resets
}

const darkened = "198.51.100.30:9200" // of parts

var parts = []part{
	{host: "payments.example.com", at: "203.0.113.24:443", workers: 120, work: 300 * time.Millisecond, pause: 60 * time.Millisecond, breaks: .001},
	{host: "orders-db.example.com", at: "203.0.113.80:5432", workers: 48, work: 150 * time.Millisecond, pause: 150 * time.Millisecond},
	{host: "search.example.com", at: "198.51.100.30:9200", workers: 36, work: 200 * time.Millisecond, pause: 500 * time.Millisecond, resets: .02},
	{host: "cache.example.com", at: "198.51.100.12:6379", workers: 16, work: 10 * time.Millisecond, pause: 100 * time.Millisecond},
	{host: "mail.example.com", at: "198.51.100.61:587", workers: 3, work: 500 * time.Millisecond, pause: 2 * time.Second, breaks: .12},
	{host: "metrics.example.com", at: "192.0.2.44:443", workers: 4, work: 30 * time.Millisecond, pause: time.Second},
}

// play begins a demonstration that is to last for so long.
func play(lasts time.Duration) (*demo, error) {
	s, err := newStage(netpath.AzureLoadBalancer(128))
	if err != nil {
		return nil, err
	}
	d := &demo{stage: s}
	d.ctx, d.end = context.WithCancel(s.ctx)
	down := netip.MustParseAddrPort("192.0.2.199:8443")
	s.silence(down)
	partner := s.name("partner.example.com", down)
	for _, p := range parts {
		d.begin(p)
	}
	d.workers.Go(func() { d.tryInVain(partner) })
	d.workers.Go(func() { d.darken(netip.MustParseAddrPort(darkened), lasts*3/5) })
	return d, nil
}

// tryInVain dials where nobody answers, and gives up as any dial does.
func (d *demo) tryInVain(address string) {
	for d.ctx.Err() == nil {
		d.stage.try(address, 0)
		d.sleep(time.Second)
	}
}

// darken has the packets of all connections to an address vanish after a while, as where a
// gateway fails over: those that are opened then are well.
func (d *demo) darken(at netip.AddrPort, after time.Duration) {
	d.sleep(after)
	d.stage.nat.Darken(at) // where it cannot, there are no black holes in the picture
}

func (d *demo) begin(p part) {
	address := d.stage.name(p.host, netip.MustParseAddrPort(p.at))
	for i := range p.workers {
		d.workers.Go(func() { d.work(p, address, i) })
	}
}

// work sends requests until the demonstration is over. Traffic comes and goes: each worker
// rests for a part of every wave.
func (d *demo) work(p part, address string, i int) {
	const wave = 45 * time.Second
	began := time.Now()
	for d.ctx.Err() == nil {
		high := .5 + .5*math.Sin(2*math.Pi*float64(time.Since(began))/float64(wave))
		if float64(i)/float64(p.workers) > .35+.65*high {
			d.sleep(time.Second)
			continue
		}
		c, err := d.stage.pool.Get(d.ctx, "tcp", address)
		if err != nil {
			return
		}
		p.request(d, c)
		d.sleep(time.Duration(rand.ExpFloat64() * float64(p.pause)))
	}
}

func (p part) request(d *demo, c *conns.Conn) {
	defer c.Close() // nothing, once it is put back
	if exchange(c) != nil {
		return
	}
	d.sleep(time.Duration(rand.ExpFloat64() * float64(p.work)))
	switch luck := rand.Float64(); {
	case luck < p.breaks:
	case luck < p.breaks+p.resets:
		c.Write([]byte(reset))
		c.Read(make([]byte, 1))
	default:
		c.Put()
	}
}

// sleep sleeps, but not beyond the end.
func (d *demo) sleep(t time.Duration) {
	alarm := time.NewTimer(t)
	defer alarm.Stop()
	select {
	case <-alarm.C:
	case <-d.ctx.Done():
	}
}

// close ends it, and returns when it has ended.
func (d *demo) close() {
	d.end()
	d.workers.Wait()
	d.stage.close()
}
