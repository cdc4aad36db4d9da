package dialers

import (
	"cmp"
	"runtime"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// Redis makes a client that is made from opts dial by d, and returns opts.
//
// A Dialer makes go-redis forget TLSConfig, so that TLS is done here. Its pool gets no
// more connections than the path has ports; without that it has 10 a CPU, 10 more for
// pipelines and one for each subscription, which still is one beyond the pool.
//
// go-redis dials five times, for 5 s each, before it gives up: a dial that waits for a
// port would lose its place in the queue each time. Here it dials once and waits longer.
func Redis(opts *redis.Options, d *dialer.Dialer) *redis.Options {
	opts.Dialer = d.DialContext
	if opts.TLSConfig != nil {
		opts.Dialer = overTLS(d, opts.TLSConfig)
	}
	opts.DialerRetries = 1
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 30*time.Second)
	if limit := d.MaxConns(); limit != netpath.None {
		opts.PoolSize = min(limit, cmp.Or(opts.PoolSize, 10*runtime.GOMAXPROCS(0)))
		opts.PipelinePoolSize = -1 // pipelines go by the one pool
	}
	return opts
}
