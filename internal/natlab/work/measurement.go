package work

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Status is what became of a bound.
type Status string

// Every Measurement has one of these.
const (
	OK      Status = "ok" // kept, or there is none
	Missed  Status = "missed"
	Skipped Status = "skipped" // nothing could be measured here
)

// A Reading is a measured value: a number, or more than it, where the measurement
// ended before what it waited for.
type Reading struct {
	Value float64
	More  bool
}

// Seconds returns d with three decimals.
func Seconds(d time.Duration) Reading {
	return Reading{Value: math.Round(d.Seconds()*1000) / 1000}
}

// MoreThan is what did not happen within d, of which it returns the whole seconds.
func MoreThan(d time.Duration) Reading {
	return Reading{Seconds(d.Truncate(time.Second)).Value, true}
}

// Number returns a count of something.
func Number(n int) Reading { return Reading{Value: float64(n)} }

// Ratio returns a to b, with three digits.
func Ratio(a, b float64) Reading {
	v, _ := strconv.ParseFloat(strconv.FormatFloat(a/b, 'g', 3, 64), 64)
	return Reading{Value: v}
}

// In is the reading as people read it.
func (v Reading) In(unit string) string {
	s := strings.TrimSpace(strconv.FormatFloat(v.Value, 'f', -1, 64) + " " + unit)
	if v.More {
		return "> " + s
	}
	return s
}

// A Measurement is one figure of an Act, as it is printed. Told makes one, its other methods
// say more of it.
type Measurement struct {
	Scenario  string   `json:"scenario"`       // the Act's name, by Report.Note
	Over      string   `json:"over,omitempty"` // what the connection or the client speaks
	Use       string   `json:"use,omitempty"`  // and what it is used for
	Figure    string   `json:"figure"`
	Unit      string   `json:"unit,omitempty"` // s or ms; of a number, none
	Ours      float64  `json:"ours_value"`
	OursMore  bool     `json:"ours_more,omitempty"` // more than that
	OursError string   `json:"ours_error,omitempty"`
	Peer      string   `json:"peer,omitempty"` // none: there is nothing to compare with
	Peers     *float64 `json:"peer_value,omitempty"`
	PeerMore  bool     `json:"peer_more,omitempty"`
	PeerError string   `json:"peer_error,omitempty"`
	Ratio     float64  `json:"ratio,omitempty"` // ours to the peer's, where both are known
	Bound     *float64 `json:"bound,omitempty"` // ours is at most that; nil: it is only told
	Status    Status   `json:"status"`
	Why       string   `json:"why,omitempty"` // it was skipped, or missed although ours is within the bound
}

// Told makes a Measurement of which nothing is asked.
func Told(figure, unit string, ours Reading) Measurement {
	return Measurement{Figure: figure, Unit: unit, Ours: ours.Value, OursMore: ours.More, Status: OK}
}

// AtMost bounds what was told.
func (m Measurement) AtMost(bound float64) Measurement {
	m.Bound = &bound
	if m.OursMore || m.Ours > bound {
		m.Status = Missed
	}
	return m
}

// At says what was measured at.
func (m Measurement) At(over, use string) Measurement {
	m.Over, m.Use = over, use
	return m
}

// Beside adds the figure of a peer in the same run.
func (m Measurement) Beside(peer string, value Reading) Measurement {
	m.Peer, m.Peers, m.PeerMore = peer, &value.Value, value.More
	if !m.OursMore && !value.More && value.Value != 0 {
		m.Ratio = Ratio(m.Ours, value.Value).Value
	}
	return m
}

// Said adds what the errors were; nil: there was none.
func (m Measurement) Said(ours, peer error) Measurement {
	m.OursError, m.PeerError = text(ours), text(peer)
	return m
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Miss notes what was not as it has to be, whatever the bound says.
func (m *Measurement) Miss(format string, args ...any) {
	m.Status = Missed
	if m.Why != "" {
		m.Why += "; "
	}
	m.Why += fmt.Sprintf(format, args...)
}

// where is what it was measured at, for people.
func (m Measurement) where() string { return strings.TrimSpace(m.Over + " " + m.Use) }

// ours is our figure for people.
func (m Measurement) ours() string {
	if m.Status == Skipped {
		return "-"
	}
	return Reading{m.Ours, m.OursMore}.In(m.Unit)
}

// peer is the peer's figure for people, in a column whose title is a peer's name.
func (m Measurement) peer(title string) string {
	if m.Peers == nil {
		return "-"
	}
	s := Reading{*m.Peers, m.PeerMore}.In(m.Unit)
	if m.Peer != title {
		s += " (" + m.Peer + ")"
	}
	return s
}

// bound is the bound for people.
func (m Measurement) bound() string {
	if m.Bound == nil {
		return "-"
	}
	return Reading{Value: *m.Bound}.In(m.Unit)
}
