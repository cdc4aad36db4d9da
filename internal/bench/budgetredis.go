package main

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/natwise/natwise/dialer/budget/redisbudget"
	"github.com/natwise/natwise/internal/servers"
)

// leaseLasts is as short as leases are to be: a new Redis grants none for as long.
const leaseLasts = 3 * time.Second

// withFloor calls f with a redisbudget of which one port is held: it asks nobody.
func withFloor(f func(b grantSource, held int) error) error {
	c := redis.NewClient(&redis.Options{Addr: "192.0.2.1:6379"}) // RFC 5737: there is none
	b, err := openRedisBudget(c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	b.Take(grantKey)
	err = f(grantSource{b, inMemory}, 1)
	if r := b.Reports(grantKey)[0]; r.Renewals+r.Failures > 0 {
		err = errors.Join(err, errors.New("it asked Redis for what is within the floor"))
	}
	return errors.Join(err, closeRedis(c, b))
}

// withLease calls f with a redisbudget of which more ports are held than its floor has, by a
// lease from a Redis.
func withLease(f func(b grantSource, held int) error) error {
	return servers.Run(func(t servers.T) error {
		c := redis.NewClient(&redis.Options{Addr: servers.Redis(t).Addr(), ContextTimeoutEnabled: true})
		b, err := openRedisBudget(c)
		if err != nil {
			return errors.Join(err, c.Close())
		}
		held := b.Reports(grantKey)[0].Floor + 1
		err = hold(b, held)
		if err == nil {
			err = f(grantSource{b, inMemory}, held)
		}
		return errors.Join(err, closeRedis(c, b))
	})
}

func openRedisBudget(c redis.Scripter) (*redisbudget.Budget, error) {
	return redisbudget.New(redisbudget.Config{
		Client: c, Ports: plenty, Instances: 4,
		TTL: leaseLasts, Hold: time.Millisecond, Drain: -1,
	})
}

// hold takes n ports, which may have to be leased first.
func hold(b *redisbudget.Budget, n int) error {
	told := make(chan struct{}, 1)
	b.Notify(told)
	late := time.After(stuck)
	for n > 0 {
		if _, ok := b.Take(grantKey); ok {
			n--
			continue
		}
		select {
		case <-told:
		case <-late:
			return errors.New("no lease: " + b.Reports(grantKey)[0].String())
		}
	}
	return nil
}

func closeRedis(c *redis.Client, b *redisbudget.Budget) error {
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	return errors.Join(b.Close(ctx), c.Close())
}
