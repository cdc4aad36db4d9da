// Package redispool is the door to go-redis' connection pool, which is internal
// there. Go lets those import an internal package whose path begins as its
// parent's does: so does the path of this module, which only the benchmarks of
// natwise use, by a replace line.
package redispool

import "github.com/redis/go-redis/v9/internal/pool"

type (
	Pool    = pool.ConnPool
	Options = pool.Options
	Conn    = pool.Conn
)

// New opens a pool.
func New(o *Options) *Pool { return pool.NewConnPool(o) }

// Adopt marks a connection that the pool has just dialed as one in use, which a
// client of go-redis does after its greeting. Until then Put does not take it.
func Adopt(c *Conn) { c.GetStateMachine().Transition(pool.StateInUse) }
