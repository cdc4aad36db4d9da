package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/redisbudget"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	loadDestinations = 20
	loadPorts        = 50 // for each instance, of which it has 12 for itself, and 26 as its part of what is leased

	// What each wants to each destination: less than its part, or more.
	enough = 24
	hungry = 60
)

// load has many instances share many destinations, and asks Redis what that costs it. There
// is no NAT here.
func load(r *work.Report) error {
	c := crowd{instances: 100, ttl: 5 * time.Second}
	if r.Full {
		c = crowd{instances: 200, ttl: 10 * time.Second}
	}
	wants := []int{enough}
	if r.Full {
		wants = append(wants, hungry)
	}
	for _, c.wants = range wants {
		if err := servers.Run(func(t servers.T) error { return c.cost(r, servers.Redis(t).Addr()) }); err != nil {
			return err
		}
	}
	return nil
}

// A crowd is instances each of which wants so many ports to each destination.
type crowd struct {
	instances int
	ttl       time.Duration
	wants     int
}

// cost has the crowd share, and notes what that costs.
func (c crowd) cost(r *work.Report, server string) (err error) {
	var all sync.WaitGroup
	life, end := context.WithCancel(context.Background())
	defer all.Wait()
	defer end()
	for range c.instances {
		l, err := c.newLessee(server)
		if err != nil {
			return err
		}
		defer l.client.Close()
		all.Go(func() { l.live(life) })
	}
	time.Sleep(3*c.ttl/2 + loadHold) // until Redis gives more than anybody has, and all have it
	before, err := info(server, "cpu")
	if err != nil {
		return err
	}
	begin := time.Now()
	calls, err := countCalls(server, c.ttl)
	if err != nil {
		return err
	}
	after, err := info(server, "cpu")
	if err != nil {
		return err
	}
	lasts := time.Since(begin).Seconds()
	over := fmt.Sprintf("%d that want %d each", c.instances, c.wants)
	r.Note(work.Told("processor of Redis", "", work.Ratio(busy(after)-busy(before), lasts)).At(over, "").AtMost(1))
	r.Note(work.Told("calls of Redis", "a second", work.Ratio(calls, lasts)).At(over, "").
		Beside(formula, work.Ratio(float64(3*c.instances), c.ttl.Seconds())))
	return nil
}

// busy is the processor time that a Redis has used, in seconds.
func busy(cpu map[string]string) float64 {
	return number(cpu["used_cpu_user"]) + number(cpu["used_cpu_sys"])
}

// loadHold is short, since a Redis that is new gives nobody more than it has for so long.
const loadHold = 100 * time.Millisecond

// A lessee is an instance without connections: it takes grants and gives them back.
type lessee struct {
	*redisbudget.Budget
	client *redis.Client
	wants  int
	held   [loadDestinations][]budget.Grant
}

func (c crowd) newLessee(server string) (*lessee, error) {
	client := direct(server)
	b, err := redisbudget.New(redisbudget.Config{
		Client: client, Ports: loadPorts * c.instances, Instances: c.instances, TTL: c.ttl, Hold: loadHold, Drain: -1,
	})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &lessee{Budget: b, client: client, wants: c.wants}, nil
}

// live takes what it wants and can have, and lets one port to each destination go every
// second, until life ends.
func (l *lessee) live(life context.Context) {
	defer l.Close(context.Background())
	told := make(chan struct{}, 1)
	l.Notify(told)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for life.Err() == nil {
		for i := range l.held {
			l.take(i)
		}
		select {
		case <-told:
			for i := range l.held {
				l.giveBack(i)
			}
		case <-tick.C:
			for i := range l.held {
				l.giveOne(i)
			}
		case <-life.Done():
		}
	}
}

func (l *lessee) take(i int) {
	for len(l.held[i]) < l.wants {
		g, ok := l.Take(netpath.Key{Dest: destination(i), Network: "tcp"})
		if !ok {
			return
		}
		l.held[i] = append(l.held[i], g)
	}
}

func (l *lessee) giveBack(i int) {
	kept := l.held[i][:0]
	for _, g := range l.held[i] {
		if g.Revoked() {
			g.Release()
		} else {
			kept = append(kept, g)
		}
	}
	l.held[i] = kept
}

func (l *lessee) giveOne(i int) {
	if len(l.held[i]) > 0 {
		l.held[i][0].Release()
		l.held[i] = l.held[i][1:]
	}
}

// destination is the i-th of those that are hot.
func destination(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 443)
}
