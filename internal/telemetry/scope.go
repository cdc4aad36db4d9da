// Package telemetry is where OpenTelemetry has its name: it exports what a ledger and the
// pools above it know, draws the spans of waits and of connections that come to be, and
// warns.
//
// Rooms count for themselves, or in a Scope, by numbers of their own. Instruments are
// observed by one callback from snapshots; only what is rare, such as a dial, is recorded
// when it happens. So that nothing is paid per request where nobody listens, and next to
// nothing where somebody does.
package telemetry

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
	"weak"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const library = "github.com/natwise/natwise"

// version is natwise's in this program; "": that does not say, as a test does not.
var version = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return versionIn(info)
})

func versionIn(program *debug.BuildInfo) string {
	for _, m := range append([]*debug.Module{&program.Main}, program.Deps...) {
		if m.Path == library {
			return m.Version
		}
	}
	return ""
}

// A Config says whom a Scope asks and tells.
type Config struct {
	Name           string               // tells this ledger from others; "": there is no other
	MeterProvider  metric.MeterProvider // nil: the global one
	TracerProvider trace.TracerProvider // nil: the global one
	Logger         *slog.Logger         // nil: nobody is told

	// Snapshot returns what the ledger holds now. It must not keep the ledger alive.
	Snapshot func() Snapshot
}

// A Snapshot is what a ledger holds at one moment.
type Snapshot struct {
	Accounts []Account
	Twice    bool             // flows from a source are in its account, and in that of all sources
	Reused   map[*Peer]uint64 // uses beyond the first, by connections that live
	Waiting  map[string]int   // dials that wait on nobody's behalf, by host:port
	Engines  []Engine         // that its budget is shared by
}

// An Account is one of a ledger's, with the ports that it holds.
type Account struct {
	Source                         netip.Addr     // zero: all of them together
	Peer                           netip.AddrPort // zero: all destinations together
	Limit                          int            // that may be held now; negative: none
	Active, Idle, Dialing, Cooling int
	Waiting                        int // dials that wait for one
}

func (a Account) taken() int { return a.Active + a.Idle + a.Dialing + a.Cooling }

// room is how many ports may be taken yet.
func (a Account) room() int {
	if a.Limit < 0 {
		return math.MaxInt
	}
	return a.Limit - a.taken()
}

// with returns both together, where dials that wait do so for either.
func (a Account) with(b Account) Account {
	if a.Limit < 0 || b.Limit < 0 {
		a.Limit = -1
	} else {
		a.Limit += b.Limit
	}
	a.Active += b.Active
	a.Idle += b.Idle
	a.Dialing += b.Dialing
	a.Cooling += b.Cooling
	a.Waiting = max(a.Waiting, b.Waiting)
	return a
}

// A Scope is the telemetry of one ledger. New makes one; it needs no Close, and its
// instruments are given up when the garbage collector finds it. It may be used by many
// goroutines.
type Scope struct {
	cfg    Config
	tracer trace.Tracer
	told   instruments

	named   sync.Once
	engines string // guarded by named

	telling sync.Mutex // by one collection at a time; never held while mu is, or the other way round

	mu        sync.Mutex // guards the fields below; never held while the ledger, a pool or an instrument is called
	peers     map[netip.AddrPort]*Peer
	evicted   map[netip.AddrPort]*Peer // since the last collection
	collected bool                     // there was one
	otherPeer *Peer
	names     map[string]*Name
	otherName *Name
	pools     []*member
	pruneAt   int // how many of them there are to be before those that are gone are forgotten
	unnamed   *Database
	journal   journal
	degraded  map[string]time.Time // engines of which that was told last, and since when
}

// New returns a Scope. Providers that are set later, by otel.SetMeterProvider, have
// everything from then on.
func New(cfg Config) *Scope {
	s := &Scope{cfg: cfg, peers: make(map[netip.AddrPort]*Peer), evicted: make(map[netip.AddrPort]*Peer), names: make(map[string]*Name)}
	s.otherPeer = newPeer(attribute.String(string(semconv.NetworkPeerAddressKey), other))
	s.tracer, s.told = tracenoop.Tracer{}, newInstruments(metricnoop.Meter{})
	s.otherName = newName(&s.told, other)
	s.unnamed = s.database(other)
	s.connect() // last: from then on somebody may collect
	return s
}

// connect begins to tell the providers. One that panics, such as a nil pointer, is told nothing.
func (s *Scope) connect() {
	defer func() {
		if v := recover(); v != nil {
			otel.Handle(fmt.Errorf("natwise: a provider of OpenTelemetry's has panicked: %v", v))
		}
	}()
	cfg := s.cfg
	tracers, meters := cfg.TracerProvider, cfg.MeterProvider
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	s.tracer = tracers.Tracer(library, trace.WithInstrumentationVersion(version()), trace.WithSchemaURL(semconv.SchemaURL))
	options := []metric.MeterOption{metric.WithInstrumentationVersion(version()), metric.WithSchemaURL(semconv.SchemaURL)}
	if cfg.Name != "" {
		options = append(options, metric.WithInstrumentationAttributes(attribute.String("natwise.ledger.name", cfg.Name)))
	}
	meter := meters.Meter(library, options...)
	s.told = newInstruments(meter)
	registered, err := meter.RegisterCallback(observer(weak.Make(s)), s.told.observed()...)
	if err != nil {
		otel.Handle(err)
		return
	}
	runtime.AddCleanup(s, func(r metric.Registration) { r.Unregister() }, registered)
}

// Join has of asked for its pools at each collection, for as long as it lives and says so:
// it is not kept alive.
func Join[T any](s *Scope, of *T, pools func(of *T) (pools []Pool, alive bool)) {
	joined := weak.Make(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pools) >= s.pruneAt { // nobody collects, or they come and go
		s.pools = slices.DeleteFunc(s.pools, func(m *member) bool { return m.gone() })
		s.pruneAt = 2*len(s.pools) + 16
	}
	s.pools = append(s.pools, &member{
		ask: func() ([]Pool, bool) {
			if of := joined.Value(); of != nil {
				return pools(of)
			}
			return nil, false
		},
		gone: func() bool { return joined.Value() == nil },
	})
}

// Pools returns what the pools above the ledger hold now.
func (s *Scope) Pools() (all []Pool) {
	s.mu.Lock()
	asked := slices.Clone(s.pools)
	s.mu.Unlock()
	for _, m := range asked {
		pools, alive := m.ask()
		if !alive {
			s.mu.Lock()
			s.pools = slices.DeleteFunc(s.pools, func(other *member) bool { return other == m })
			s.mu.Unlock()
		}
		all = append(all, pools...)
	}
	return all
}

// A member is somebody who has joined.
type member struct {
	ask  func() (pools []Pool, alive bool)
	gone func() bool
}

// A Pool is what a pool of connections, or one for each address, holds at one moment.
type Pool struct {
	Kind    string // "http", "sql" or "conns"
	Name    string // as people know it: a URL without path, the name of a database's pool
	Address string // host:port that it dials; "" where nobody knows yet
	Scheme  string // http: of the requests

	Idle, Active int // connections
	Requests     int // that have one; more than connections where these are shared
	Waiting      int // requests
	OldestWait   time.Duration

	DB *DB // for a database's
}

// DB is what the conventions ask of a database's pool besides.
type DB struct {
	Max, MinIdle int // zero: no such bound
	Timeouts     uint64
}
