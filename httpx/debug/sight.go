package debug

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A sight is all that was seen in one look at a ledger. The parts were seen one after the
// other: what a row says of ports comes from flows alone, so that it adds up.
type sight struct {
	at      time.Time
	ledger  *dialer.Ledger
	learner *keepalive.Learner // nil: the ledger's own

	shared    []budget.Report // of the ledger's budget; nil: nobody shares it
	accounts  []dialer.Account
	flows     []dialer.Flow
	diagnoses []dialer.Diagnosis
	counts    map[netip.AddrPort]telemetry.Counts
	recent    map[string]telemetry.Waits // by name
	records   []telemetry.Record

	groups  map[netpath.Key]*group
	waiting waiting

	state state // what is told of it
}

// look looks.
func look(l *dialer.Ledger, learner *keepalive.Learner) *sight {
	if !l.Used() { // to ask it more would be the beginning of its use
		return &sight{ledger: l, learner: learner, shared: reportsOf(l), at: time.Now(), waiting: newWaiting(nil, nil)}
	}
	told := l.Telemetry()
	s := &sight{
		ledger: l, learner: learner, shared: reportsOf(l), accounts: l.Accounts(), flows: l.Flows(), diagnoses: l.Diagnoses(), at: time.Now(),
		counts: told.Counts(), recent: told.Waits(), records: told.Records(),
	}
	s.group()
	s.waiting = newWaiting(l.Waits(), told.Pools())
	for key, names := range s.waiting.names {
		if g := s.groups[key]; g != nil {
			for name := range names {
				g.names[name] = true
			}
		}
	}
	return s
}

// A group is what the flows of one account come to.
type group struct {
	ports
	forecast
	names  map[string]bool
	kinds  kinds
	reused uint64 // uses beyond the first
}

// group sorts the flows into accounts, as Profile.Keys does.
func (s *sight) group() {
	var wanted [netpath.Sockets + 1]bool
	s.groups = make(map[netpath.Key]*group, len(s.accounts))
	for _, a := range s.accounts {
		wanted[a.Key.Scope()] = true
		s.groups[a.Key] = &group{names: make(map[string]bool), kinds: make(kinds)}
	}
	const tcp = "tcp"
	for i := range s.flows {
		f := &s.flows[i]
		if wanted[netpath.Destination] {
			s.count(f, netpath.Key{Dest: f.Remote, Network: tcp})
		}
		if wanted[netpath.SourceDestination] {
			s.count(f, netpath.Key{Source: f.Local.Addr().Unmap(), Dest: f.Remote, Network: tcp})
		}
		if wanted[netpath.AllPorts] {
			s.count(f, netpath.Key{Network: tcp})
		}
		if wanted[netpath.Sockets] && f.State != dialer.Cooling {
			s.count(f, netpath.Key{})
		}
	}
}

// count counts f in an account. One that was opened after the accounts were looked at has to
// wait for the next look.
func (s *sight) count(f *dialer.Flow, key netpath.Key) {
	g := s.groups[key]
	if g == nil {
		return
	}
	g.count(f.State)
	if f.State == dialer.Cooling {
		g.comes(f.Free)
		g.kinds[f.How.String()]++
	}
	if f.Uses > 1 {
		g.reused += f.Uses - 1
	}
	g.names[f.Host] = true
}

// A waiting is who waits for a port, or in a pool for a connection.
type waiting struct {
	pools map[string]crowd                 // requests, by the address that their pool dials
	owned map[string]crowd                 // dials, by address: most of them by those pools
	alone map[string]crowd                 // dials on nobody's behalf
	names map[netpath.Key]map[string]crowd // addresses, by the account that their dials wait for
}

// A crowd is how many wait, and for how long the first of them.
type crowd struct {
	n      int
	oldest time.Duration
}

func (c crowd) with(d crowd) crowd { return crowd{c.n + d.n, max(c.oldest, d.oldest)} }

func newWaiting(waits []dialer.Wait, pools []telemetry.Pool) waiting {
	w := waiting{make(map[string]crowd), make(map[string]crowd), make(map[string]crowd), make(map[netpath.Key]map[string]crowd)}
	for _, p := range pools {
		if p.Waiting > 0 {
			w.pools[p.Address] = w.pools[p.Address].with(crowd{p.Waiting, p.OldestWait})
		}
	}
	for _, d := range waits {
		one := crowd{1, d.For}
		by := w.alone
		if d.Owned {
			by = w.owned
		}
		by[d.Host] = by[d.Host].with(one)
		for _, key := range d.Keys {
			if w.names[key] == nil {
				w.names[key] = make(map[string]crowd)
			}
			w.names[key][d.Host] = w.names[key][d.Host].with(one)
		}
	}
	return w
}

// of is who waits for a name. A pool dials for those who wait in it, so that these count
// once; an owner that is none of natwise's pools tells of nobody.
func (w waiting) of(name string) crowd {
	in := w.pools[name]
	if in.n == 0 { // a pool's own dial waits for as long as it is needed by anybody
		in = w.owned[name]
	}
	return in.with(w.alone[name])
}

// all is everybody.
func (w waiting) all() (n int, oldest seconds) {
	names := make(map[string]bool)
	for _, by := range []map[string]crowd{w.pools, w.owned, w.alone} {
		for name := range by {
			names[name] = true
		}
	}
	var everybody crowd
	for name := range names {
		everybody = everybody.with(w.of(name))
	}
	return everybody.n, seconds(everybody.oldest)
}

// at is who waits for one of names: several rows may show the same, which takes the first
// port that comes free in any of them.
func (w waiting) at(names map[string]bool) (c crowd) {
	for name := range names {
		c = c.with(w.of(name))
	}
	return c
}

// slowest is the wait of the name, of those, that had to wait longest.
func (s *sight) slowest(names map[string]bool) (p50, p99 *seconds) {
	var worst telemetry.Waits
	for name := range names {
		if w := s.recent[name]; w.Count > 0 && (worst.Count == 0 || cmp.Or(cmp.Compare(w.P99, worst.P99), cmp.Compare(w.P50, worst.P50)) > 0) {
			worst = w
		}
	}
	if worst.Count == 0 {
		return nil, nil
	}
	return some(worst.P50), some(worst.P99)
}

func some(d time.Duration) *seconds { return (*seconds)(&d) }
