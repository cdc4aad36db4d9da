package httpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// An opening is a connection to be, whose port is reserved.
type opening struct {
	*dialer.Reservation
	way   *way
	first *first // nil: it is not
	setup *telemetry.Setup
	flow  *dialer.Conn
	shown net.Conn
}

var _ pool.Permit[*conn] = (*opening)(nil)

type openingKey struct{}

func openingOf(ctx context.Context) *opening { return ctx.Value(openingKey{}).(*opening) }

// dial is what the engine dials by. An address that it names is where o leads.
func (o *opening) dial(ctx context.Context) (net.Conn, error) {
	c, err := o.Reservation.Dial(ctx)
	if err != nil {
		return nil, err
	}
	o.flow = c.(*dialer.Conn)
	o.shown = o.flow
	return o.flow, nil
}

// dialTLS leaves the handshake with the machine at address to the engine.
func (o *opening) dialTLS(ctx context.Context, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c, err := o.dial(ctx)
	if err != nil {
		return nil, err
	}
	o.flow.SetDeadline(time.Now().Add(o.way.stock.handshake))
	o.shown = tls.Client(c, o.tlsConfig(host))
	return o.shown, nil
}

// tlsConfig is for the machine that is dialed.
func (o *opening) tlsConfig(host string) *tls.Config {
	cfg := o.way.stock.tls.Clone()
	if cfg == nil {
		cfg = new(tls.Config)
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	switch {
	case o.way.proxy != "" || o.way.only1:
		cfg.NextProtos = nil
	case len(cfg.NextProtos) > 0:
	default:
		if o.way.stock.protocols.HTTP2() {
			cfg.NextProtos = append(cfg.NextProtos, "h2")
		}
		if o.way.stock.protocols.HTTP1() {
			cfg.NextProtos = append(cfg.NextProtos, "http/1.1")
		}
	}
	return cfg
}

// Release gives the port back.
func (o *opening) Release() {
	o.Reservation.Release()
	o.way.learned(o.first)
}

// Open connects, by TLS and through the proxy if need be.
func (o *opening) Open(ctx context.Context) (*conn, error) {
	defer o.Reservation.Release() // does nothing after dial
	engine := o.way.stock.engine
	if o.way.only1 {
		engine = o.way.stock.engine1
	}
	cc, err := engine.NewClientConn(o.traced(context.WithValue(ctx, openingKey{}, o)), o.way.scheme, cmp.Or(o.way.host, anyHost))
	o.setup.End(err)
	if err != nil {
		o.way.learned(o.first)
		if o.flow != nil {
			o.flow.Close()
		}
		return nil, o.reason(err)
	}
	if o.secured() && o.flow.SetDeadline(time.Time{}) != nil {
		o.way.learned(o.first)
		cc.Close()
		return nil, net.ErrClosed
	}
	o.way.stock.wake()
	return newConn(cc, o), nil
}

// traced returns ctx with hooks that note how long TLS takes, with the proxy or through it.
func (o *opening) traced(ctx context.Context) context.Context {
	var began time.Time
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart: func() { began = time.Now() },
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			o.setup.Phase("TLS client handshake", s.ServerName, began, err)
		},
	})
}

// secured reports whether there is TLS above the flow, other than through a proxy.
func (o *opening) secured() bool { return o.flow != nil && o.shown != net.Conn(o.flow) }

// anyHost is what a proxy's connection is opened for that takes requests for any host.
const anyHost = "proxied.invalid:80"

// reason says why there is no connection.
func (o *opening) reason(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/" {
		return http.ErrSchemeMismatch
	}
	if keepalive.FaultOf(err) == keepalive.Deadline && o.secured() {
		return &handshakeError{o.way.stock.handshake, err}
	}
	return err
}

// A handshakeError says that TLS took too long.
type handshakeError struct {
	timeout time.Duration
	err     error
}

func (e *handshakeError) Error() string {
	return "net/http: TLS handshake timeout, after " + e.timeout.String()
}
func (e *handshakeError) Unwrap() error   { return e.err }
func (e *handshakeError) Timeout() bool   { return true }
func (e *handshakeError) Temporary() bool { return true }
