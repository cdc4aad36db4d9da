package dialer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Dialer opens TCP connections that fit their path. The zero Dialer is ready
// to use, shares DefaultLedger with every other zero Dialer, and may be used by
// many goroutines. Set its fields before the first dial, not after. It needs no
// Close; its connections do.
type Dialer struct {
	// Ledger books the flows. Nil: DefaultLedger.
	Ledger *Ledger

	// Beyond is what stands behind the NAT for this dialer's destinations, such
	// as a load balancer. It narrows the idle timeout and the counting rule,
	// never the accounts.
	Beyond []netpath.Profile

	// Plan overrides what is derived from the path, field by field.
	Plan keepalive.Plan

	// Dial opens one connection to one address, given as IP:port. Nil: the
	// kernel's connect. Laboratories put theirs here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Resolver looks names up. Nil: net.DefaultResolver.
	Resolver Resolver

	// Sources are where flows begin. Empty: the system chooses. They need Dial nil.
	Sources []Source

	// Hairpin has this host's own address dialed instead of a load balancer's that has
	// this host for a backend: what the balancer maps back to its sender is lost. Host
	// names, and what TLS verifies, stay as they are.
	Hairpin map[netip.AddrPort]netip.AddrPort

	// Proxy says through which proxy to dial address, as it was asked for: its URL with the
	// scheme http (CONNECT), socks5 or socks5h, and a user where it wants one. A nil URL:
	// through none. Names are looked up by the proxy, and it is the flow to the proxy that
	// is booked. What httpx.Transport.Proxy chooses is an address to dial as any other. Nil:
	// none is used.
	Proxy func(network, address string) (*url.URL, error)

	// Stagger is how long one address may take before the next is tried beside
	// it, if there are ports to spare. Zero: 250 ms (RFC 8305). Negative: none
	// is tried while another may still answer.
	Stagger time.Duration

	// Timeout bounds the look-up of a name, and the connect to one address.
	// Zero: 10 s. Negative: only the context does.
	Timeout time.Duration

	// Learner, if not nil, is what the idle timeouts of this dialer's paths are
	// learned by, from silences that are survived and from those that are not;
	// pools have it learn from connections that they are about to close (Teach).
	// Nil: the ledger's own, which only learns from connections that die.
	Learner *keepalive.Learner

	// Observe is told of every event in the life of this dialer's flows, by the
	// goroutine in which it happened and under no lock. It must not block.
	Observe func(Event)
}

// A Resolver looks up the addresses of a name, as net.Resolver does. It must
// return when ctx is done.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	defaultStagger = 250 * time.Millisecond
	defaultTimeout = 10 * time.Second
)

type contextKey int

const (
	ownerKey contextKey = iota
	controlKey
	patienceKey
)

// WithOwner names, for fairness, whom the connections dialed with the context
// belong to, instead of the Dialer and the host name: a pool passes its own
// pointer. It panics if owner cannot be compared.
func WithOwner(ctx context.Context, owner any) context.Context {
	if !reflect.ValueOf(owner).Comparable() {
		panic(fmt.Sprintf("dialer: owner of type %T is not comparable", owner))
	}
	return context.WithValue(ctx, ownerKey, owner)
}

// WithControl marks the dials of a context as control connections, which may
// use the ports that are kept back for them: the probe of a path, the cancel
// request of a database.
func WithControl(ctx context.Context) context.Context {
	return context.WithValue(ctx, controlKey, true)
}

// WithoutMaxWait has the dials of a context wait for their ports as long as it lasts,
// whatever Ledger.MaxWait says: for a pool, who knows how long those wait that it dials
// for.
func WithoutMaxWait(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey, true)
}

// DialContext waits for a port to address, connects, and returns a *Conn. The
// network is "tcp", "tcp4" or "tcp6"; a "unix" socket crosses no NAT and is
// dialed as by net.Dialer. A name with several addresses is tried at one after
// the other, where there is most room first. A SYN to a private address that is not
// answered soon, on a host that listens, may be sent again from other source ports: see
// Verdict Hairpin. The error is a *DialError.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "unix" {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	r, err := d.Reserve(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return r.Dial(ctx)
}

// Reserve is the first phase of DialContext: it returns when there is a port.
// Nothing is sent. Dial it or Release it soon: it counts as one of the 16 dials
// that an account with a limit may have under way. The error is a *DialError.
func (d *Dialer) Reserve(ctx context.Context, network, address string) (*Reservation, error) {
	l := d.ledger()
	if err := l.init(); err != nil {
		return nil, dialError(network, address, err)
	}
	setup := telemetry.SetupOf(ctx) // a pool's, which goes on when this is over
	own := setup == nil
	if own {
		setup = l.scope.Setup(ctx, "", address)
	}
	began := time.Now()
	t, err := d.target(ctx, network, address)
	if t.setup = setup; t.named {
		setup.Phase("DNS lookup", t.host, began, err)
	}
	if err != nil {
		failed := dialError(network, address, err)
		if t.unresolved {
			failed.Verdict = DNS // whatever the Resolver says
		}
		if failed.Verdict == DNS {
			l.tellVerdict(place{host: address}, address, DNS, "")
			setup.Judged(DNS.String())
		}
		if own {
			setup.End(err)
		}
		return nil, failed
	}
	if t.named {
		l.resolved(address)
	}
	want := d.request(ctx, t)
	want.itself = own
	r, err := d.reserve(ctx, t, want)
	if err == nil {
		r.own = own
	}
	return r, err
}

// request is what a context asks for.
func (d *Dialer) request(ctx context.Context, t target) request {
	r := request{
		owner: owner{by: d, host: t.host}, address: t.address, candidates: t.candidates,
		control: ctx.Value(controlKey) != nil, patient: ctx.Value(patienceKey) != nil,
	}
	if o := ctx.Value(ownerKey); o != nil {
		r.owner = owner{by: o}
	}
	return r
}

func (d *Dialer) reserve(ctx context.Context, t target, r request) (*Reservation, error) {
	l := d.ledger()
	r.candidates, r.full = l.owing(t.network, r.candidates), t.full
	start := time.Now()
	if r.since.IsZero() {
		r.since = start
	}
	f, at, w, err := l.reserve(ctx, r)
	l.tellTaken(ctx, r, f, at, w, start, err)
	if w != nil {
		t.setup.Phase("wait_for_port", t.address, start, err)
		e := Event{Kind: Waited, Host: t.address, Took: time.Since(start), Err: err}
		if err != nil {
			e.Verdict, e.Evidence = explain(err)
		}
		d.observe(e)
	}
	if err != nil {
		return nil, dialError(t.network, t.address, err)
	}
	res := &Reservation{dialer: d, target: t, request: r, flow: f}
	res.candidates = slices.Clone(r.candidates) // a waiter may still look at its own
	res.choose(at)
	res.used = new(atomic.Bool)
	res.cleanup = runtime.AddCleanup(res, func(p permission) { p.release() }, permission{l, f, res.used})
	return res, nil
}

// A Reservation is a port that nothing has been sent from yet. Whoever holds it
// dials it or releases it, once; it is not for two goroutines.
type Reservation struct {
	dialer *Dialer
	target target
	request
	chosen  candidate // no longer among request.candidates
	flow    *flow
	own     bool // target.setup is nobody else's
	used    *atomic.Bool
	cleanup runtime.Cleanup
}

// A permission outlives its Reservation, for the garbage collector.
type permission struct {
	ledger *Ledger
	flow   *flow
	used   *atomic.Bool
}

func (p permission) release() {
	if p.used.CompareAndSwap(false, true) {
		p.ledger.drop(p.flow)
	}
}

// choose takes candidate i out of those that are left.
func (r *Reservation) choose(i int) {
	r.chosen = r.candidates[i]
	r.candidates = slices.Delete(r.candidates, i, i+1)
}

// Remote returns the address whose port is reserved.
func (r *Reservation) Remote() netip.AddrPort { return r.chosen.dst }

// Release gives the port back. It does nothing after Dial or a first Release.
func (r *Reservation) Release() {
	r.cleanup.Stop()
	permission{r.dialer.ledger(), r.flow, r.used}.release()
}

var errUsed = errors.New("dialer: reservation used twice")

// Dial is the second phase: it connects and returns a *Conn. If the address
// does not answer for Stagger or fails, the name's other addresses are tried
// too, as far as ports can be spared; if all those fail, it waits for a port to
// the rest. The error is a *DialError.
func (r *Reservation) Dial(ctx context.Context) (net.Conn, error) {
	if !r.used.CompareAndSwap(false, true) {
		return nil, dialError(r.target.network, r.target.address, errUsed)
	}
	r.cleanup.Stop()
	c, err := r.dial(ctx)
	if r.own {
		r.target.setup.End(err)
	}
	return c, err
}

func (r *Reservation) dial(ctx context.Context) (net.Conn, error) {
	var failed error // of addresses that are tried no more
	var full *judged // which one was found to be
	for {
		c, err := r.connect(ctx)
		if err == nil {
			r.target.setup.Connected(c.keeper.local, c.keeper.way.dst)
			return c, nil
		}
		if v, why := explain(err); v == Exhausted && errors.Is(err, errNoAnswer) { // from now on it waits, as others do
			r.candidates, full = slices.Clone(r.target.candidates), &judged{verdict: v, evidence: why}
			r.target.full = true
		} else {
			failed = join(failed, err)
		}
		if len(r.candidates) == 0 || ctx.Err() != nil {
			return nil, dialError(r.target.network, r.target.address, join(failed, err))
		}
		if err := r.rebook(ctx); err != nil {
			if full != nil && errors.Is(err, ErrBudget) {
				full.err, err = err, full
			}
			return nil, dialError(r.target.network, r.target.address, join(failed, err))
		}
	}
}

// join is errors.Join, but for what is in failed already.
func join(failed, err error) error {
	if failed == nil || errors.Is(failed, err) {
		return cmp.Or(failed, err)
	}
	return errors.Join(failed, err)
}

// rebook waits for a port to one of the candidates that are left, as long as the first wait
// has left.
func (r *Reservation) rebook(ctx context.Context) error {
	rest, err := r.dialer.reserve(ctx, r.target, r.request) // the same owner's
	if err != nil {
		return errors.Unwrap(err)
	}
	rest.cleanup.Stop()
	r.request, r.chosen, r.flow = rest.request, rest.chosen, rest.flow
	return nil
}

func (r *Reservation) connect(ctx context.Context) (*Conn, error) {
	if len(r.candidates) == 0 {
		return r.dialer.attempt(ctx, r.target, r.flow, r.chosen)
	}
	return r.race(ctx)
}

// race dials the chosen address and then, one Stagger apart or as soon as one
// has failed, the others (RFC 8305). Only the first was waited for.
func (r *Reservation) race(ctx context.Context) (*Conn, error) {
	type result struct {
		conn *Conn
		err  error
	}
	racing, won := context.WithCancel(ctx)
	defer won()
	results := make(chan result) // unbuffered: who comes too late closes its own
	start := func(f *flow, c candidate) {
		go func() {
			conn, err := r.dialer.attempt(racing, r.target, f, c)
			select {
			case results <- result{conn, err}:
			case <-racing.Done():
				if err == nil {
					conn.Conn.EndSoonest() // nothing was ever sent on it
					conn.Close()
				}
			}
		}()
	}
	start(r.flow, r.chosen)
	stagger := time.NewTicker(r.dialer.stagger())
	defer stagger.Stop()
	last := r.chosen
	next := func() bool {
		f, c := r.another(last)
		if f == nil {
			return false
		}
		last = c
		start(f, c)
		return true
	}
	var failed error
	for pending := 1; pending > 0; {
		select {
		case res := <-results:
			if res.err == nil {
				return res.conn, nil
			}
			pending--
			failed = errors.Join(failed, res.err)
			if next() {
				pending++
			}
		case <-stagger.C:
			if r.dialer.Stagger >= 0 && next() {
				pending++
			}
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), failed)
		}
	}
	return nil, failed
}

// another books a port, without waiting, for a further address: of the other
// family if there is one, as RFC 8305 has it.
func (r *Reservation) another(last candidate) (*flow, candidate) {
	for _, other := range []bool{true, false} {
		for i, c := range r.candidates {
			if sameFamily(c, last) == other {
				continue
			}
			req := r.request
			req.candidates = r.candidates[i : i+1]
			if f := r.dialer.ledger().tryReserve(req); f != nil {
				if len(c.owes) > 0 {
					r.dialer.ledger().scope.Taken(c.dst, false)
				}
				r.candidates = slices.Delete(r.candidates, i, i+1)
				return f, c
			}
		}
	}
	return nil, candidate{}
}

// attempt sends the SYN for a booked flow.
func (d *Dialer) attempt(ctx context.Context, t target, f *flow, c candidate) (*Conn, error) {
	l := d.ledger()
	if err := context.Cause(ctx); err != nil {
		l.drop(f)
		return nil, err
	}
	l.dial(f)
	h := d.watchDial(ctx, t, c)
	conn, took, err := h.connect()
	switch {
	case h.conn == nil:
	case err == nil:
		d.abandon(h, tried{h.conn, h.flow, h.took, nil})
	default:
		l.abandoned(f, err)
		conn, f, took, err = h.conn, h.flow, h.took, nil
	}
	if err == nil {
		l.worked(c.place(), took)
	}
	if err != nil {
		err = d.failed(ctx, h, f, err)
	}
	t.setup.Phase("socket connect", c.dst.String(), h.began, err)
	switch {
	case err != nil:
		return nil, err
	case t.via != nil:
		return d.watchTunnel(ctx, conn, f, h)
	}
	return d.watch(ctx, conn, f, h, took), nil
}

// failed books a dial that was not answered, or not as it should, and says what that means.
func (d *Dialer) failed(ctx context.Context, h *hang, f *flow, err error) *judged {
	l := d.ledger()
	took := time.Since(h.began)
	how, sent := dialEnding(err)
	conclusive := conclusive(ctx, err, took)
	if sent && timeout(err) && took > suspicion {
		h.noteFailed()
	}
	j := h.explain(err, conclusive)
	if j.verdict == PeerDown {
		l.answered(h.way.place(), took)
	}
	l.scope.Failed(ctx, h.target.address, h.way.dst, took, j)
	switch {
	case !sent, h.reason != nil && j.verdict == Exhausted: // the NAT has nothing of it
		l.drop(f)
	default:
		l.failed(f, how, j, conclusive && j.verdict != Hairpin)
	}
	if known := h.target.full && j.verdict == Exhausted; !known && (conclusive || j.verdict != Unknown) {
		l.tellVerdict(h.way.place(), h.target.address, j.verdict, j.evidence)
	}
	d.tellFailed(h, j)
	return j
}

func (d *Dialer) tellFailed(h *hang, j *judged) {
	h.target.setup.Judged(j.verdict.String())
	d.observe(Event{Kind: Failed, Host: h.target.address, Remote: h.way.dst, Took: time.Since(h.began), Err: j.err,
		Verdict: j.verdict, Evidence: j.evidence, Tries: len(h.tries)})
}

// watchTunnel has the proxy at the other end of conn connect, and makes a Conn of that.
func (d *Dialer) watchTunnel(ctx context.Context, conn net.Conn, f *flow, h *hang) (*Conn, error) {
	t := h.target
	asking := ctx
	if limit := d.timeout(); limit > 0 {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	began := time.Now()
	err := tunnel(asking, conn, t.via, t.address)
	t.setup.Phase("proxy connect", t.address, began, err)
	if err == nil {
		return d.watch(ctx, conn, f, h, 0), nil
	}
	conn.Close()
	v, why := explain(err)
	j := &judged{v, why, err}
	l := d.ledger()
	l.scope.Failed(ctx, t.address, h.way.dst, time.Since(h.began), j)
	l.failed(f, keepalive.FINByUs, j, false) // the proxy's address is in order
	if v != Unknown {
		l.tellVerdict(h.way.place(), t.address, v, why)
	}
	d.tellFailed(h, j)
	return nil, j
}

// watch makes a Conn of a connection that is there, and whose SYN was answered so late.
func (d *Dialer) watch(ctx context.Context, conn net.Conn, f *flow, h *hang, late time.Duration) *Conn {
	l, t, c, took := d.ledger(), h.target, h.way, time.Since(h.began)
	k := &keeper{dialer: d, target: t, way: c, flow: f, exempt: len(c.owes) == 0, born: time.Now(), local: addrPort(conn.LocalAddr())}
	k.peer = l.scope.Opened(ctx, t.address, c.dst, took)
	plan := k.plan()
	kc := keepalive.Watch(conn, plan, k.ended)
	refused := kc.Follow(plan)
	if d.Learner != nil {
		kc.WhenSurvived(func(gap time.Duration) { d.Learner.Survived(k.key(), gap) })
	}
	l.detector.Guard(kc, k.key(), k)
	l.connected(f, kc, k)
	if learned := k.plan(); learned != plan {
		kc.Follow(learned) // just now
	}
	stale := late >= staleAfter && metStale(kc)
	if stale {
		l.scope.Warn("stale", t.address, "an old socket of the far end answered first, which a flow that idled out has left",
			"address", t.address, "remote", c.dst, "took", took)
	}
	d.observe(k.event(Event{Kind: Opened, Took: took, Err: refused, Tries: len(h.tries), Stale: stale}))
	return &Conn{kc, l, f, k}
}

// Path is what this dialer's connections cross: its ledger's path and what is
// beyond.
func (d *Dialer) Path() netpath.Profile {
	path := d.ledger().Path
	if len(d.Beyond) > 0 {
		path = netpath.Chain(append([]netpath.Profile{path}, d.Beyond...)...)
	}
	return path.Effective()
}

// MaxConns is how many connections to one address a single owner may have, for
// the size of a pool: the path's limit less the port that is kept for
// newcomers. netpath.None: there is no limit, or the ledger is a Shadow.
func (d *Dialer) MaxConns() int {
	limit := toDestination(d.ledger().Path)
	if limit == netpath.None || d.ledger().Shadow {
		return netpath.None
	}
	return limit - reserve(limit, 1)
}

// MaxIdle is how long a connection may be idle before it is closed, so that its path
// never forgets it: where keepalive probes do not keep it known, because they are
// off, the path counts only bytes or requests, or the process may be frozen. Zero:
// there is no such limit.
func (d *Dialer) MaxIdle() time.Duration {
	path := d.Path()
	plan := d.Plan.Over(keepalive.For(path))
	if path.Counts == netpath.Segments && plan.Idle > 0 && !path.Freezes {
		return 0
	}
	return plan.MaxSilence()
}

// MaxIdleBeaten is how long a pool may leave a connection idle that it beats, which is
// to have its application say something, every so often: idle, or less where the path
// would forget it all the same. A zero idle is for ever, a zero every never.
func (d *Dialer) MaxIdleBeaten(idle, every time.Duration) time.Duration {
	limit := d.MaxIdle()
	path := d.Path()
	switch kept := every > 0 && every <= limit && path.Counts != netpath.Requests && !path.Freezes; {
	case limit == 0 || kept:
		return idle
	case idle > 0:
		return min(limit, idle)
	}
	return limit
}

func (d *Dialer) connect(ctx context.Context, network string, c candidate) (net.Conn, error) {
	if t := d.timeout(); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	if d.Dial != nil {
		return d.Dial(ctx, network, c.dst.String())
	}
	// The plan sets the keepalive afterwards; there is one address to try.
	nd := net.Dialer{KeepAlive: -1, FallbackDelay: -1}
	if c.src.IsValid() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.src, 0))
	}
	if c.src.IsValid() || c.device != "" {
		nd.Control = binding(c.src, c.device)
	}
	return nd.DialContext(ctx, network, c.dst.String())
}

// dialEnding says what a failed connect leaves at the NAT: nothing, if the SYN
// was never sent.
func dialEnding(err error) (how keepalive.How, sent bool) {
	if isRefused(err) {
		return keepalive.Refused, true
	}
	return keepalive.Unanswered, !isLocal(err)
}

// conclusive reports whether a failed connect says something about the address
// and not only about the patience of whoever asked. The first SYN is repeated
// after 1 s: who waited for less does not know.
func conclusive(ctx context.Context, err error, took time.Duration) bool {
	return took >= time.Second || ctx.Err() == nil && !timeout(err)
}

func (d *Dialer) ledger() *Ledger {
	if d.Ledger != nil {
		return d.Ledger
	}
	return DefaultLedger
}

func (d *Dialer) learner() *keepalive.Learner {
	if d.Learner != nil {
		return d.Learner
	}
	return &d.ledger().learner
}

func (d *Dialer) stagger() time.Duration {
	if d.Stagger > 0 {
		return d.Stagger
	}
	return defaultStagger
}

func (d *Dialer) timeout() time.Duration {
	if d.Timeout != 0 {
		return d.Timeout
	}
	return defaultTimeout
}

func (d *Dialer) observe(e Event) {
	if d.Observe != nil {
		d.Observe(e)
	}
}
