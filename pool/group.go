package pool

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// A Group keeps one pool a key, such as an address: it makes one when the key is
// first asked for, and forgets it when nothing is left in it and nobody waits.
// New is all it needs. It may be used by many goroutines, must not be copied,
// and is closed by whoever made it.
type Group[K comparable, T any] struct {
	// New says what the pool for a key is made of. It is called under no lock, and
	// may be called for a key that then already has a pool.
	New func(key K) Config[T]

	pools sync.Map // of K to *Pool[T]

	mu   sync.Mutex // guards shut; held while a pool is added
	shut bool
}

// Get leases a value of the key's pool, as Pool.Get does.
func (g *Group[K, T]) Get(ctx context.Context, key K) (Lease[T], error) {
	for {
		p, err := g.pool(key)
		if err != nil {
			return Lease[T]{}, err
		}
		l, err := p.Get(ctx)
		if err != errGone {
			return l, err
		}
		g.pools.CompareAndDelete(key, p)
	}
}

// TryGet leases a value of the key's pool, as Pool.TryGet does, if there is a pool.
func (g *Group[K, T]) TryGet(key K, proved time.Duration) (l Lease[T], ok bool) {
	if p, there := g.pools.Load(key); there {
		return p.(*Pool[T]).TryGet(proved)
	}
	return l, false
}

// Do calls f with a value of the key's pool, as Pool.Do does.
func (g *Group[K, T]) Do(ctx context.Context, key K, f func(ctx context.Context, v T) error) error {
	l, err := g.Get(ctx, key)
	if err != nil {
		return err
	}
	return l.do(ctx, f)
}

func (g *Group[K, T]) pool(key K) (*Pool[T], error) {
	if p, ok := g.pools.Load(key); ok {
		return p.(*Pool[T]), nil
	}
	if g.New == nil {
		panic("pool: Group.New is nil")
	}
	p := New(g.New(key))
	p.forget = func() { g.pools.CompareAndDelete(key, p) }
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, ErrClosed
	}
	was, _ := g.pools.LoadOrStore(key, p)
	return was.(*Pool[T]), nil
}

// Pools yields the pools that there are, in no order.
func (g *Group[K, T]) Pools() iter.Seq2[K, *Pool[T]] {
	return func(yield func(K, *Pool[T]) bool) {
		g.pools.Range(func(key, p any) bool { return yield(key.(K), p.(*Pool[T])) })
	}
}

// Reclaim closes the value that was idle for longest in the whole group, because
// somebody else needs its room. It reports false if there is none.
func (g *Group[K, T]) Reclaim() bool {
	for {
		var coldest *Pool[T]
		var longest time.Duration
		for _, p := range g.Pools() {
			if idle, ok := p.LongestIdle(); ok && (coldest == nil || idle > longest) {
				coldest, longest = p, idle
			}
		}
		if coldest == nil || coldest.Reclaim() {
			return coldest != nil
		}
	}
}

// Reset resets every pool, as Pool.Reset does.
func (g *Group[K, T]) Reset(cause error) {
	for _, p := range g.Pools() {
		p.Reset(cause)
	}
}

// Retire retires values of every pool, as Pool.Retire does.
func (g *Group[K, T]) Retire(cause error, match func(v T) bool) {
	for _, p := range g.Pools() {
		p.Retire(cause, match)
	}
}

// Close closes every pool, as Pool.Close does, all at once.
func (g *Group[K, T]) Close(ctx context.Context) error {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, p := range g.Pools() {
		all.Go(func() {
			if err := p.Close(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
