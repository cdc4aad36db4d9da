package telemetry

import (
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// An Engine is how a budget stands that is shared with other processes, all its accounts
// together.
type Engine struct {
	Name    string // "host" or "redis"
	Sharers int    // this process included

	// Ports that this process may hold without asking, that it was lent beyond those, and that
	// processes have left behind which are gone: everybody who shares says the same of the last.
	Floor, Leased, Quarantined int

	Age                time.Duration // of what Leased rests on; zero: there is no server to ask
	Degraded           string        // why there is no more than Floor; "": it is not so
	Renewals, Failures uint64        // answers that came, and calls that failed
}

const engineKey = attribute.Key("natwise.budget.engine")

// engineNames are those of the ledger's engines: "host", or "host,redis". They are the same for
// as long as there is a ledger.
func (s *Scope) engineNames() string {
	s.named.Do(func() {
		var names []string
		for _, e := range s.cfg.Snapshot().Engines {
			names = append(names, e.Name)
		}
		s.engines = strings.Join(names, ",")
	})
	return s.engines
}

// observeEngines tells of each engine as a whole: of each destination it would be as many
// series as of ports, and say little more.
func (s *Scope) observeEngines(o metric.Observer, engines []Engine) {
	for _, e := range engines {
		l := &labels{attrs: []attribute.KeyValue{engineKey.String(e.Name)}}
		with := l.with("").observe
		for _, state := range []struct {
			name string
			n    int
		}{{"floor", e.Floor}, {"leased", e.Leased}, {"quarantined", e.Quarantined}} {
			o.ObserveInt64(s.told.leases, int64(state.n), l.with("state "+state.name, attribute.String("natwise.budget.lease.state", state.name)).observe...)
		}
		for _, outcome := range []struct {
			name string
			n    uint64
		}{{"ok", e.Renewals}, {"failed", e.Failures}} {
			o.ObserveInt64(s.told.renewals, int64(outcome.n), l.with("outcome "+outcome.name, attribute.String("natwise.budget.lease.outcome", outcome.name)).observe...)
		}
		if e.Age > 0 {
			o.ObserveFloat64(s.told.leaseAge, e.Age.Seconds(), with...)
		}
		degraded := int64(0)
		if e.Degraded != "" {
			degraded = 1
		}
		o.ObserveInt64(s.told.degraded, degraded, with...)
		o.ObserveFloat64(s.told.sharers, float64(e.Sharers), with...)
	}
}

// Engines warns of engines that are degraded, at most once a minute of each, and says so when one
// is no more. It is to be called whenever a budget has signalled.
func (s *Scope) Engines(now []Engine) {
	for _, e := range now {
		if e.Degraded == "" {
			s.recovered(e)
			continue
		}
		told := s.Warn("degraded", e.Name, "the budget that is shared with others is degraded",
			"engine", e.Name, "why", e.Degraded, "floor", e.Floor, "leased", e.Leased)
		if told {
			s.mark(e.Name)
		}
	}
}

// mark notes that somebody was told that an engine is degraded, and is to be told when it is no
// more.
func (s *Scope) mark(engine string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.degraded[engine]; known {
		return
	}
	if s.degraded == nil {
		s.degraded = make(map[string]time.Time)
	}
	s.degraded[engine] = time.Now()
}

// recovered tells that an engine is as it should be, if it was told otherwise last.
func (s *Scope) recovered(e Engine) {
	const text = "the budget that is shared with others is as it should be again"
	s.mu.Lock()
	now := time.Now()
	since, told := s.degraded[e.Name]
	if told {
		delete(s.degraded, e.Name)
		s.journal.keep(Record{At: now, Kind: "recovered", About: e.Name, Text: text, Times: 1})
	}
	s.mu.Unlock()
	if told {
		s.say(slog.LevelInfo, 1, text, "engine", e.Name, "after", now.Sub(since).Round(time.Millisecond), "floor", e.Floor, "leased", e.Leased)
	}
}
