package main

import (
	"math"

	"github.com/natwise/natwise/internal/natlab/work"
)

// share is k of n in percent; of nothing it is zero.
func share(k, n int) work.Reading { return work.Ratio(100*float64(k), float64(max(1, n))) }

// bounds returns the lower and the upper 95 % bound, each one-sided and exact (Clopper and
// Pearson), of the probability of what happened k times of n.
func bounds(k, n int) (low, high float64) {
	const doubt = 0.05
	high = 1
	if k < n {
		high = solve(func(p float64) bool { return atMost(k, n, p) > doubt })
	}
	if k > 0 {
		low = solve(func(p float64) bool { return 1-atMost(k-1, n, p) < doubt })
	}
	return low, high
}

// solve returns where something ends that is true from 0 to there.
func solve(still func(p float64) bool) float64 {
	low, high := 0.0, 1.0
	for range 60 {
		if p := (low + high) / 2; still(p) {
			low = p
		} else {
			high = p
		}
	}
	return low
}

// atMost is the probability of k or fewer of n, each of which happens with p.
func atMost(k, n int, p float64) float64 {
	term := float64(n) * math.Log1p(-p) // the logarithm of that of none
	sum := math.Exp(term)
	for i := range k {
		term += math.Log(float64(n-i)/float64(i+1)) + math.Log(p) - math.Log1p(-p)
		sum += math.Exp(term)
	}
	return sum
}
