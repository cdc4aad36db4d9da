package budget

import (
	"slices"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// All returns a Budget to which every one of bs must agree. They are asked in
// order, and what the first ones granted is given back at once if a later one
// refuses, so that nothing is held while another is waited for. All of nothing
// allows everything.
func All(bs ...Budget) Budget { return all(slices.Clone(bs)) }

type all []Budget

var _ Engine = all(nil)

func (a all) Take(key netpath.Key) (Grant, bool) {
	grants := make(grants, 0, len(a))
	for _, b := range a {
		g, ok := b.Take(key)
		if !ok {
			grants.Release()
			return nil, false
		}
		grants = append(grants, g)
	}
	return grants, true
}

func (a all) Notify(c chan<- struct{}) {
	for _, b := range a {
		b.Notify(c)
	}
}

func (a all) Reports(key netpath.Key) (reports []Report) {
	for _, b := range a {
		if e, ok := b.(Engine); ok {
			reports = append(reports, e.Reports(key)...)
		}
	}
	return reports
}

func (a all) SetHold(d time.Duration) {
	for _, b := range a {
		if e, ok := b.(Engine); ok {
			e.SetHold(d)
		}
	}
}

// grants are released together; each of them counts only its first Release.
type grants []Grant

func (gs grants) Release() {
	for _, g := range gs {
		g.Release()
	}
}

// Each is asked: what one of them wants back, and gets, another need not ask others for.
func (gs grants) Revoked() (revoked bool) {
	for _, g := range gs {
		revoked = g.Revoked() || revoked
	}
	return revoked
}
