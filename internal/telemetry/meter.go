package telemetry

import (
	"cmp"
	"context"
	"net/netip"
	"time"
	"weak"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
)

// instruments are all that natwise has. Those with a name in the semantic conventions are
// made by its packages, so that names and units cannot be wrong.
type instruments struct {
	limit, usage, wanted   metric.Int64ObservableUpDownCounter
	pending                metric.Int64ObservableUpDownCounter
	utilization            metric.Float64ObservableGauge
	acquisitions, closed   metric.Int64ObservableCounter
	probes, blackholes     metric.Int64ObservableCounter
	dial, wait, blackholed metric.Float64Histogram

	leases, degraded  metric.Int64ObservableUpDownCounter
	renewals          metric.Int64ObservableCounter
	leaseAge, sharers metric.Float64ObservableGauge

	httpOpen, httpActive metric.Int64ObservableUpDownCounter
	httpAge              metric.Float64Histogram

	dbCount, dbIdleMax, dbIdleMin, dbMax, dbPending metric.Int64ObservableUpDownCounter
	dbTimeouts                                      metric.Int64ObservableCounter
	dbCreate, dbWait, dbUse                         metric.Float64Histogram
}

var (
	shortBounds = metric.WithExplicitBucketBoundaries(.001, .005, .01, .05, .1, .5, 1, 5, 10)
	ageBounds   = metric.WithExplicitBucketBoundaries(.01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 120, 300)
)

// A maker makes instruments of a meter. What is wrong with one, a provider of somebody
// else's for instance, is OpenTelemetry's to handle: it returns one that does nothing.
type maker struct{ metric.Meter }

func made[I any](i I, err error) I {
	if err != nil {
		otel.Handle(err)
	}
	return i
}

func (m maker) upDown(name, unit, what string) metric.Int64ObservableUpDownCounter {
	return made(m.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what)))
}

func (m maker) counter(name, unit, what string) metric.Int64ObservableCounter {
	return made(m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what)))
}

func (m maker) gauge(name, unit, what string) metric.Float64ObservableGauge {
	return made(m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what)))
}

func (m maker) seconds(name, what string, bounds metric.Float64HistogramOption) metric.Float64Histogram {
	return made(m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), bounds))
}

func newInstruments(meter metric.Meter) instruments {
	m := maker{meter}
	return instruments{
		limit:        m.upDown("natwise.snat.port.limit", "{port}", "Ports to one destination that this process may hold. It moves where it is learned, from dials that found none, and where it is shared, with what the others hold."),
		usage:        m.upDown("natwise.snat.port.usage", "{port}", "Ports to one destination that the NAT holds for this process, by what they are held for."),
		wanted:       m.upDown("natwise.snat.port.pending", "{port}", "Ports to one destination that dials wait for. One that may go to several waits for each of them."),
		utilization:  m.gauge("natwise.snat.port.utilization", "1", "Part of its limit that the fullest destination has taken."),
		acquisitions: m.counter("natwise.snat.port.acquisitions", "{port}", "How often a port was wanted, by what came of it."),
		closed:       m.counter("natwise.connection.closed", "{connection}", "Connections that have ended, by reason."),
		probes:       m.counter("natwise.keepalive.probes", "{probe}", "Idle connections that were asked whether their far end is there."),
		blackholes:   m.counter("natwise.blackhole.detections", "{detection}", "Connections that were found dead because their packets vanish."),
		pending:      m.upDown("natwise.connection.pending_requests", "{request}", "Requests that wait for a connection."),
		dial:         m.seconds("natwise.connection.dial.duration", "How long connects took.", shortBounds),
		wait:         m.seconds("natwise.connection.wait.duration", "How long requests waited for a connection, of those that did.", shortBounds),
		blackholed:   m.seconds("natwise.blackhole.detection.duration", "For how long a connection had been silent when it was found dead.", ageBounds),

		leases:   m.upDown("natwise.budget.lease.port", "{port}", "Ports of a shared budget, all destinations together: that this process may hold without asking, that it was lent beyond those, and that processes have left in the NAT which are gone. All that share say the same of the last."),
		degraded: m.upDown("natwise.budget.degraded", "{engine}", "Shared budgets of which this process gets no more than its floor."),
		renewals: m.counter("natwise.budget.lease.renewals", "{renewal}", "How often a shared budget's server was asked, by what came of it."),
		leaseAge: m.gauge("natwise.budget.lease.age", "s", "How long ago a shared budget's server has last answered."),
		sharers:  m.gauge("natwise.budget.sharers", "{process}", "Processes or instances that share a budget, this one included."),

		httpOpen:   made(httpconv.NewClientOpenConnectionsObservable(m)).Inst(),
		httpActive: made(httpconv.NewClientActiveRequestsObservable(m)).Inst(),
		httpAge:    made(httpconv.NewClientConnectionDuration(m, ageBounds)).Inst(),

		dbCount:    made(dbconv.NewClientConnectionCountObservable(m)).Inst(),
		dbIdleMax:  made(dbconv.NewClientConnectionIdleMaxObservable(m)).Inst(),
		dbIdleMin:  made(dbconv.NewClientConnectionIdleMinObservable(m)).Inst(),
		dbMax:      made(dbconv.NewClientConnectionMaxObservable(m)).Inst(),
		dbPending:  made(dbconv.NewClientConnectionPendingRequestsObservable(m)).Inst(),
		dbTimeouts: made(dbconv.NewClientConnectionTimeoutsObservable(m)).Inst(),
		dbCreate:   made(dbconv.NewClientConnectionCreateTime(m, shortBounds)).Inst(),
		dbWait:     made(dbconv.NewClientConnectionWaitTime(m, shortBounds)).Inst(),
		dbUse:      made(dbconv.NewClientConnectionUseTime(m, shortBounds)).Inst(),
	}
}

// observed are those that one callback reads from snapshots.
func (t *instruments) observed() []metric.Observable {
	return []metric.Observable{
		t.limit, t.usage, t.wanted, t.utilization, t.acquisitions, t.closed, t.probes, t.blackholes, t.pending,
		t.leases, t.degraded, t.renewals, t.leaseAge, t.sharers,
		t.httpOpen, t.httpActive, t.dbCount, t.dbIdleMax, t.dbIdleMin, t.dbMax, t.dbPending, t.dbTimeouts,
	}
}

// observer is the callback of a Scope that it does not keep alive.
func observer(s weak.Pointer[Scope]) metric.Callback {
	return func(_ context.Context, o metric.Observer) error {
		if s := s.Value(); s != nil {
			s.observe(o)
		}
		return nil
	}
}

func (s *Scope) observe(o metric.Observer) {
	ended := s.reused() // first: who ends meanwhile is told too late, and not twice
	held := s.cfg.Snapshot()
	for p, live := range held.Reused {
		ended[p] += live
	}
	pools := s.Pools()
	c := s.collect(held, pools)
	s.telling.Lock()
	defer s.telling.Unlock()
	for _, a := range c.accounts {
		s.observeAccount(o, a.labels, a.Account)
	}
	o.ObserveFloat64(s.told.utilization, c.fullest)
	for _, p := range c.peers {
		s.observePeer(o, p.Peer, p.Counts, ended[p.Peer])
	}
	s.observeNames(o, c)
	s.observeDatabases(o, pools)
	s.observeEngines(o, held.Engines)
}

// A collection is what is to be told, copied: to tell it takes milliseconds, for which nobody who
// dials is to wait.
type collection struct {
	accounts []labeled
	fullest  float64 // part of its limit that an account has taken
	peers    []countedPeer
	names    []*Name
	pending  map[*Name]int // requests that wait
	origins  map[origin]open
}

type labeled struct {
	*labels
	Account
}

type countedPeer struct {
	*Peer
	Counts
}

// An origin is whom HTTP requests are for.
type origin struct {
	name   *Name
	scheme string
}

type open struct{ active, idle, requests int }

func (s *Scope) collect(held Snapshot, pools []Pool) collection {
	c := collection{pending: make(map[*Name]int), origins: make(map[origin]open)}
	for _, a := range held.Accounts {
		if a.Limit > 0 {
			c.fullest = max(c.fullest, float64(a.taken())/float64(a.Limit))
		}
	}
	accounts := byDestination(held.Accounts, held.Twice)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collected = true
	s.foldLocked()
	s.accountsLocked(&c, accounts)
	c.peers = make([]countedPeer, 0, len(s.peers)+1)
	c.peers = append(c.peers, countedPeer{s.otherPeer, s.otherPeer.counts.clone()})
	for _, p := range s.peers {
		c.peers = append(c.peers, countedPeer{p, p.counts.clone()})
	}
	s.requestsLocked(&c, held.Waiting, pools)
	c.names = append(c.names, s.otherName)
	for _, n := range s.names {
		c.names = append(c.names, n)
	}
	return c
}

// byDestination makes one account of those that are for one destination. Those of several sources
// add up. Where a path limits both, their flows are there twice: that one counts which has the
// least room.
func byDestination(accounts []Account, twice bool) (merged []Account) {
	type part struct {
		peer     netip.AddrPort
		bySource bool
	}
	parts := make(map[part]Account)
	for _, a := range accounts {
		at := part{a.Peer, twice && a.Source.IsValid()}
		if was, known := parts[at]; known {
			a = a.with(was)
		}
		parts[at] = a
	}
	for at, a := range parts {
		twin, both := parts[part{at.peer, !at.bySource}]
		if !both || a.room() < twin.room() || a.room() == twin.room() && at.bySource {
			merged = append(merged, a)
		}
	}
	return merged
}

// accountsLocked finds out what accounts are called. Destinations that have no series of their own
// are one together.
func (s *Scope) accountsLocked(c *collection, accounts []Account) {
	rest := Account{Limit: -1}
	for _, a := range accounts {
		if p := s.peers[a.Peer]; p != nil {
			c.accounts = append(c.accounts, labeled{&p.labels, a})
		} else if !a.Peer.IsValid() {
			c.accounts = append(c.accounts, labeled{&labels{attrs: []attribute.KeyValue{semconv.NetworkTransportTCP}}, a})
		} else {
			waiting := rest.Waiting + a.Waiting
			rest = rest.with(a)
			rest.Waiting = waiting
		}
	}
	if rest.taken() > 0 || rest.Waiting > 0 {
		c.accounts = append(c.accounts, labeled{&s.otherPeer.labels, rest})
	}
}

func (s *Scope) observeAccount(o metric.Observer, l *labels, a Account) {
	with := l.with("").observe
	if a.Limit >= 0 {
		o.ObserveInt64(s.told.limit, int64(a.Limit), with...)
	}
	o.ObserveInt64(s.told.wanted, int64(a.Waiting), with...)
	for _, state := range []struct {
		name string
		n    int
	}{{"active", a.Active}, {"idle", a.Idle}, {"dialing", a.Dialing}, {"cooling", a.Cooling}} {
		o.ObserveInt64(s.told.usage, int64(state.n), l.with("state "+state.name, attribute.String("natwise.snat.port.state", state.name)).observe...)
	}
}

// reused returns how often connections that have ended were used again.
func (s *Scope) reused() map[*Peer]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := map[*Peer]uint64{s.otherPeer: s.otherPeer.counts.Reused}
	for _, p := range s.peers {
		ended[p] = p.counts.Reused
	}
	return ended
}

func (s *Scope) observePeer(o metric.Observer, p *Peer, c Counts, reused uint64) {
	p.reused = max(p.reused, reused)
	for _, outcome := range []struct {
		name string
		n    uint64
	}{{"reused", p.reused}, {"dialed", c.Dialed}, {"waited", c.Waited}, {"rejected", c.Rejected}} {
		if p != s.otherPeer || outcome.n > 0 { // from zero on: what begins with one has no increase
			o.ObserveInt64(s.told.acquisitions, int64(outcome.n), p.labels.with("outcome "+outcome.name, attribute.String("natwise.snat.port.outcome", outcome.name)).observe...)
		}
	}
	if p != s.otherPeer && c.Closed["lost"] == 0 {
		c.Closed["lost"] = 0 // one is too many, so this begins with zero too
	}
	for reason, n := range c.Closed {
		o.ObserveInt64(s.told.closed, int64(n), p.labels.with("reason "+reason, attribute.String("natwise.connection.close.reason", reason)).observe...)
	}
	if p != s.otherPeer || c.Blackholes > 0 {
		o.ObserveInt64(s.told.blackholes, int64(c.Blackholes), p.labels.with("").observe...)
	}
}

// requestsLocked finds out what requests do, by the names that they ask for. Pools of one name are
// one.
func (s *Scope) requestsLocked(c *collection, waiting map[string]int, pools []Pool) {
	for address, n := range waiting {
		c.pending[s.nameLocked(address)] += n
	}
	for _, p := range pools {
		if p.Address == "" {
			continue
		}
		n := s.nameLocked(p.Address)
		c.pending[n] += p.Waiting
		if p.Kind == "http" {
			at := origin{n, p.Scheme}
			was := c.origins[at]
			c.origins[at] = open{was.active + p.Active, was.idle + p.Idle, was.requests + p.Requests + p.Waiting}
		}
	}
}

func (s *Scope) observeNames(o metric.Observer, c collection) {
	for n, waits := range c.pending {
		o.ObserveInt64(s.told.pending, int64(waits), n.option("").observe...)
	}
	for _, n := range c.names {
		s.observeBeats(o, n)
	}
	for at, n := range c.origins {
		scheme := semconv.URLScheme(at.scheme)
		o.ObserveInt64(s.told.httpActive, int64(n.requests), at.name.option("scheme "+at.scheme, scheme).observe...)
		o.ObserveInt64(s.told.httpOpen, int64(n.active), at.name.option("active "+at.scheme, scheme, semconv.HTTPConnectionStateActive).observe...)
		o.ObserveInt64(s.told.httpOpen, int64(n.idle), at.name.option("idle "+at.scheme, scheme, semconv.HTTPConnectionStateIdle).observe...)
	}
}

func (s *Scope) observeBeats(o metric.Observer, n *Name) {
	for i, outcome := range []string{"answered", "unanswered"} {
		if count := n.beats[i].Load(); count > 0 {
			o.ObserveInt64(s.told.probes, int64(count), n.option("probe "+outcome,
				attribute.String("natwise.keepalive.type", "app"), attribute.String("natwise.keepalive.outcome", outcome)).observe...)
		}
	}
}

func (s *Scope) observeDatabases(o metric.Observer, pools []Pool) {
	byName := make(map[string]Pool)
	for _, p := range pools {
		if p.DB == nil {
			continue
		}
		was, known := byName[p.Name]
		if known {
			p.Active += was.Active
			p.Idle += was.Idle
			p.Waiting += was.Waiting
			most := 0 // for one that has no bound all of them have none
			if p.DB.Max > 0 && was.DB.Max > 0 {
				most = p.DB.Max + was.DB.Max
			}
			p.DB = &DB{Max: most, MinIdle: p.DB.MinIdle + was.DB.MinIdle, Timeouts: p.DB.Timeouts + was.DB.Timeouts}
		}
		byName[p.Name] = p
	}
	for name, p := range byName {
		l := &labels{attrs: []attribute.KeyValue{semconv.DBClientConnectionPoolName(cmp.Or(name, other))}}
		with := l.with("").observe
		o.ObserveInt64(s.told.dbCount, int64(p.Idle), l.with("idle", semconv.DBClientConnectionStateIdle).observe...)
		o.ObserveInt64(s.told.dbCount, int64(p.Active), l.with("used", semconv.DBClientConnectionStateUsed).observe...)
		o.ObserveInt64(s.told.dbPending, int64(p.Waiting), with...)
		o.ObserveInt64(s.told.dbTimeouts, int64(p.DB.Timeouts), with...)
		o.ObserveInt64(s.told.dbIdleMin, int64(p.DB.MinIdle), with...)
		if p.DB.Max > 0 {
			o.ObserveInt64(s.told.dbMax, int64(p.DB.Max), with...)
			o.ObserveInt64(s.told.dbIdleMax, int64(p.DB.Max), with...)
		}
	}
}

// Taken counts a port that was wanted to a destination, and had: after a wait or at once.
func (s *Scope) Taken(at netip.AddrPort, waited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.peerLocked(at).counts
	if waited {
		c.Waited++
	} else {
		c.Dialed++
	}
}

// Rejected counts one that was wanted and did not come free in time.
func (s *Scope) Rejected(at netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peerLocked(at).counts.Rejected++
}

// Failed records a connect in vain.
func (s *Scope) Failed(ctx context.Context, address string, at netip.AddrPort, took time.Duration, err error) {
	s.mu.Lock()
	s.peerLocked(at).counts.Failed++
	n := s.nameLocked(address)
	s.mu.Unlock()
	n.dialed(ctx, took, err)
}

// Opened records a connect, and returns where what becomes of the connection is counted.
// Whoever calls it calls Closed once.
func (s *Scope) Opened(ctx context.Context, address string, at netip.AddrPort, took time.Duration) *Peer {
	s.mu.Lock()
	p := s.peerLocked(at)
	p.counts.Opened++
	p.flows++
	n := s.nameLocked(address)
	s.mu.Unlock()
	n.dialed(ctx, took, nil)
	return p
}

// Closed counts a connection that has ended, after so many uses beyond the first.
func (s *Scope) Closed(p *Peer, reason string, reused uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.flows--
	p.used = time.Now()
	p.counts.Reused += reused
	p.counts.Closed[reason]++
}

// Blackhole records that a connection was found dead after such a silence.
func (s *Scope) Blackhole(p *Peer, address string, silence time.Duration) {
	s.mu.Lock()
	p.counts.Blackholes++
	p.counts.LastBlackhole = time.Now()
	n := s.nameLocked(address)
	s.mu.Unlock()
	if silence > 0 {
		s.told.blackholed.Record(context.Background(), silence.Seconds(), n.plain...)
	}
}

// A Database records the times that the conventions want of a database's pool.
type Database struct {
	told *instruments
	with []metric.RecordOption
}

// Database returns what records for the pool that is called name.
func (s *Scope) Database(name string) *Database {
	if name == "" {
		return s.unnamed
	}
	return s.database(name)
}

func (s *Scope) database(name string) *Database {
	l := labels{attrs: []attribute.KeyValue{semconv.DBClientConnectionPoolName(name)}}
	return &Database{told: &s.told, with: l.with("").record}
}

func (d *Database) Created(ctx context.Context, took time.Duration) {
	d.told.dbCreate.Record(ctx, took.Seconds(), d.with...)
}

func (d *Database) Waited(ctx context.Context, took time.Duration) {
	d.told.dbWait.Record(ctx, took.Seconds(), d.with...)
}

func (d *Database) Used(ctx context.Context, took time.Duration) {
	d.told.dbUse.Record(ctx, took.Seconds(), d.with...)
}
