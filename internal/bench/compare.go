package main

import (
	"fmt"
	"slices"

	"github.com/natwise/natwise/internal/natlab/work"
)

// A status is how a measurement ended.
type status string

const (
	statusOK     status = "ok"
	statusMissed status = "missed"
)

// A verdict is a bound, and whether it was kept.
type verdict struct {
	Bound   float64 `json:"bound,omitempty"`
	BoundIs string  `json:"bound_is,omitempty"` // none: the measurement is only told
	Status  status  `json:"status"`
	Why     string  `json:"why,omitempty"` // it was missed
}

// What a bound may be on.
const (
	ratioAtMost   = "ratio at most"
	ratioLowAbove = "ratio_low above"
	allocsBelow   = "ours_allocs below"
)

// failed is the verdict on what could not be measured.
func failed(err error) verdict {
	return verdict{Status: statusMissed, Why: err.Error()}
}

func (v verdict) String() string {
	s := string(v.Status)
	if v.BoundIs != "" {
		s += fmt.Sprintf(" (%s %g)", v.BoundIs, v.Bound)
	}
	if v.Why != "" {
		s += ": " + v.Why
	}
	return s
}

// A ratio compares pairs of figures.
type ratio struct {
	RatioIs string  `json:"ratio_is"`
	Ratio   float64 `json:"ratio"`      // the median of the pairs'
	Low     float64 `json:"ratio_low"`  // its lower 95 % bound
	High    float64 `json:"ratio_high"` // its upper 95 % bound
	Pairs   int     `json:"pairs"`
}

// Which way a ratio goes.
const (
	oursToPeer = "ours/peer"
	peerToOurs = "peer/ours"
)

// compare pairs the figures in their order. There must be five or more.
func compare(is string, ours, peers []float64) ratio {
	each := make([]float64, len(ours))
	for i := range ours {
		each[i] = ours[i] / peers[i]
		if is == peerToOurs {
			each[i] = peers[i] / ours[i]
		}
	}
	r := ratio{RatioIs: is, Ratio: work.Median(each), Pairs: len(each)}
	r.Low, r.High, _ = work.Bounds(each)
	return r
}

// atMost asks it of the median.
func (r ratio) atMost(bound float64) verdict {
	return judge(r.Ratio <= bound, bound, ratioAtMost)
}

// above asks it of the lower 95 % bound.
func (r ratio) above(bound float64) verdict {
	return judge(r.Low > bound, bound, ratioLowAbove)
}

func judge(kept bool, bound float64, is string) verdict {
	v := verdict{Bound: bound, BoundIs: is, Status: statusOK}
	if !kept {
		v.Status = statusMissed
	}
	return v
}

// median leaves xs in their order.
func median(xs []float64) float64 { return work.Median(slices.Clone(xs)) }
