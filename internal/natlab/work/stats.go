package work

import (
	"container/heap"
	"math"
	"slices"
	"time"
)

// Percentile returns the smallest of ds that is not exceeded by q of them, for
// 0 < q <= 1. Of nothing it is zero. It sorts ds.
func Percentile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds), max(1, int(math.Ceil(q*float64(len(ds))))))-1]
}

// Median returns the middle of xs, which it sorts. Of nothing it is zero.
func Median(xs []float64) float64 {
	slices.Sort(xs)
	n := len(xs)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return xs[n/2]
	}
	return (xs[n/2-1] + xs[n/2]) / 2
}

// Bounds returns the lower and the upper 95 % bound of the median of xs, each
// one-sided, from their order alone. Fewer than five values have none: ok is
// false. It sorts xs.
func Bounds(xs []float64) (lower, upper float64, ok bool) {
	slices.Sort(xs)
	n := len(xs)
	// The k-th smallest exceeds the median if fewer than k lie below it.
	k, below, ways := 0, 0.0, 1.0
	for below += ways; k < n && below/math.Pow(2, float64(n)) <= 0.05; below += ways {
		k++
		ways *= float64(n-k+1) / float64(k)
	}
	if k == 0 {
		return 0, 0, false
	}
	return xs[k-1], xs[n-k], true
}

// IdealQueue returns how long each request waits for its answer where workers
// ask in a closed loop, ports are given first come first served, and each is
// taken for the service and a hold. No client can do better on average.
func IdealQueue(workers, requests, ports int, service, hold time.Duration) []time.Duration {
	asked := make(times, min(workers, requests)) // everybody at once, at zero
	free := make(times, ports)
	took := make([]time.Duration, 0, requests)
	for range requests {
		if len(asked) == 0 {
			break
		}
		since := heap.Pop(&asked).(time.Duration)
		begin := max(since, heap.Pop(&free).(time.Duration))
		done := begin + service
		took = append(took, done-since)
		heap.Push(&free, done+hold)
		heap.Push(&asked, done)
	}
	return took
}

// times is a heap, earliest first.
type times []time.Duration

func (h times) Len() int           { return len(h) }
func (h times) Less(i, j int) bool { return h[i] < h[j] }
func (h times) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *times) Push(x any)        { *h = append(*h, x.(time.Duration)) }
func (h *times) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
