package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/redisbudget"
)

// budget opens what the process shares with others, and returns how to close that. Nil: it
// shares nothing.
func (r Role) budget() (budget.Budget, func(context.Context) error, error) {
	switch {
	case r.Host != "":
		b, err := budget.Host(r.Host, r.ports())
		if err != nil {
			return nil, nil, err
		}
		return b, func(context.Context) error { return b.Close() }, nil
	case r.Redis != nil:
		return r.lease()
	}
	return nil, func(context.Context) error { return nil }, nil
}

func (r Role) lease() (budget.Budget, func(context.Context) error, error) {
	// Redis is reached from the instance's own address, so that it can be cut off alone.
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: r.Source.AsSlice()}}
	client := newRedis(r.Redis.Server, d, soon)
	b, err := redisbudget.New(redisbudget.Config{
		Client: client, Ports: r.ports(), Instances: r.Redis.Instances, TTL: r.Redis.TTL, Drain: r.Redis.Drain,
	})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return b, func(ctx context.Context) error { return errors.Join(b.Close(ctx), client.Close()) }, nil
}

// soon is when Redis has to have answered where leases are shorter than usual.
const soon = 500 * time.Millisecond

func newRedis(server string, d *net.Dialer, patience time.Duration) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: server, DialTimeout: patience, ReadTimeout: patience, ContextTimeoutEnabled: true, PoolSize: 2,
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.DialContext(ctx, network, address)
		},
	})
}
