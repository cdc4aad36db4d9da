package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
)

const (
	redisPorts   = 1000
	redisService = 400 * time.Millisecond
	redisCloses  = 20
	redisPort    = 6379 // as the instances see it, at the client's first address
)

// formula is the peer of the calls that Redis gets: what package redisbudget documents.
const formula = "3/TTL x instances"

// A cluster is a stage whose processes are instances of a fleet that share by a Redis.
type cluster struct {
	*stage
	note    func(scene string, m work.Measurement)
	role    Role
	paused  *process        // who is not expected to be served in this scene
	redis   *servers.Server // keeps on disk what it knows
	replica *servers.Server
	way     *forwarder // to the one that is asked
}

// leases lets instances come and go, and Redis.
func leases(r *work.Report) error {
	instances, ttl := 10, time.Second
	if r.Full {
		instances, ttl = 20, 2*time.Second
	}
	return servers.Run(func(t servers.T) (err error) {
		st, err := open(path(redisPorts, work.Path().Idle), 2*redisPorts, instances)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close()) }()
		c := &cluster{stage: st, note: func(scene string, m work.Measurement) { r.Note(m.At(scene, "")) }}
		if err := c.serve(t); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.way.close()) }()
		c.role = Role{
			Path: st.path, Workers: 2 * redisPorts / instances, Service: redisService, Closes: redisCloses,
			Redis: &Lease{Server: c.way.Addr().String(), Instances: instances, TTL: ttl, Drain: ttl},
		}
		return errors.Join(c.play(instances, r.Full), st.leave())
	})
}

// serve starts Redis, and what leads there. Instances are cut off from it by the rules.
func (c *cluster) serve(t servers.T) error {
	c.redis = servers.Redis(t, "appendonly yes")
	c.replica = servers.Redis(t, "replicaof "+strings.Replace(c.redis.Addr(), ":", " ", 1))
	ln, err := c.ListenClient(netip.AddrPortFrom(c.Client(0), redisPort).String())
	if err != nil {
		return err
	}
	if err := c.rules(cutRules); err != nil {
		return errors.Join(err, ln.Close())
	}
	c.way = forward(ln, c.redis.Addr())
	return nil
}

const cutRules = "add table ip fleet; " +
	"add set ip fleet cut { type ipv4_addr ; }; " +
	"add chain ip fleet arriving { type filter hook input priority 0 ; }; " +
	"add rule ip fleet arriving ip saddr @cut tcp dport 6379 drop; " +
	"add rule ip fleet arriving ip daddr @cut tcp sport 6379 drop"

// rules changes the rules of the client's namespace.
func (c *cluster) rules(text string) error {
	_, err := c.Exec(context.Background(), "client", "nft", text)
	return err
}

// play has the scenes follow each other. The numbers of who is struck are those of instances
// with an address of their own.
func (c *cluster) play(instances int, full bool) error {
	for _, s := range []struct {
		name string
		long bool // only with -full
		play func(scene string) error
	}{
		{"join", false, func(string) error { return c.join(instances) }},
		{"steady", false, c.steady},
		{"leave", true, func(string) error { return c.exchange(9) }},
		{"kill -9 of five", false, func(string) error { return c.strike(5, 10) }},
		{"SIGSTOP", false, func(scene string) error { return c.freeze(scene, 4) }},
		{"Redis stopped", true, c.outage},
		{"Redis empty", false, func(string) error { return c.empty() }},
		{"partition", true, func(scene string) error { return c.partition(scene, 6, 9) }},
		{"replica promoted", true, func(string) error { return c.promote() }},
	} {
		if s.long && !full {
			continue
		}
		if err := c.scene(s.name, s.play); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// scene plays one scene, and notes what the gateway and the instances say of it.
func (c *cluster) scene(name string, play func(scene string) error) error {
	before, err := c.Counts()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := play(name); err != nil {
		return err
	}
	end := time.Now()
	after, err := c.Counts()
	if err != nil {
		return err
	}
	c.note(name, work.Told("ports taken at a time", "", work.Number(peak(c.watch.between(begin, end)))).AtMost(redisPorts))
	c.note(name, work.Told("SYNs refused", "", work.Number(after.Refused-before.Refused)).AtMost(0))
	var thirst time.Duration
	for _, p := range c.current {
		if p != c.paused {
			thirst = max(thirst, p.thirst(later(begin, p.began()), end))
		}
	}
	c.paused = nil
	c.note(name, work.Told("an instance was served nothing, for", "s", work.Seconds(thirst)).AtMost(starved.Seconds()))
	t, err := c.served(begin)
	if err != nil {
		return err
	}
	c.note(name, work.Told("requests served", "a second", work.Ratio(float64(t.served), end.Sub(begin).Seconds())).Said(t.causes.Err(), nil))
	last := c.watch.between(end.Add(-time.Second), end)
	var living []float64
	for _, s := range last {
		living = append(living, float64(s.living()))
	}
	c.note(name, work.Told("ports of the living in the end", "", work.Ratio(work.Median(living), 1)))
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// forgotten is how long what nobody renews is kept from others: also how long a Redis without
// memory gives nobody more than it has.
func (c *cluster) forgotten() time.Duration {
	h := c.path.Hold
	return c.role.Redis.TTL + max(h.FIN, h.RST, h.SYN) + c.role.Redis.Drain
}

// settle gives everybody the time to get what is due to them.
func (c *cluster) settle() { time.Sleep(2 * c.role.Redis.TTL) }
