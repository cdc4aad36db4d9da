package debug

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A row is what is told of one account.
type row struct {
	Destination string   `json:"destination"` // "20.1.2.3:443", "all destinations"
	Scope       string   `json:"scope"`       // what the account counts: destination, source, ports or sockets
	Names       []string `json:"names"`       // that were asked for, at most 16
	MoreNames   int      `json:"more_names"`

	Ports       ports    `json:"ports"`
	LimitFrom   *string  `json:"limit_grade"` // null: there is no limit
	Utilization *float64 `json:"utilization"` // null: there is no limit
	Cooling     kinds    `json:"cooling_by"`  // how they ended
	forecast

	Waiting    int      `json:"waiting"` // requests and dials, wherever they wait
	OldestWait seconds  `json:"oldest_wait_seconds"`
	Wait50     *seconds `json:"wait_p50_seconds"` // for a connection, the dial included, of the waits that ended within the last minute or two; null: none did
	Wait99     *seconds `json:"wait_p99_seconds"`
	Exceeded   uint64   `json:"would_have_waited"` // for a port, in shadow
	Kept       int      `json:"kept_back"`         // free ports that who waits does not get: for newcomers, or until more is known

	Rate   *float64 `json:"dials_per_second"` // over the last 10 s; null: not known yet
	Counts *counts  `json:"counts"`           // null: too many destinations to count each

	Idle     seconds `json:"idle_timeout_seconds"` // null: the path never forgets
	IdleFrom string  `json:"idle_timeout_grade"`

	// Trend is the most ports that were taken in each 5 s of the last 5 minutes, the
	// latest last. Empty beyond the 32 fullest destinations.
	Trend []int `json:"trend"`

	Trouble *trouble `json:"trouble"` // null: no dial fails, as far as is known

	key   netpath.Key
	scope netpath.Scope
}

// counts are since the first flow to a destination.
type counts struct {
	Opened        uint64   `json:"opened"`
	Failed        uint64   `json:"failed"`
	Waited        uint64   `json:"waited"`  // for a port, and got one
	Refused       uint64   `json:"refused"` // one
	Uses          *float64 `json:"uses_per_connection"`
	Blackholes    uint64   `json:"blackholes"`
	LastBlackhole *int64   `json:"last_blackhole_ms"`
}

// kinds count cooling ports by the ending of their flows.
type kinds map[string]int

const mostNames = 16 // of a row

// rows tells of each account, the fullest first.
func (s *sight) rows(r rates) []row {
	rows := make([]row, 0, len(s.accounts))
	every := s.everywhere()
	for _, a := range s.accounts {
		rows = append(rows, s.row(a, r, every))
	}
	slices.SortStableFunc(rows, fuller) // the ledger has them in the order of their keys
	return rows
}

// fuller puts the fullest first, and behind them what has no limit.
func fuller(a, b row) int {
	return cmp.Or(cmp.Compare(b.Ports.utilization(), a.Ports.utilization()), b.Ports.Taken-a.Ports.Taken)
}

func (s *sight) row(a dialer.Account, rates rates, every telemetry.Counts) row {
	g := s.groups[a.Key]
	r := row{
		key: a.Key, scope: a.Key.Scope(), Destination: title(a.Key), Scope: scopes[a.Key.Scope()], Names: []string{}, Ports: g.ports, Cooling: g.kinds, forecast: g.forecast,
		Idle: seconds(a.Forgets), IdleFrom: s.gradeOf(s.ledger.Path, a.Learned), Trend: []int{},
	}
	if s.ledger.Shadow {
		r.Exceeded = a.Exceeded
	}
	r.Kept = a.Kept
	r.Ports.Limit = count(a.Limit)
	if r.scope == netpath.SourceDestination {
		r.Ports.Dialing = a.Asked + a.Dialing // whose source the kernel has not chosen yet
	}
	r.Ports.settle()
	if a.Limit != netpath.None {
		u, from := r.Ports.utilization(), a.Grade.String()
		r.Utilization, r.LimitFrom = &u, &from
	}
	if s.learner != nil {
		r.Idle, r.IdleFrom = s.learned(a.Key)
	}
	waits := s.waiting.at(g.names)
	r.Waiting, r.OldestWait = waits.n, seconds(waits.oldest)
	r.Wait50, r.Wait99 = s.slowest(g.names)
	if a.Key.Dest.IsValid() {
		r.name(g.names)
		if c, ok := s.counts[a.Key.Dest]; ok {
			r.Counts = countsOf(c, g.reused)
			r.Rate = rates.of(a.Key.Dest)
		}
	} else {
		r.Counts = countsOf(every, g.reused)
		r.Rate = rates.of(netip.AddrPort{})
	}
	return r
}

// scopes are what accounts count.
var scopes = map[netpath.Scope]string{
	netpath.Destination: "destination", netpath.SourceDestination: "source", netpath.AllPorts: "ports", netpath.Sockets: "sockets",
}

// title is what people call an account.
func title(k netpath.Key) string {
	switch k.Scope() {
	case netpath.Destination:
		return k.Dest.String()
	case netpath.SourceDestination:
		return k.Dest.String() + " from " + k.Source.String()
	case netpath.AllPorts:
		return "all destinations"
	}
	return "open connections"
}

func (r *row) name(names map[string]bool) {
	r.Names = slices.Sorted(maps.Keys(names))
	if len(r.Names) > mostNames {
		r.MoreNames = len(r.Names) - mostNames
		r.Names = r.Names[:mostNames]
	}
}

// gradeOf says how the idle timeout of p is known.
func (s *sight) gradeOf(p netpath.Profile, learned bool) string {
	if learned {
		return netpath.Learned.String()
	}
	_, grade := p.Cite("Idle")
	return grade.String()
}

// learned is the idle timeout as the page's own Learner has it.
func (s *sight) learned(k netpath.Key) (idle seconds, grade string) {
	p := s.learner.Path(netpath.Key{Source: k.Source, Dest: k.Dest, Network: "tcp"}, s.ledger.Path)
	return seconds(p.Effective().Idle), s.gradeOf(p, false)
}

// everywhere adds the counts of all destinations.
func (s *sight) everywhere() (all telemetry.Counts) {
	for _, c := range s.counts {
		all.Add(c)
	}
	return all
}

// countsOf says what has become of flows, of which those that live were used again so often.
func countsOf(c telemetry.Counts, reused uint64) *counts {
	n := &counts{Opened: c.Opened, Failed: c.Failed, Waited: c.Waited, Refused: c.Rejected, Blackholes: c.Blackholes}
	if c.Opened > 0 {
		uses := rounded(float64(c.Opened+c.Reused+reused) / float64(c.Opened))
		n.Uses = &uses
	}
	if !c.LastBlackhole.IsZero() {
		last := c.LastBlackhole.UnixMilli()
		n.LastBlackhole = &last
	}
	return n
}

// rounded is x with the two decimals that anybody reads.
func rounded(x float64) float64 {
	return math.Round(x*100) / 100
}
