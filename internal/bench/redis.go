package main

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9/redispool"
)

// openRedis makes a contender of go-redis' pool, and fills it: a client of it
// would greet the server on a new connection, for which there is a state.
func openRedis(values int) (contender, error) {
	p := redispool.New(&redispool.Options{
		Dialer:             func(context.Context) (net.Conn, error) { return &redisConn{value: new(conn)}, nil },
		PoolSize:           int32(values),
		MaxConcurrentDials: values,
		PoolTimeout:        time.Minute,
		ReadBufferSize:     16, // nobody reads or writes
		WriteBufferSize:    16,
	})
	ctx := context.Background()
	var dialed []*redispool.Conn
	for range values {
		c, err := p.Get(ctx)
		if err != nil {
			return nil, err
		}
		redispool.Adopt(c)
		dialed = append(dialed, c)
	}
	for _, c := range dialed {
		p.Put(ctx, c)
	}
	return redisContender{p}, nil
}

// A redisConn has no socket, so go-redis has none to peek at before each use.
type redisConn struct {
	net.Conn // nil: nobody reads or writes
	value    *conn
}

func (*redisConn) Close() error                { return nil }
func (*redisConn) SetDeadline(time.Time) error { return nil } // before each use

type redisContender struct{ pool *redispool.Pool }

func (p redisContender) cycle(ctx context.Context, n int, hold func()) error {
	for range n {
		c, err := p.pool.Get(ctx)
		if err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
		p.pool.Put(ctx, c)
	}
	return nil
}

func (p redisContender) use(ctx context.Context, work func(*conn)) error {
	c, err := p.pool.Get(ctx)
	if err != nil {
		return err
	}
	work(c.GetNetConn().(*redisConn).value)
	p.pool.Put(ctx, c)
	return nil
}

func (p redisContender) close(context.Context) error { return p.pool.Close() }
