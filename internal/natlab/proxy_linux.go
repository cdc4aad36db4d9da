package natlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Proxy is a middlebox that nobody has asked for. It stands before the NAT,
// answers the client in the name of one destination, and has connections of its
// own to the server; those are what the gateway books. As long as it is honest
// it hands on whatever comes: bytes, FINs, RSTs, but no refusal, since it has
// accepted the client's connection before it knows.
//
// It may be used by many goroutines. Whoever makes it ends it with Close.
type Proxy struct {
	// Patience is how long after it has swallowed the first byte of a connection
	// the Proxy sends the client a FIN. It is 19 s; to change it, do so before Lie.
	Patience time.Duration

	from    namespace
	dst     netip.AddrPort
	ln      net.Listener
	closing context.Context // ended by Close: no dial and no relay outlives it
	close   func() error
	running sync.WaitGroup // of the goroutines

	mu     sync.Mutex // guards the fields below
	lies   bool
	relays map[*relay]struct{}
}

// Proxy puts a middlebox between the client and a destination. Connections that
// are open already do not go through it. There is none in a lab with Reuse, whose
// conntrack would forget the client's side of it too.
func (l *Lab) Proxy(dst netip.AddrPort) (*Proxy, error) {
	if l.reuse {
		return nil, fmt.Errorf("natlab: a proxy for %v where port numbers are used again: %w", dst, errors.ErrUnsupported)
	}
	ln, err := listen(l.gateway, "10.78.1.1:0")
	if err != nil {
		return nil, err
	}
	redirection := fmt.Sprintf("element ip lab proxied { %s : %d }", element(dst), ln.Addr().(*net.TCPAddr).Port)
	if err := l.change("add " + redirection); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	p := &Proxy{Patience: 19 * time.Second, from: l.gateway, dst: dst, ln: ln, relays: make(map[*relay]struct{})}
	var end context.CancelFunc
	p.closing, end = context.WithCancel(context.Background())
	p.close = sync.OnceValue(func() error {
		err := errors.Join(l.change("delete "+redirection), ln.Close())
		end()
		p.running.Wait()
		return err
	})
	p.running.Go(p.accept)
	return p, nil
}

// Lie makes a liar of the Proxy. It goes on reading in both directions, so that
// its kernel acknowledges everything and answers every probe, but hands on
// nothing, neither bytes nor FINs nor RSTs; and Patience after the first byte
// that it swallowed, it ends the client's connection by a FIN. What it has
// accepted while it lied is lied to for good: Lie(false) is for new connections.
func (p *Proxy) Lie(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lies = on
	if !on {
		return
	}
	for r := range p.relays {
		r.lie(p.Patience)
	}
}

// Close takes the Proxy away, before the lab is closed, and cuts off what goes
// through it. It waits until that is done. A second Close does nothing.
func (p *Proxy) Close() error { return p.close() }

// accept ends with the listener.
func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

// serve ends with the connection.
func (p *Proxy) serve(client *net.TCPConn) {
	defer client.Close()
	r := &relay{client: client}
	p.add(r)
	defer p.remove(r)
	server, err := dial(p.closing, p.from, nil, "tcp4", p.dst.String())
	if err != nil {
		client.SetLinger(0)
		return
	}
	p.connect(r, server.(*net.TCPConn))
	defer r.end()
	defer context.AfterFunc(p.closing, r.end)()

	var answers sync.WaitGroup
	answers.Go(func() { r.pass(r.server, r.client) })
	r.pass(r.client, r.server)
	answers.Wait()
}

func (p *Proxy) add(r *relay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.relays[r] = struct{}{}
	if p.lies {
		r.lie(p.Patience)
	}
}

func (p *Proxy) connect(r *relay, server *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.server = server
	if r.lies.Load() {
		server.SetWriteDeadline(longAgo)
	}
}

func (p *Proxy) remove(r *relay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.relays, r)
}

// A relay is a connection of the client's and the one to the server that stands
// for it.
type relay struct {
	client   *net.TCPConn
	server   *net.TCPConn  // nil until there is one; written under the Proxy's lock
	lies     atomic.Bool   // set once, after patience
	patience time.Duration // read when it lies
	first    sync.Once     // done with the first byte that is swallowed
}

var longAgo = time.Unix(1, 0)

// lie lets every write fail from now on, also one that waits for room. Its
// caller holds the Proxy's lock.
func (r *relay) lie(patience time.Duration) {
	if r.lies.Load() {
		return
	}
	r.patience = patience
	r.lies.Store(true)
	r.client.SetWriteDeadline(longAgo)
	if r.server != nil {
		r.server.SetWriteDeadline(longAgo)
	}
}

// pass hands on what comes from one end to the other, its ending included.
func (r *relay) pass(from, to *net.TCPConn) {
	_, err := io.Copy(to, from)
	switch {
	case r.lies.Load():
		r.swallow(from)
	case err == nil:
		to.CloseWrite()
	default:
		from.SetLinger(0)
		to.SetLinger(0)
		r.end()
	}
}

// swallow reads on when something could not be handed on.
func (r *relay) swallow(from *net.TCPConn) {
	r.first.Do(func() {
		time.AfterFunc(r.patience, func() { r.client.CloseWrite() }) // which does nothing when all is over
	})
	io.Copy(io.Discard, from)
}

func (r *relay) end() {
	r.client.Close()
	r.server.Close()
}
