package main

import (
	"context"
	"sync"
)

// A bare is the least that a pool can do, and what natwise's is measured
// against: values that are all there from the beginning, the warmest first, and
// handed to whoever has waited longest. It counts nothing, looks at no clock,
// opens, checks and closes nothing.
type bare struct {
	mu    sync.Mutex // guards the fields below
	idle  []*conn    // warmest last
	first *waiter    // has waited longest
	last  *waiter

	spare sync.Pool // of waiters
}

// A waiter is one Get that waits. It is used again.
type waiter struct {
	next, prev *waiter
	queued     bool       // guarded by bare.mu
	arrived    chan *conn // capacity one: whoever puts never waits for whoever gets
}

func newBare(values int) *bare {
	b := &bare{idle: make([]*conn, values)}
	b.spare.New = func() any { return &waiter{arrived: make(chan *conn, 1)} }
	for i := range b.idle {
		b.idle[i] = new(conn)
	}
	return b
}

// Get takes a value, or waits for one until ctx is done.
func (b *bare) Get(ctx context.Context) (*conn, error) {
	b.mu.Lock()
	if last := len(b.idle) - 1; last >= 0 {
		c := b.idle[last]
		b.idle = b.idle[:last]
		b.mu.Unlock()
		return c, nil
	}
	w := b.spare.Get().(*waiter)
	b.pushLocked(w)
	b.mu.Unlock()

	select {
	case c := <-w.arrived:
		b.spare.Put(w)
		return c, nil
	case <-ctx.Done():
		return b.giveUp(ctx, w)
	}
}

// giveUp leaves the queue, or takes what was handed over in the same moment.
func (b *bare) giveUp(ctx context.Context, w *waiter) (*conn, error) {
	b.mu.Lock()
	queued := w.queued
	if queued {
		b.removeLocked(w)
	}
	b.mu.Unlock()

	var c *conn
	err := ctx.Err()
	if !queued {
		c, err = <-w.arrived, nil
	}
	b.spare.Put(w)
	return c, err
}

// Put hands c to whoever has waited longest, or keeps it.
func (b *bare) Put(c *conn) {
	b.mu.Lock()
	w := b.first
	if w == nil {
		b.idle = append(b.idle, c)
		b.mu.Unlock()
		return
	}
	b.removeLocked(w)
	b.mu.Unlock()
	w.arrived <- c
}

func (b *bare) pushLocked(w *waiter) {
	w.queued, w.prev = true, b.last
	if b.last == nil {
		b.first = w
	} else {
		b.last.next = w
	}
	b.last = w
}

func (b *bare) removeLocked(w *waiter) {
	if w.prev == nil {
		b.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		b.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev, w.queued = nil, nil, false
}

// openBare makes a contender of a bare.
func openBare(values int) (contender, error) { return bareContender{newBare(values)}, nil }

type bareContender struct{ *bare }

func (b bareContender) cycle(ctx context.Context, n int, hold func()) error {
	for range n {
		c, err := b.Get(ctx)
		if err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
		b.Put(c)
	}
	return nil
}

func (b bareContender) use(ctx context.Context, work func(*conn)) error {
	c, err := b.Get(ctx)
	if err != nil {
		return err
	}
	work(c)
	b.Put(c)
	return nil
}

func (bareContender) close(context.Context) error { return nil }
