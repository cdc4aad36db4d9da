package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

const goDefaults = "Go's defaults"

// measured makes a Measurement of ours, which is to be at most bound.
func measured(figure, unit string, ours work.Reading, bound float64) work.Measurement {
	return work.Told(figure, unit, ours).AtMost(bound)
}

func milliseconds(d time.Duration) work.Reading { return work.Reading{Value: work.Milliseconds(d)} }

// patience is how long a peer is waited for.
func patience(r *work.Report) time.Duration {
	if r.Full {
		return 160 * time.Second // an idle reader's 150 s are seen to their end
	}
	return time.Minute
}

// byConnection puts together what belongs together: measurements end as they like.
func byConnection(a, b work.Measurement) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Use, b.Use))
}

// rank is where a measurement stands among the others of its scenario.
func rank(m work.Measurement) int {
	return slices.Index([]string{plain, overTLS, http1, https1, http2}, m.Over)
}
