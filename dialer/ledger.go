package dialer

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Ledger books every flow of one egress, so that the NAT is never asked for a
// port that it does not have. It counts flows as the NAT does, by resolved
// address, and remembers for how long the NAT holds the port of a closed one.
// Dials that find no port wait in its queue.
//
// The zero Ledger is ready to use: it keeps accounts, and caps what it learns. Set its
// fields before the first dial, not after. It may be used by many goroutines
// and Dialers, must not be copied, and needs no Close.
type Ledger struct {
	// Path is what lies between this process and its destinations. The zero
	// Profile is netpath.Unknown.
	Path netpath.Profile

	// Budget, if not nil, must allow each flow too, besides the limits of Path:
	// one that is shared with other processes, for instance. It is asked for the flow's
	// account of its destination, not for those of all ports and sockets together.
	Budget budget.Budget

	// MaxWait is how long a dial waits for a port, if its context does not end
	// before. Zero: 30 s. Negative: as long as its context lasts.
	MaxWait time.Duration

	// Shadow keeps accounts and refuses nothing, for adopting natwise safely:
	// Account.Exceeded tells what would have waited.
	Shadow bool

	// Ramp is how long a fresh ledger takes to use its whole limit, where that
	// is 1,024 or less: the NAT may still hold the ports of the process that
	// was here before. It begins with half. Zero: the path's longest hold, or no
	// time at all if the Budget remembers what that process left. Negative: there
	// was no such process.
	Ramp time.Duration

	// MeterProvider and TracerProvider are where OpenTelemetry has metrics and spans from:
	// of this ledger's ports, and of all pools that have their connections from it. Nil: the
	// global one, which may be set later, and does nothing before.
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider

	// Logger is warned, at most once a minute of the same: four fifths of a limit are taken,
	// nobody got a port in time, a dial failed and it is known why, packets vanish, an old
	// socket of the far end answered first, a connection or a response body was dropped
	// without Close, or is out for long, a shared Budget is degraded. It is told, too, when
	// that Budget is as it should be again. Nil: nobody is.
	Logger *slog.Logger

	// Name tells this ledger from others in telemetry, where there are several: what those of
	// one name tell is taken for one ledger's.
	Name string

	detector keepalive.Detector // of connections whose packets vanish
	learner  keepalive.Learner  // of dialers that name no other

	crowds atomic.Int32 // accounts with waiters: len(crowded), without the lock
	host   *host        // a test's; nil: thisHost

	once      sync.Once
	used      atomic.Bool // init has been
	bad       error       // Path does not validate
	scope     *telemetry.Scope
	path      netpath.Profile
	told      chan struct{} // Budget's signal; nil without a Budget
	remembers bool          // Budget knows what earlier processes have left: no ramp
	limit     [maxKeys]int  // by scope

	mu       sync.Mutex // guards the fields below; never held while connecting, closing or calling back
	began    time.Time  // the first booking
	accounts map[netpath.Key]*account
	sources  map[netip.Addr]int       // those of open accounts, and how many have each
	widest   int                      // how many accounts there were since the map was made
	cool     [2 * hows]flowList       // one queue a kind of ending, in order of release
	crowded  map[*account]struct{}    // those with waiters
	failing  map[*account]struct{}    // those whose address fails
	taught   map[netpath.Key]struct{} // paths about which a connection is teaching
	asking   map[netpath.Key]struct{} // paths whose connections are asked whether they live
	troubles map[place]*trouble       // where dials hang or fail
	lessons  map[netpath.Key]*lesson  // limits that were learned

	remembered int // accounts that are, for what they have exceeded

	loss   lossRate // of SYNs
	sent   sentSYNs // to where there is trouble
	timer  *time.Timer
	wakeAt time.Time // when timer fires; zero: it is not set

	// The last ones that became free, so that asking in vain costs no memory.
	spareFlow    *flow
	spareAccount *account
	spareShare   *share

	// While connections hold grants of the Budget, one goroutine listens to it:
	// a grant may be revoked when nobody waits.
	revocable int
	deaf      chan struct{} // closed when none holds a grant any more
}

const hows = int(keepalive.Hows)

// DefaultLedger is shared by all Dialers that name no other: what it models,
// this process's part of the NAT, is one thing too.
var DefaultLedger = new(Ledger)

const (
	defaultMaxWait = 30 * time.Second

	// margin is added to each hold, for the way from here to the NAT and the
	// coarseness of timers on both sides. Measured by internal/natlab/fidelity:
	// enough for no undercount.
	margin = 20 * time.Millisecond

	rampLimit = 1024
	rampSteps = 32
)

// Used reports whether anything was dialed by the ledger: from then on its fields are not to be
// set any more.
func (l *Ledger) Used() bool { return l.used.Load() }

func (l *Ledger) init() error {
	l.once.Do(func() {
		defer l.used.Store(true)
		l.scope = telemetry.New(telemetry.Config{
			Name: l.Name, MeterProvider: l.MeterProvider, TracerProvider: l.TracerProvider, Logger: l.Logger,
			Snapshot: snapshots(weak.Make(l)),
		})
		if l.bad = l.Path.Validate(); l.bad != nil {
			return
		}
		l.path = l.Path.Effective()
		for s := range l.limit {
			l.limit[s] = l.path.Limit(netpath.Scope(s))
		}
		l.limit[netpath.Destination] = toDestination(l.path)
		l.accounts = make(map[netpath.Key]*account)
		l.sources = make(map[netip.Addr]int)
		l.crowded = make(map[*account]struct{})
		l.failing = make(map[*account]struct{})
		if l.Budget != nil {
			l.told = make(chan struct{}, 1)
			l.Budget.Notify(l.told)
		}
		if e, ok := l.Budget.(budget.Engine); ok {
			e.SetHold(l.longestHold())
			l.remembers = slices.ContainsFunc(e.Reports(netpath.Key{}), func(r budget.Report) bool { return r.Remembers })
		}
	})
	return l.bad
}

// toDestination is how many flows to one destination there may be. Where a NAT counts sources
// and nobody has named one (Dialer.Sources), it is one.
func toDestination(p netpath.Profile) int {
	if n := p.Limit(netpath.Destination); n != netpath.None {
		return n
	}
	return p.Limit(netpath.SourceDestination)
}

// owing returns copies of the candidates that know the accounts which a flow to
// them owes.
func (l *Ledger) owing(network string, candidates []candidate) []candidate {
	cs := slices.Clone(candidates)
	for i, c := range cs {
		cs[i].owes = l.path.Keys(nil, c.src, c.dst, network)
	}
	return cs
}

// reserve returns a flow for the first candidate that has room, and waits for
// one where none has: then w is who did.
func (l *Ledger) reserve(ctx context.Context, r request) (f *flow, at int, w *waiter, err error) {
	if err := l.init(); err != nil {
		return nil, 0, nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, 0, nil, err // done before it began: even where a port is free
	}
	l.mu.Lock()
	now := time.Now()
	l.expireLocked(now)
	if f, at := l.bookLocked(now, &r, true); f != nil {
		l.mu.Unlock()
		return f, at, nil, nil
	}
	w = l.enqueueLocked(now, r)
	for _, c := range w.claims { // those before it may wait for something else
		if c.account.waiting > 1 {
			l.pumpAccountLocked(now, c.account)
		}
	}
	var victims []victim
	for _, c := range w.claims {
		if c.share.claims.Len() == 1 {
			victims = l.reclaimLocked(now, c.account, victims)
		} else {
			l.lookSoonLocked(now, c.account)
		}
	}
	l.armLocked(now)
	l.mu.Unlock()
	l.retire(victims)
	f, at, err = l.wait(ctx, w)
	return f, at, w, err
}

// tryReserve books a flow for one candidate now or not at all, and only where a
// fifth of the ports is free: a race must not cost what somebody waits for.
func (l *Ledger) tryReserve(r request) *flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.expireLocked(now)
	for _, k := range r.candidates[0].owes {
		if a := l.accounts[k]; a != nil && a.limit != netpath.None && a.left()*5 < a.limit {
			return nil
		}
	}
	f, _ := l.bookLocked(now, &r, true)
	return f
}

var errMaxWait = errors.New("dialer: no port came free within Ledger.MaxWait")

func (l *Ledger) wait(ctx context.Context, w *waiter) (*flow, int, error) {
	var expired <-chan time.Time
	if d := l.MaxWait; d >= 0 && !w.patient {
		if d == 0 {
			d = defaultMaxWait
		}
		t := time.NewTimer(d - time.Since(w.since))
		defer t.Stop()
		expired = t.C
	}
	for {
		var why error
		select {
		case g := <-w.ready:
			return g.flow, g.at, g.err
		case <-l.told:
			l.recheck()
			l.tellEngines()
			continue
		case <-ctx.Done():
			why = context.Cause(ctx)
		case <-expired:
			why = errMaxWait
		}
		return l.giveUp(w, why)
	}
}

// giveUp takes w out of the queue. A grant that came meanwhile goes to the next, if whoever
// asked is gone.
func (l *Ledger) giveUp(w *waiter, why error) (*flow, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	select {
	case g := <-w.ready:
		switch {
		case g.flow == nil:
			return nil, 0, errors.Join(why, g.err)
		case why == errMaxWait:
			return g.flow, g.at, nil
		}
		l.dropLocked(now, g.flow)
		return nil, 0, why
	default:
	}
	defer l.dequeueLocked(w)
	if failed := l.failureLocked(w.request); failed != nil {
		return nil, 0, errors.Join(why, failed)
	}
	if !timeout(why) {
		return nil, 0, why // called off: nobody asks who holds the ports
	}
	return nil, 0, l.refusalLocked(now, w, why)
}

// refusalLocked says what stands most in the way of w.
func (l *Ledger) refusalLocked(now time.Time, w *waiter, why error) *BudgetError {
	a := l.fullestLocked(w)
	e := &BudgetError{Account: l.snapshotLocked(now, a), Err: why, host: w.address, full: w.full}
	for _, c := range w.candidates {
		if slices.Contains(c.owes, a.key) {
			e.at = c.place()
			break
		}
	}
	return e
}
