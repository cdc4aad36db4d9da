package dialers

import (
	"crypto/tls"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/natwise/natwise/dialer"
)

// Kafka returns the options that make a franz-go client dial by d, with TLS if config is
// not nil: kgo.DialTLSConfig and a dialer of one's own exclude each other.
//
// A client has up to five connections to each broker, one for each kind of request, and
// by itself closes those that were idle for 30 s. Each costs its port for minutes after
// that, and is dialed again soon. Here they stay for almost as long as brokers keep them,
// which is 10 min, unless the path would forget them.
func Kafka(d *dialer.Dialer, config *tls.Config) []kgo.Opt {
	dial := d.DialContext
	if config != nil {
		dial = overTLS(d, config)
	}
	idle := 9 * time.Minute
	if limit := d.MaxIdle(); limit > 0 {
		idle = min(idle, limit/2) // an idle connection may get twice as old
	}
	return []kgo.Opt{kgo.Dialer(dial), kgo.ConnIdleTimeout(idle)}
}
