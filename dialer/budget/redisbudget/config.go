package redisbudget

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Config says who shares what. All instances behind one gateway are given the same, but
// for the Client. New copies it.
type Config struct {
	// Client reaches Redis, 5.0 or later, or Valkey: a *redis.Client, also one that follows
	// Sentinels, or a *redis.ClusterClient. A *redis.Ring is refused: its clients go to
	// another server as soon as one of them cannot reach the first. AUTH and TLS are the
	// client's matter, and so is its end: Close leaves it open. Give it ContextTimeoutEnabled, or its ReadTimeout
	// bounds a call instead of the TTL.
	Client redis.Scripter

	// NAT names the gateway: budgets with the same name on the same Redis share. Zero: "nat".
	NAT string

	// Ports is how many flows the gateway carries to one destination, of all instances
	// together.
	Ports int

	// Instances is how many there may be at once. Every one of them has a floor: ports that
	// it may use without asking anybody. Floors are counted twice for each instance, since
	// what a predecessor had open stays in the NAT for a while.
	Instances int

	// Surplus is the part of Ports that is no floor, but leased to whoever needs it. Zero:
	// 0.5. Negative: none; then nobody asks Redis at all.
	Surplus float64

	// Block is how many ports are leased at a time. Zero: 16.
	Block int

	// TTL is how long a lease lasts without renewal; it is renewed three times as often.
	// At least 100 ms; below 3 s a busy Redis loses leases for nothing. Zero: 10 s.
	TTL time.Duration

	// Hold is how long the NAT may keep the port of a flow whose instance has vanished: its
	// idle timeout, if that is longer than its holds. So long nobody is given the ports of
	// an instance that was lost. Zero: what the Ledger says by SetHold, or 240 s.
	Hold time.Duration

	// Drain is added to Hold: how long requests may go on at an instance that has lost
	// Redis, on ports of a lease that has run out. Zero: 30 s. Negative: not at all.
	Drain time.Duration

	// Fail says what an instance may do whose lease ran out because Redis does not answer.
	Fail Fail
}

// A Fail is what an instance may do that has lost Redis and its lease.
type Fail int

const (
	FailFloor  Fail = iota // use its floor: the gateway's ports still suffice for all
	FailOpen               // use all Ports, and trust that others do not
	FailClosed             // open nothing, not even within its floor
)

const (
	defaultSurplus = 0.5
	defaultBlock   = 16
	defaultTTL     = 10 * time.Second
	minTTL         = 100 * time.Millisecond
	defaultHold    = 240 * time.Second // after a FIN, behind Azure's load balancer (netpath.AzureLoadBalancer)
	defaultDrain   = 30 * time.Second
)

// withDefaults returns c with what its zeros and negatives mean, or says which field cannot
// be.
func (c Config) withDefaults() (Config, error) {
	if c.NAT == "" {
		c.NAT = "nat"
	}
	if c.Surplus == 0 {
		c.Surplus = defaultSurplus
	}
	c.Surplus = max(c.Surplus, 0)
	if c.Block == 0 {
		c.Block = defaultBlock
	}
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	c.Drain = max(c.Drain, 0)
	return c, c.check()
}

func (c Config) check() error {
	switch {
	case c.Client == nil:
		return errors.New("redisbudget: Client is nil")
	case isRing(c.Client):
		return errors.New("redisbudget: Client is a *redis.Ring, want one whose instances all go to the same server")
	case c.Ports < 1:
		return fmt.Errorf("redisbudget: Ports is %d, want 1 or more", c.Ports)
	case c.Instances < 1:
		return fmt.Errorf("redisbudget: Instances is %d, want 1 or more", c.Instances)
	case !(c.Surplus < 1): // NaN is not either
		return fmt.Errorf("redisbudget: Surplus is %v, want less than 1", c.Surplus)
	case c.Block < 1:
		return fmt.Errorf("redisbudget: Block is %d, want 1 or more", c.Block)
	case c.TTL < minTTL:
		return fmt.Errorf("redisbudget: TTL is %v, want %v or more", c.TTL, minTTL)
	case c.Hold < 0:
		return fmt.Errorf("redisbudget: Hold is %v, want 0 or more", c.Hold)
	case c.Fail < FailFloor || c.Fail > FailClosed:
		return fmt.Errorf("redisbudget: Fail is %d, want FailFloor, FailOpen or FailClosed", c.Fail)
	case c.floor(2*c.Instances) < 1:
		return fmt.Errorf("redisbudget: Ports is %d and Surplus %v: no floor of one port, twice, for each of %d Instances", c.Ports, c.Surplus, c.Instances)
	}
	return nil
}

func isRing(c redis.Scripter) bool {
	_, ring := c.(*redis.Ring)
	return ring
}

// floor is each one's part where n share what is not leased.
func (c Config) floor(n int) int {
	const rounding = 1e-9 // 0.1 of 1000 is 100, also where 1-0.9 is a little less than 0.1
	return int(math.Floor(float64(c.Ports)*(1-c.Surplus)+rounding)) / n
}

// pool is what can be leased, of n instances together: all that is no floor.
func (c Config) pool(n int) int {
	if c.Surplus == 0 {
		return 0
	}
	return c.Ports - n*c.floor(n)
}
