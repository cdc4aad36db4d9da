package main

import (
	"context"
	"sync/atomic"
)

// A contender is a pool in the contest.
type contender interface {
	// cycle gets and puts a value n times, and calls hold in between if it is
	// not nil. It is a loop of each contender's own, because a call through an
	// interface, or a closure, would cost a tenth of what the fastest take.
	cycle(ctx context.Context, n int, hold func()) error

	// use gets a value, calls work with it, and puts it back.
	use(ctx context.Context, work func(*conn)) error

	close(ctx context.Context) error
}

// An entry is how a contender is named and opened, with room for some values.
type entry struct {
	name string
	open func(values int) (contender, error)
}

// Who contends. All of them serve whoever has waited longest first: bare and
// smartconnpool by a list, puddle by its semaphore, go-redis by the receivers of
// a channel (it promises no more than "eventual fairness", but a turn lies in the
// channel's buffer, where anybody may take it, only when nobody waits for it).
var (
	ours     = entry{"natwise", openNatwise}
	baseline = entry{"baseline", openBare}
	peers    = []entry{
		baseline,
		{"puddle", openPuddle},
		{"smartconnpool", openVitess},
		{"go-redis", openRedis},
	}
)

// A conn is a value of a pool: nothing that would cost time.
type conn struct {
	held atomic.Bool // for tests
}
