package pool_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

// An item is what the pools under test lend.
type item struct {
	n      int   // the how-manieth opening made it
	closed int   // how often; guarded by the works
	cause  error // what Close was told
}

// A works opens and closes items for a pool, and keeps books of its own. Its
// Config is the pool's; opening and closing say what else Open and Close do.
type works struct {
	pool.Config[*item]
	opening func(ctx context.Context, n int) error // of the n-th; nil: it succeeds at once
	closing func(v *item)

	pool *pool.Pool[*item] // once start has made it

	mu    sync.Mutex // guards the fields below
	opens int        // begun
	room  int        // taken up by items being opened, open and being closed
	most  int        // that ever was
	items []*item
}

// inBubble runs f in virtual time. In the end it closes the pool, if f has
// started one, and compares its books with those of the works.
func inBubble(t *testing.T, f func(t *testing.T, w *works)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := new(works)
		w.Config = pool.Config[*item]{Open: w.open, Close: w.close}
		t.Cleanup(func() { w.audit(t) })
		f(t, w)
	})
}

// start makes the pool.
func (w *works) start() *pool.Pool[*item] {
	w.pool = pool.New(w.Config)
	return w.pool
}

func (w *works) open(ctx context.Context) (*item, error) {
	w.mu.Lock()
	w.opens++
	w.room++
	w.most = max(w.most, w.room)
	v := &item{n: w.opens}
	w.mu.Unlock()
	opened := false
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if opened {
			w.items = append(w.items, v)
		} else {
			w.room--
		}
	}()
	if w.opening != nil {
		if err := w.opening(ctx, v.n); err != nil {
			return nil, err
		}
	}
	opened = true
	return v, nil
}

func (w *works) close(v *item, cause error) {
	w.mu.Lock()
	v.closed++
	v.cause = cause
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.room--
	}()
	if w.closing != nil {
		w.closing(v)
	}
}

// opened returns how many openings were begun.
func (w *works) opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opens
}

// fate returns how often v was closed, and what Close was told.
func (w *works) fate(v *item) (closed int, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return v.closed, v.cause
}

func (w *works) audit(t *testing.T) {
	if w.pool == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := w.pool.Close(ctx); err != nil {
		t.Errorf("the pool does not close: %v", err)
		return
	}
	synctest.Wait()
	s := w.pool.Stats()
	if s.Size+s.Idle+s.Asking+s.Connecting+s.Closing+s.InUse+s.Waiting != 0 {
		t.Errorf("after everything has ended: %+v", s)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Max > 0 && w.most > w.Max {
		t.Errorf("%d values at once, at most %d are allowed", w.most, w.Max)
	}
	for _, v := range w.items {
		if v.closed != 1 {
			t.Errorf("value %d was closed %d times", v.n, v.closed)
		}
	}
}

// obtain leases a value that must be there.
func obtain(t *testing.T, p *pool.Pool[*item]) pool.Lease[*item] {
	t.Helper()
	l, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A getting is a Get in a goroutine of its own.
type getting struct {
	done  chan struct{}
	lease pool.Lease[*item]
	err   error
	took  time.Duration
}

// begin begins a Get, and returns when it has ended or waits.
func begin(ctx context.Context, p *pool.Pool[*item]) *getting {
	g := &getting{done: make(chan struct{})}
	go func() {
		defer close(g.done)
		start := time.Now()
		g.lease, g.err = p.Get(ctx)
		g.took = time.Since(start)
	}()
	synctest.Wait()
	return g
}

// waits reports whether the Get has not ended.
func (g *getting) waits() bool {
	synctest.Wait()
	select {
	case <-g.done:
		return false
	default:
		return true
	}
}

// value waits for the value.
func (g *getting) value(t *testing.T) *item {
	t.Helper()
	if <-g.done; g.err != nil {
		t.Fatalf("no value, after %v: %v", g.took, g.err)
	}
	return g.lease.Value()
}

// failure waits for the error.
func (g *getting) failure(t *testing.T) error {
	t.Helper()
	if <-g.done; g.err == nil {
		t.Fatalf("got value %d, after %v", g.lease.Value().n, g.took)
	}
	return g.err
}

// pause takes d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
