package telemetry

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

const (
	// most is how many destinations, and how many names, have series of their own: the SDK's
	// own limit is 2,000 sets for each instrument, and usage has four for each destination.
	most = 256

	other = "_OTHER" // the rest
)

// Counts are what has become of the flows to one destination since its first.
type Counts struct {
	Dialed, Waited, Rejected uint64 // ports had at once, after a wait, not at all
	Opened, Failed           uint64 // connects
	Reused                   uint64 // uses beyond the first, by connections that have ended
	Blackholes               uint64
	LastBlackhole            time.Time
	Closed                   map[string]uint64 // by reason
}

// A Peer is a destination as the NAT knows it.
type Peer struct {
	counts Counts // guarded by Scope.mu, and so are those below
	flows  int    // connections that will count here
	used   time.Time

	labels labels // guarded by Scope.telling, and so is that below
	reused uint64 // what was told last
}

func newPeer(attrs ...attribute.KeyValue) *Peer {
	return &Peer{labels: labels{attrs: attrs}, counts: Counts{Closed: make(map[string]uint64)}}
}

// peerLocked returns the destination at a, or the one that stands for all the rest, as the zero
// address does: only those without connections make way for others.
func (s *Scope) peerLocked(a netip.AddrPort) *Peer {
	p := s.peers[a]
	if p == nil && a.IsValid() && (len(s.peers) < most || s.evictLocked()) {
		if p = s.evicted[a]; p != nil { // begun anew it would go backwards
			delete(s.evicted, a)
		} else {
			p = newPeer(
				semconv.NetworkPeerAddress(a.Addr().String()),
				semconv.NetworkPeerPort(int(a.Port())),
				semconv.NetworkTransportTCP,
			)
		}
		s.peers[a] = p
	}
	if p == nil {
		p = s.otherPeer
	}
	p.used = time.Now()
	return p
}

// evictLocked gives up the destination that was of interest longest ago.
func (s *Scope) evictLocked() bool {
	var at netip.AddrPort
	var oldest *Peer
	for a, p := range s.peers {
		if p.flows == 0 && (oldest == nil || p.used.Before(oldest.used)) {
			at, oldest = a, p
		}
	}
	if oldest == nil || len(s.evicted) >= most && s.collected {
		return false // what was evicted would go backwards if it came back
	}
	if len(s.evicted) >= most { // and nobody has ever collected
		s.foldLocked()
	}
	delete(s.peers, at)
	s.evicted[at] = oldest
	return true
}

// foldLocked adds what was evicted to the rest.
func (s *Scope) foldLocked() {
	for _, p := range s.evicted {
		s.otherPeer.counts.Add(p.counts)
	}
	clear(s.evicted)
}

// Add adds d to c. The zero Counts may be added to.
func (c *Counts) Add(d Counts) {
	c.Dialed += d.Dialed
	c.Waited += d.Waited
	c.Rejected += d.Rejected
	c.Opened += d.Opened
	c.Failed += d.Failed
	c.Reused += d.Reused
	c.Blackholes += d.Blackholes
	if d.LastBlackhole.After(c.LastBlackhole) {
		c.LastBlackhole = d.LastBlackhole
	}
	if c.Closed == nil {
		c.Closed = make(map[string]uint64)
	}
	for reason, n := range d.Closed {
		c.Closed[reason] += n
	}
}

func (c Counts) clone() Counts {
	c.Closed = maps.Clone(c.Closed)
	return c
}

// Counts returns the counts of every destination; those of the rest have the zero address.
func (s *Scope) Counts() map[netip.AddrPort]Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[netip.AddrPort]Counts, len(s.peers)+1)
	for _, peers := range []map[netip.AddrPort]*Peer{s.peers, s.evicted} {
		for a, p := range peers {
			all[a] = p.counts.clone()
		}
	}
	all[netip.AddrPort{}] = s.otherPeer.counts.clone()
	return all
}

// A Name is a host and a port as somebody asked for them. It may be used by many
// goroutines.
type Name struct {
	told   *instruments
	plain  []metric.RecordOption
	recent waits
	beats  [2]atomic.Uint64 // answered, and not

	mu     sync.Mutex // guards labels
	labels labels
}

func newName(told *instruments, address string) *Name {
	n := &Name{told: told, labels: labels{attrs: server(address)}}
	n.plain = n.labels.with("").record
	return n
}

// Name returns the name address, host:port, or the one that stands for all the rest. What is
// recorded of a name stays in the SDK for ever, so that none makes way for others.
func (s *Scope) Name(address string) *Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nameLocked(address)
}

func (s *Scope) nameLocked(address string) *Name {
	n := s.names[address]
	if n == nil {
		if len(s.names) >= most {
			return s.otherName
		}
		n = newName(&s.told, address)
		s.names[address] = n
	}
	return n
}

// Waited records that a request waited for a connection.
func (n *Name) Waited(ctx context.Context, took time.Duration, err error) {
	n.recent.add(took)
	n.told.wait.Record(ctx, took.Seconds(), n.with(err)...)
}

// Beaten counts an idle connection that was asked whether its far end is there.
func (n *Name) Beaten(err error) {
	if err == nil {
		n.beats[0].Add(1)
	} else {
		n.beats[1].Add(1)
	}
}

// dialed records a connect.
func (n *Name) dialed(ctx context.Context, took time.Duration, err error) {
	n.told.dial.Record(ctx, took.Seconds(), n.with(err)...)
}

// Aged records how old an HTTP connection was when it was closed.
func (n *Name) Aged(scheme string, age time.Duration) {
	n.told.httpAge.Record(context.Background(), age.Seconds(), n.option("scheme "+scheme, semconv.URLScheme(scheme)).record...)
}

// with returns the option of n and an error, if there was one.
func (n *Name) with(err error) []metric.RecordOption {
	if err == nil {
		return n.plain
	}
	kind := ErrorType(err)
	return n.option("error "+kind, semconv.ErrorTypeKey.String(kind)).record
}

// option returns that of n and extra, which key stands for.
func (n *Name) option(key string, extra ...attribute.KeyValue) option {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.labels.with(key, extra...)
}

// labels are attributes with the options that are made of them once.
type labels struct {
	attrs []attribute.KeyValue
	made  map[string]option
}

// An option is one in the two forms that the API asks for, ready: to make one costs more
// than to record.
type option struct {
	observe []metric.ObserveOption
	record  []metric.RecordOption
}

// with returns the option of the attributes and extra, which key stands for.
func (l *labels) with(key string, extra ...attribute.KeyValue) option {
	if o, ok := l.made[key]; ok {
		return o
	}
	set := metric.WithAttributeSet(attribute.NewSet(slices.Concat(l.attrs, extra)...)) // NewSet sorts what it is given
	o := option{[]metric.ObserveOption{set}, []metric.RecordOption{set}}
	if l.made == nil {
		l.made = make(map[string]option)
	}
	if len(l.made) < most { // there is no end to types of errors
		l.made[key] = o
	}
	return o
}
