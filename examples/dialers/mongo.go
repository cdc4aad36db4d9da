package dialers

import (
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	mongoPool     = 100 // the driver's own MaxPoolSize
	mongoMonitors = 2   // connections to each server that are not the pool's
)

// Mongo makes a client that is made from opts dial by d, and returns opts. The driver does
// TLS by itself.
//
// Its pool has up to 100 connections to each server, and its monitor two more. Here they
// are no more together than the path has ports to one address.
func Mongo(opts *options.ClientOptions, d *dialer.Dialer) *options.ClientOptions {
	opts.SetDialer(d)
	if limit := d.MaxConns(); limit != netpath.None {
		size := uint64(mongoPool)
		if opts.MaxPoolSize != nil && *opts.MaxPoolSize > 0 { // zero: as many as it likes
			size = *opts.MaxPoolSize
		}
		opts.SetMaxPoolSize(min(size, uint64(max(1, limit-mongoMonitors))))
	}
	return opts
}
