package dialers

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/natwise/natwise/dialer"
)

// A dial is what all these clients call in the end.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// overTLS is d's DialContext with TLS on top, for clients that leave TLS to whoever
// dials. A config without ServerName gets the host of each address.
func overTLS(d *dialer.Dialer, config *tls.Config) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		own := config.Clone()
		if own.ServerName == "" {
			own.ServerName = host
		}
		raw, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := tls.Client(raw, own)
		if err := c.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return c, nil
	}
}
