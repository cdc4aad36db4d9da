package debug

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A state is what the page and its twins show, at one moment.
type state struct {
	At           int64     `json:"at_ms"`
	Process      string    `json:"process"`
	Version      string    `json:"version"`         // the program's
	Natwise      string    `json:"natwise_version"` // this library's
	Ledger       string    `json:"ledger"`
	Path         way       `json:"path"`
	Problem      string    `json:"problem,omitempty"` // why the ledger refuses every dial
	Shadow       bool      `json:"shadow"`
	Exceeded     uint64    `json:"would_have_waited"` // dials, in shadow
	Shared       []shared  `json:"shared"`            // all accounts together, by engine; empty: the budget is this process's own
	Fullest      *fullest  `json:"fullest"`           // null: there is no limit
	Ports        ports     `json:"ports"`             // all of them
	Waiting      int       `json:"waiting"`
	OldestWait   seconds   `json:"oldest_wait_seconds"`
	Blackholes   uint64    `json:"blackholes"`
	Troubles     []trouble `json:"troubles"`     // of destinations that have no row, the last first
	Destinations []row     `json:"destinations"` // the fullest first
	Events       []event   `json:"events"`       // the latest last
	History      history   `json:"history"`      // of all destinations together
}

// A way is the path, as its profile has it.
type way struct {
	Name   string  `json:"name"`
	Grade  string  `json:"grade"`
	Source string  `json:"source"`
	Idle   seconds `json:"idle_seconds"` // until it forgets
}

type fullest struct {
	Destination string  `json:"destination"`
	Utilization float64 `json:"utilization"`
}

// An event is something that somebody was warned of.
type event struct {
	At    int64  `json:"at_ms"`
	Kind  string `json:"kind"`
	About string `json:"about"`
	Text  string `json:"text"`
	Times int    `json:"times"`
}

// seconds are a duration, which may be netpath.None.
type seconds time.Duration

// MarshalJSON rounds to what somebody may want to know.
func (s seconds) MarshalJSON() ([]byte, error) {
	if s == netpath.None {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, time.Duration(s).Round(time.Microsecond).Seconds(), 'f', -1, 64), nil
}

var _ json.Marshaler = seconds(0)

// A count may be netpath.None.
type count int

// MarshalJSON says null for what there is not.
func (c count) MarshalJSON() ([]byte, error) {
	if c == netpath.None {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(c), 10), nil
}

// tell says what was seen.
func (s *sight) tell(rates rates) state {
	t := state{
		At: s.at.UnixMilli(), Process: process(), Ledger: s.ledger.Name, Path: wayOf(s.ledger.Path), Shadow: s.ledger.Shadow,
		Shared: sharedOf(s.shared), Ports: ports{Limit: netpath.None}, Destinations: s.rows(rates), Events: []event{},
	}
	t.Troubles = s.diagnosed(t.Destinations)
	t.Version, t.Natwise = versions()
	if err := s.ledger.Path.Validate(); err != nil {
		t.Problem = err.Error()
	}
	t.addUp()
	t.Waiting, t.OldestWait = s.waiting.all()
	for _, c := range s.counts {
		t.Blackholes += c.Blackholes
	}
	for _, r := range s.records {
		t.Events = append(t.Events, event{r.At.UnixMilli(), r.Kind, r.About, meaningOf(r.Kind, r.Text), r.Times})
	}
	return t
}

// addUp says of all destinations what there is to say.
func (t *state) addUp() {
	limits, limited, everywhere := count(0), true, count(netpath.None)
	var exceeded [netpath.Sockets + 1]uint64
	for _, r := range t.Destinations {
		exceeded[r.scope] += r.Exceeded
		switch r.scope {
		case netpath.Destination, netpath.SourceDestination:
			t.Ports.add(r.Ports)
			limits += r.Ports.Limit
			limited = limited && r.Ports.Limit != netpath.None
		case netpath.AllPorts:
			everywhere = r.Ports.Limit
		}
	}
	t.Exceeded = slices.Max(exceeded[:]) // one dial may exceed an account of each scope
	switch {
	case everywhere != netpath.None:
		t.Ports.Limit = everywhere
	case limited && limits > 0:
		t.Ports.Limit = limits
	}
	t.Ports.settle()
	if len(t.Destinations) > 0 && t.Destinations[0].Ports.Limit != netpath.None {
		t.Fullest = &fullest{t.Destinations[0].Destination, t.Destinations[0].Ports.utilization()}
	}
}

func wayOf(p netpath.Profile) way {
	w := way{Name: p.Name, Source: p.Source, Grade: p.Grade.String(), Idle: seconds(p.Effective().Idle)}
	if w.Name == "" {
		unknown := netpath.Unknown()
		w.Name, w.Source, w.Grade = unknown.Name, unknown.Source, unknown.Grade.String()
	}
	return w
}

func process() string { return strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") }

// versions are the program's and that of this library in it.
var versions = sync.OnceValues(func() (program, library string) {
	const module = "github.com/natwise/natwise"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	at := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == module })
	if at < 0 {
		return info.Main.Version, info.Main.Version // one of its own examples
	}
	m := info.Deps[at]
	if m.Replace != nil {
		m = m.Replace
	}
	return info.Main.Version, m.Version
})
