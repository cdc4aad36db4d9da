package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/natlab/work"
)

// join has the instances come one after another.
func (c *cluster) join(n int) error {
	for i := range n {
		if err := c.together(i, i+1, c.role); err != nil {
			return err
		}
		time.Sleep(c.role.Redis.TTL / 5)
	}
	time.Sleep(c.forgotten()) // a fleet's first time is on floors
	c.settle()
	return nil
}

// steady counts what Redis is asked where nothing happens.
func (c *cluster) steady(scene string) error {
	lasts := 3 * c.role.Redis.TTL
	calls, err := countCalls(c.redis.Addr(), lasts)
	if err != nil {
		return err
	}
	by := 3 / c.role.Redis.TTL.Seconds() * float64(len(c.current))
	c.note(scene, work.Told("calls of Redis", "a second", work.Ratio(calls, lasts.Seconds())).Beside(formula, work.Ratio(by, 1)).AtMost(1.2*by))
	return nil
}

// exchange has one leave in order, and another come in its place when it is forgotten.
func (c *cluster) exchange(i int) error {
	if err := c.part(i); err != nil {
		return err
	}
	time.Sleep(c.forgotten())
	if err := c.together(i, i+1, c.role); err != nil {
		return err
	}
	c.settle()
	return nil
}

// strike kills some, and starts them again at once.
func (c *cluster) strike(from, to int) error {
	if err := c.kill(from, to); err != nil {
		return err
	}
	if err := c.together(from, to, c.role); err != nil {
		return err
	}
	time.Sleep(c.forgotten())
	c.settle()
	return nil
}

// freeze stops one until its lease is long over. When it wakes up, it must not believe that it
// still has it.
func (c *cluster) freeze(scene string, i int) error {
	p := c.current[i]
	c.paused = p
	if err := p.stop(); err != nil {
		return err
	}
	time.Sleep(3 * c.role.Redis.TTL)
	begin := time.Now()
	seen := c.watch.between(begin.Add(-time.Second), begin)
	if err := p.wake(); err != nil {
		return err
	}
	c.settle()
	var m work.Measurement
	if renewed, floor, ok := p.renewed(begin); !ok {
		m = work.Told("ports beyond its floor dialed before it had renewed", "", work.Number(0)).AtMost(0)
		m.Miss("it has not renewed within %v", time.Since(begin).Round(time.Millisecond))
	} else {
		dialed := c.watch.dialed(p.source, begin, renewed)
		beyond := max(0, min(dialed, seen[len(seen)-1].by[p.source]+dialed-floor))
		m = work.Told("ports beyond its floor dialed before it had renewed", "", work.Number(beyond)).AtMost(0)
		c.note(scene, work.Told("it had renewed after", "s", work.Seconds(renewed.Sub(begin))))
	}
	c.note(scene, m)
	return nil
}

// renewed is when an instance first had an answer on which a lease rests, after begin, and
// what its floor was then.
func (p *process) renewed(begin time.Time) (at time.Time, floor int, ok bool) {
	for _, l := range p.said(begin) {
		for _, r := range l.Reports {
			if at := l.At.Add(-r.Age); r.Leased > 0 && at.After(begin) {
				return at, r.Floor, true
			}
		}
	}
	return at, 0, false
}

// outage stops Redis, which remembers, for longer than a lease.
func (c *cluster) outage(scene string) error {
	c.redis.Stop()
	time.Sleep(2 * c.role.Redis.TTL)
	c.ask(scene, c.current)
	c.redis.Start()
	time.Sleep(c.forgotten())
	c.settle()
	return nil
}

// ask asks those who have no Redis whether they know.
func (c *cluster) ask(scene string, lost []*process) {
	content := 0
	for _, p := range lost {
		if slices.ContainsFunc(p.reports(), func(r budget.Report) bool { return r.Degraded == "" }) {
			content++
		}
	}
	c.note(scene, work.Told("instances without Redis that do not say so", "", work.Number(content)).AtMost(0))
}

// empty has Redis lose all that it knew.
func (c *cluster) empty() error {
	client := direct(c.redis.Addr())
	defer client.Close()
	if err := client.FlushAll(context.Background()).Err(); err != nil {
		return err
	}
	c.redis.Kill()
	c.redis.Start()
	time.Sleep(c.forgotten())
	c.settle()
	return nil
}

// partition has the packets between some instances and Redis vanish for longer than a lease.
func (c *cluster) partition(scene string, from, to int) error {
	lost := c.current[from:to]
	var cut []string
	for _, p := range lost {
		cut = append(cut, p.source.String())
	}
	elements := "element ip fleet cut { " + strings.Join(cut, ", ") + " }"
	if err := c.rules("add " + elements); err != nil {
		return err
	}
	time.Sleep(c.forgotten())
	c.ask(scene, lost)
	if err := c.rules("delete " + elements); err != nil {
		return err
	}
	c.settle()
	c.settle()
	return nil
}

// promote kills the Redis that is asked, and has its replica take its place.
func (c *cluster) promote() error {
	client := direct(c.replica.Addr())
	defer client.Close()
	c.redis.Kill()
	if err := client.ReplicaOf(context.Background(), "NO", "ONE").Err(); err != nil {
		return err
	}
	c.way.to(c.replica.Addr())
	time.Sleep(c.forgotten())
	c.settle()
	return nil
}
