package dialer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
	"weak"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// Telemetry is for natwise's own pools and pages, who count there what a ledger cannot see.
// Nobody else can name its type.
func (l *Ledger) Telemetry() *telemetry.Scope {
	l.init() // whatever is wrong with Path
	return l.scope
}

// Telemetry is that of the dialer's ledger.
func (d *Dialer) Telemetry() *telemetry.Scope { return d.ledger().Telemetry() }

// snapshots returns what OpenTelemetry's callback looks at the ledger by.
func snapshots(of weak.Pointer[Ledger]) func() telemetry.Snapshot {
	return func() telemetry.Snapshot {
		if l := of.Value(); l != nil && l.Used() {
			return l.snapshot()
		}
		return telemetry.Snapshot{}
	}
}

func (l *Ledger) snapshot() telemetry.Snapshot {
	s := telemetry.Snapshot{
		Twice:  l.path.Limit(netpath.SourceDestination) != netpath.None && l.path.Limit(netpath.Destination) != netpath.None,
		Reused: make(map[*telemetry.Peer]uint64), Waiting: make(map[string]int),
	}
	for _, a := range l.booked() {
		if a.Key.Scope() == netpath.Sockets {
			continue // they are no ports
		}
		for _, r := range l.sharedOf(a.Key) { // what is lent to others is no room of ours
			if a.Limit == netpath.None || r.Held+r.Room < a.Limit {
				a.Limit = r.Held + r.Room
			}
		}
		t := telemetry.Account{
			Source: a.Key.Source, Peer: a.Key.Dest, Limit: a.Limit, Waiting: a.Waiting,
			Active: a.Active, Idle: a.Idle, Dialing: a.Asked + a.Dialing, Cooling: a.Closing,
		}
		for _, n := range a.Cooling {
			t.Cooling += n
		}
		s.Accounts = append(s.Accounts, t)
	}
	s.Engines = l.engines()
	l.mu.Lock()
	defer l.mu.Unlock()
	counted := make(map[*waiter]bool)
	for _, a := range l.accounts {
		for f := a.live.head; f != nil; f = f.next {
			if k := f.keeper; k != nil {
				s.Reused[k.peer] += k.reused()
			}
		}
		for _, w := range l.waitersLocked(a) {
			if w.itself && !counted[w] {
				counted[w] = true
				s.Waiting[w.address]++
			}
		}
	}
	return s
}

// shared is how all accounts together stand with the Budget; nil where nobody shares it.
func (l *Ledger) shared() []budget.Report {
	if e, ok := l.Budget.(budget.Engine); ok {
		return e.Reports(netpath.Key{})
	}
	return nil
}

// sharedOf is how one account does, if it is one that the Budget is asked for: that of the
// destination, of all sources together where the path counts those.
func (l *Ledger) sharedOf(key netpath.Key) []budget.Report {
	e, ok := l.Budget.(budget.Engine)
	scope := key.Scope()
	if ok && (scope == netpath.Destination || scope == netpath.SourceDestination && l.path.Limit(netpath.Destination) == netpath.None) {
		return e.Reports(key)
	}
	return nil
}

// engines are those that the Budget is shared by, as telemetry has them.
func (l *Ledger) engines() (engines []telemetry.Engine) {
	named := map[string]int{}
	for _, r := range l.shared() {
		name := r.Engine
		if named[name]++; named[name] > 1 { // of another gateway
			name = fmt.Sprintf("%s %d", name, named[name])
		}
		engines = append(engines, telemetry.Engine{
			Name: name, Sharers: r.Sharers, Floor: r.Floor, Leased: r.Leased, Quarantined: r.Quarantined,
			Age: r.Age, Degraded: r.Degraded, Renewals: r.Renewals, Failures: r.Failures,
		})
	}
	return engines
}

// tellEngines tells how the Budget stands, which has signalled.
func (l *Ledger) tellEngines() { l.scope.Engines(l.engines()) }

// tellTaken tells what came of wanting a port.
func (l *Ledger) tellTaken(ctx context.Context, r request, f *flow, at int, w *waiter, began time.Time, err error) {
	if c := r.candidates[at]; err == nil && len(c.owes) > 0 {
		l.scope.Taken(c.dst, w != nil)
	}
	if w != nil && r.itself {
		took := time.Since(began)
		l.scope.Name(r.address).Waited(ctx, took, err)
		l.scope.Wait(ctx, "", r.address, w.ahead, took, err)
		l.tellRefused(r.address, err)
	}
	if err == nil && f.pressed && l.scope.Due("budget", r.address) {
		a := l.fullest(r.candidates[at])
		l.scope.Warn("budget", r.address, "four fifths of the ports to one destination are taken", "address", r.address, "account", a.String())
	}
}

// Refused is called by a pool whose request for a connection to address got none: if it was
// for want of a port, that is counted and warned of. Nobody else knows, since the pool's own
// dial waits on, or is called off.
func (d *Dialer) Refused(address string, err error) { d.ledger().tellRefused(address, err) }

func (l *Ledger) tellRefused(address string, err error) {
	if err == nil {
		return // as almost always, and without the memory that As takes
	}
	var refused *BudgetError
	if !errors.As(err, &refused) {
		return
	}
	l.scope.Rejected(refused.at.dst)
	if !refused.full { // else with better evidence
		l.diagnose(refused.at, refused.host, Exhausted, refused.Account.String())
	}
	address = cmp.Or(refused.host, address)
	l.scope.Warn("refused", address, "no port came free in time", "address", address, "account", refused.Account.String())
}

// fullest returns the account that a flow to c has the least room in.
func (l *Ledger) fullest(c candidate) (fullest Account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := unlimited
	for _, k := range c.owes {
		if a := l.accounts[k]; a != nil && a.left() < left {
			left, fullest = a.left(), l.snapshotLocked(time.Now(), a)
		}
	}
	return fullest
}

// tellVerdict notes what a failed dial means, and warns of what its caller can do little about.
func (l *Ledger) tellVerdict(p place, address string, v Verdict, evidence string) {
	l.diagnose(p, address, v, evidence)
	switch v {
	case Exhausted, Hairpin, PathDown, LocalPorts:
		l.scope.Warn(v.String(), address, "a dial failed, and it is known why",
			"address", address, "remote", p.dst, "verdict", v.String(), "evidence", evidence)
	}
}

func (k *keeper) reused() uint64 {
	if n := k.uses.Load(); n > 1 {
		return n - 1
	}
	return 0
}

// tellEnded tells that the connection is closed, and warns of what should not have been.
func (k *keeper) tellEnded(e Event) {
	scope := k.dialer.ledger().scope
	defer scope.Closed(k.peer, k.why(e), k.reused()) // last: from then on the peer may make way for another
	if e.Ending.How == keepalive.TimedOut {
		var silence time.Duration
		if why := blackhole(e.Err); why != nil {
			silence = why.Silence
		}
		scope.Blackhole(k.peer, k.target.address, silence)
		scope.Warn("blackhole", k.way.dst.String(), "a connection was found dead, its packets vanish",
			"address", k.target.address, "remote", k.way.dst, "local", k.local, "silence", silence)
	}
	if e.Ending.Lost {
		scope.Warn("leak", k.way.dst.String(), "a connection was dropped without Close", "address", k.target.address, "remote", k.way.dst, "local", k.local)
	}
}

// why is the reason for which the connection has ended, as telemetry names it.
func (k *keeper) why(e Event) string {
	switch {
	case e.Ending.Lost:
		return "lost"
	case e.Ending.How == keepalive.TimedOut:
		return "blackhole"
	case e.Ending.How == keepalive.RSTByPeer:
		return "peer_rst"
	case e.Ending.How == keepalive.FINByPeer:
		return "peer_fin"
	case e.Retired:
		return "reclaimed"
	}
	if reason := k.reason.Load(); reason != nil {
		return *reason
	}
	return "closed"
}

// Serve notes that an exchange begins on the connection, for ctx, which was idle since then, or
// was not: for those who look (Flow), and the span in ctx. A pool calls it.
func (c *Conn) Serve(ctx context.Context, since time.Time) {
	reused := c.keeper.uses.Add(1) > 1
	if !reused {
		since = time.Time{} // it was idle for nobody
	}
	telemetry.Used(ctx, c.keeper.target.setup, reused, since)
}

// Share notes that one exchange more (1) is under way on a connection that carries several,
// or one less (-1). Of others it is known: they are active.
func (c *Conn) Share(n int32) { c.keeper.serves.Add(n) }

// Because notes for what reason the connection is about to be closed, as telemetry is to
// name it: "idled". The first one counts.
func (c *Conn) Because(reason string) { c.keeper.reason.CompareAndSwap(nil, &reason) }
