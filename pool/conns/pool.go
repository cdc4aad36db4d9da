package conns

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/pool"
)

// A Config says how connections are kept. The zero Config is useful: plain TCP,
// as many connections as the ledger has ports, kept until somebody needs their
// ports.
type Config struct {
	// TLS, if not nil, is spoken on each connection. An empty ServerName means
	// the host that was asked for.
	TLS *tls.Config

	// Hello makes a fresh connection ready, after TLS: a password, a version. It
	// returns the connection to be used, which is c or has it below (a method
	// NetConn, as *tls.Conn has), and whose Read can go on after a deadline, as
	// tls.Conn's can. Its context ends after OpenTimeout.
	Hello func(ctx context.Context, c net.Conn) (net.Conn, error)

	// Beat asks an idle connection whether its far end is alive, every BeatEvery and
	// when it is doubted because of another one: a PING and its answer. It must leave
	// nothing unread, and heed its context, which has a deadline. A FIN or a RST ends
	// an idle connection without it: at once where keepalive.Watcher can watch, else
	// within 10 s.
	Beat      func(ctx context.Context, c net.Conn) error
	BeatEvery time.Duration

	// Max, MinIdle, MaxIdle and MaxLife are those of pool.Config, for each
	// address. Max zero: as many as the ledger has ports for. MaxIdle is never more
	// than dialer.Dialer.MaxIdle, unless Beat keeps the path.
	//
	// Where the dialer has a Learner, and there is a Beat, a connection that ends by
	// MaxIdle or MaxLife may teach it (dialer.Conn.Teach): it stays open in silence
	// for some minutes, one at a time for each address, unless its port is needed.
	Max     int
	MinIdle int
	MaxIdle time.Duration
	MaxLife time.Duration

	// OpenTimeout, ProbeTimeout, Patience and LeakAfter are those of pool.Config.
	OpenTimeout  time.Duration
	ProbeTimeout time.Duration
	Patience     time.Duration
	LeakAfter    time.Duration

	// Observe is told of what happens with connections to address, under no lock.
	// It must not block.
	Observe func(address string, e pool.Event)
}

// Validate returns what is wrong with c, by field and value: New panics with it.
func (c Config) Validate() error {
	return (&Pool{dialer: &dialer.Dialer{Ledger: new(dialer.Ledger)}, cfg: c}).config(key{}).Validate()
}

// lookEvery is how often idle connections are looked at where nobody watches them
// and nobody beats them.
const lookEvery = 10 * time.Second

// defaultProbeTimeout is that of pool.Config.
const defaultProbeTimeout = 5 * time.Second

// A Pool keeps connections to any number of addresses, each with a pool.Pool of
// its own. New makes one. It may be used by many goroutines. Whoever made it
// closes it.
type Pool struct {
	dialer  *dialer.Dialer
	cfg     Config
	group   pool.Group[key, *conn]
	watcher keepalive.Watcher

	joined sync.Once // those of whom the ledger tells
	closed atomic.Bool

	lessons sync.WaitGroup  // that connections teach before they are closed
	life    context.Context // of them
	close   context.CancelFunc
}

type key struct{ network, address string }

// An owner is whom ports belong to, for fairness: a dialer's pooled connections to
// one address.
type owner struct {
	dialer  *dialer.Dialer
	address string
}

// New returns a pool of connections that d dials; nil is the zero Dialer. It
// dials nothing before the first Get, and panics if cfg.Validate finds something
// wrong.
func New(d *dialer.Dialer, cfg Config) *Pool {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	if d == nil {
		d = new(dialer.Dialer)
	}
	p := &Pool{dialer: d, cfg: cfg}
	p.life, p.close = context.WithCancel(context.Background())
	p.group.New = p.config
	return p
}

// Get returns a connection to address that is in order as far as anybody can
// tell: an idle one, or whatever comes first after those who have waited longer.
// The network is "tcp", "tcp4" or "tcp6". The error names the address; it is
// that of pool.Pool.Get, or why the connection could not be dialed, such as a
// *dialer.DialError. Where it was a port that was waited for, it says who has them,
// and matches dialer.ErrBudget. Nothing of the caller's was sent: it is safe to
// retry.
func (p *Pool) Get(ctx context.Context, network, address string) (*Conn, error) {
	for dead := false; ; {
		l, err := p.group.Get(ctx, key{network, address})
		if err != nil {
			if _, named := err.(*dialer.DialError); !named {
				err = &getError{network, address, err}
			}
			return nil, err
		}
		c := l.Value()
		_, fresh := c.flow.Parked() // nobody has checked it
		if err := c.unpark(); err != nil {
			l.Discard(err) // taken from us at once
			continue
		}
		if fresh && !dead {
			// Its server may have gone meanwhile. One that hangs up on everybody is
			// for the caller to see: it may say why.
			if _, err := c.flow.Peek(); err != nil {
				dead = true
				l.Discard(err)
				continue
			}
		}
		return c.lent(ctx, l), nil
	}
}

// A getError says to where there is no connection.
type getError struct {
	network, address string
	err              error
}

func (e *getError) Error() string {
	return "conns: " + e.network + " " + e.address + ": " + e.err.Error()
}
func (e *getError) Unwrap() error { return e.err }

// SafeToRetry is true: at most Config.Hello has said something.
func (e *getError) SafeToRetry() bool { return true }

// Stats yields the figures of each address that has connections or waiters. They
// begin anew when an address had none for a moment.
func (p *Pool) Stats() iter.Seq2[string, pool.Stats] {
	return func(yield func(string, pool.Stats) bool) {
		for k, q := range p.group.Pools() {
			if !yield(k.address, q.Stats()) {
				return
			}
		}
	}
}

// Reset closes all connections to address: the idle ones now, the others when
// they are put back. It is for a server that is known to have gone. Those who
// wait get an error that matches pool.ErrReset and cause.
func (p *Pool) Reset(network, address string, cause error) {
	for k, q := range p.group.Pools() {
		if k == (key{network, address}) {
			q.Reset(cause)
		}
	}
}

// Reclaim closes the connection that was idle for longest, to whatever address.
// It reports false if there is none.
func (p *Pool) Reclaim() bool { return p.group.Reclaim() }

// Close closes the pool: idle connections now, the others when their users are
// done. It waits for those as long as ctx lasts.
func (p *Pool) Close(ctx context.Context) error {
	p.close()
	if err := p.group.Close(ctx); err != nil {
		return err
	}
	p.closed.Store(true)
	p.lessons.Wait() // they have heard
	return nil
}

// config is that of the pool for one address.
func (p *Pool) config(k key) pool.Config[*conn] {
	cfg := pool.Config[*conn]{
		Ask: func(ctx context.Context) (pool.Permit[*conn], error) {
			r, err := p.reserve(ctx, k)
			if err != nil {
				return nil, err
			}
			return r, nil
		},
		Obstacle:     func() error { return p.dialer.Obstacle(p.owner(k)) },
		Close:        func(c *conn, cause error) { p.end(k, c, cause) },
		Watch:        func(c *conn, ended func(error)) { p.watcher.Watch(c.flow.Conn, func() { ended(c.ended()) }) },
		Check:        func(_ context.Context, c *conn) error { return reason(c.check()) },
		Beat:         func(ctx context.Context, c *conn) error { return reason(p.beat(ctx, c)) },
		BeatEvery:    p.cfg.BeatEvery,
		Max:          p.cfg.Max,
		MinIdle:      p.cfg.MinIdle,
		MaxIdle:      p.cfg.MaxIdle,
		MaxLife:      p.cfg.MaxLife,
		OpenTimeout:  p.cfg.OpenTimeout,
		ProbeTimeout: -1, // Check takes no time, and beat sees to it: a timer would be most of a Get's cost
		Patience:     p.cfg.Patience,
		LeakAfter:    p.cfg.LeakAfter,
	}
	if p.cfg.Beat != nil {
		cfg.MaxIdle = p.dialer.MaxIdleBeaten(cfg.MaxIdle, p.cfg.BeatEvery)
	} else {
		cfg.MaxIdle = p.dialer.MaxIdleBeaten(cfg.MaxIdle, 0)
		if watched := runtime.GOOS == "linux" && p.dialer.Dial == nil; watched || p.cfg.BeatEvery != 0 {
			cfg.Beat = nil
		} else {
			cfg.BeatEvery = lookEvery
		}
	}
	cfg.Observe = p.observer(k)
	return cfg
}

// end closes a connection. One that is in order, but old or idle for too long, may
// teach the dialer's Learner before.
func (p *Pool) end(k key, c *conn, cause error) {
	reason := pool.Discarded
	errors.As(cause, &reason)
	c.flow.Because(reason.String())
	old := errors.Is(cause, pool.Aged) || errors.Is(cause, pool.Idled) && !errors.Is(cause, keepalive.ErrStale)
	if !old || p.cfg.Beat == nil || p.dialer.Learner == nil || p.life.Err() != nil {
		c.close()
		return
	}
	p.lessons.Go(func() {
		beat := func(c *conn) func(context.Context) error {
			return func(ctx context.Context) error { return c.until(ctx, p.cfg.Beat) }
		}
		c.flow.Teach(p.life, beat(c), func(ctx context.Context) error {
			another, err := p.dial(ctx, k)
			if err != nil {
				return err
			}
			defer another.close()
			return beat(another)(ctx)
		})
		c.turn = c.flow.Turn()
		c.park()
		c.close()
	})
}

func (p *Pool) owner(k key) owner { return owner{p.dialer, k.address} }

// reserve waits for a port for one more connection.
func (p *Pool) reserve(ctx context.Context, k key) (*permit, error) {
	scope := p.dialer.Telemetry()
	p.joined.Do(func() { telemetry.Join(scope, p, (*Pool).tell) })
	setup := scope.Setup(ctx, "", k.address)
	r, err := p.dialer.Reserve(setup.With(dialer.WithOwner(ctx, p.owner(k))), k.network, k.address)
	if err != nil {
		if ctx.Err() == nil { // else nobody needs it any more
			setup.End(err)
		}
		return nil, err
	}
	return &permit{p, k, setup, r}, nil
}

func (p *Pool) dial(ctx context.Context, k key) (*conn, error) {
	r, err := p.reserve(ctx, k)
	if err != nil {
		return nil, err
	}
	return r.Open(ctx)
}

// reason tells what says nothing of other connections from what may.
func reason(err error) error {
	switch {
	case errors.Is(err, keepalive.ErrRetired):
		return fmt.Errorf("%w: %w", pool.Reclaimed, err)
	case errors.Is(err, keepalive.ErrStale):
		return fmt.Errorf("%w: %w", pool.Idled, err)
	}
	return err
}

// beat asks an idle connection whether its far end is alive.
func (p *Pool) beat(ctx context.Context, c *conn) error {
	if p.cfg.Beat != nil {
		if timeout := cmp.Or(p.cfg.ProbeTimeout, defaultProbeTimeout); timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		if err := c.unpark(); err != nil {
			return err
		}
		if err := c.until(ctx, p.cfg.Beat); err != nil {
			c.flow.Because(pool.Failed.String())
			return err
		}
	}
	if err := c.look(); err != nil {
		return err
	}
	return c.parkAgain()
}

// A permit is a port that is reserved for one connection.
type permit struct {
	pool  *Pool
	key   key
	setup *telemetry.Setup
	*dialer.Reservation
}

// Open dials, and says what is to be said before the connection can be used.
func (p *permit) Open(ctx context.Context) (c *conn, err error) {
	defer func() { p.setup.End(err) }()
	dialed, err := p.Dial(ctx)
	if err != nil {
		return nil, err
	}
	c, err = p.pool.prepare(ctx, p.key, dialed, p.setup)
	if err != nil {
		dialed.Close()
		return nil, err
	}
	return c, nil
}

func (p *Pool) prepare(ctx context.Context, k key, dialed net.Conn, setup *telemetry.Setup) (*conn, error) {
	flow, ok := dialer.Unwrap(dialed)
	if !ok {
		return nil, fmt.Errorf("conns: a %T is not accounted for", dialed) // a unix socket, if anything
	}
	c := &conn{Conn: dialed, flow: flow}
	if p.cfg.TLS != nil {
		began := time.Now()
		client, err := handshake(ctx, k.address, dialed, p.cfg.TLS)
		setup.Phase("TLS client handshake", "", began, err)
		if err != nil {
			return nil, err
		}
		c.Conn = client
	}
	if p.cfg.Hello != nil {
		err := c.until(ctx, func(ctx context.Context, was net.Conn) (err error) {
			c.Conn, err = p.cfg.Hello(ctx, was)
			return err
		})
		if err != nil {
			return nil, err
		}
		if below, ok := dialer.Unwrap(c.Conn); !ok || below != flow {
			return nil, fmt.Errorf("conns: Config.Hello returned a %T that has not its connection below it", c.Conn)
		}
	}
	return c, c.park()
}

func handshake(ctx context.Context, address string, dialed net.Conn, cfg *tls.Config) (net.Conn, error) {
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	client := tls.Client(dialed, cfg)
	return client, client.HandshakeContext(ctx)
}

// until calls f with the connection, and ends what f does there with ctx, whether
// or not f looks at that.
func (c *conn) until(ctx context.Context, f func(context.Context, net.Conn) error) error {
	stop := context.AfterFunc(ctx, func() { c.flow.SetDeadline(past) })
	err := f(ctx, c.Conn)
	stop()
	if err == nil {
		err = context.Cause(ctx) // what stop came too late for may be under way
	}
	if err == nil {
		err = c.flow.SetDeadline(time.Time{})
	}
	return err
}
