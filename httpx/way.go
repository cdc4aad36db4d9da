package httpx

import (
	"context"
	"net/http/httptrace"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/retry"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/pool"
)

// A way is a route while there are connections on it.
type way struct {
	route
	stock  *stock
	name   *telemetry.Name
	capped atomic.Bool // cap is set

	mu      sync.Mutex // guards the fields below
	first   *first     // nil: it is known what a connection carries, or nobody finds out
	cap     int        // how many streams to begin at once, whatever the server says; 0: as many as it says
	answers bool       // some connection has brought one
	failing int        // HTTP/2 connections in a row that have not
	backoff retry.Backoff
}

// A first connection is opened alone, to learn what one carries.
type first struct {
	conn   *conn         // once opened is closed
	opened chan struct{} // closed when it is there
	known  chan struct{} // closed when it has told, or has failed
	end    sync.Once
}

// await waits for what the first connection tells. Somebody must be the first.
func (w *way) await(ctx context.Context) *first {
	for {
		w.mu.Lock()
		f := w.first
		if f == nil {
			defer w.mu.Unlock()
			if w.stock.alone(w.route) || w.failing == 0 && w.stock.carried(w.route) > 0 {
				return nil
			}
			w.first = &first{opened: make(chan struct{}), known: make(chan struct{})}
			return w.first
		}
		w.mu.Unlock()
		select {
		case <-f.known:
		case <-f.opened:
			f.conn.awaitSettings(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// learn remembers how many exchanges a connection on the route carries.
func (w *way) learn(streams int) {
	s := w.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.carries == nil || len(s.carries) >= maxCarries {
		s.carries = make(map[route]int)
	}
	s.carries[w.route] = streams
}

// learned says that f has told, or never will.
func (w *way) learned(f *first) {
	if f == nil {
		return
	}
	f.end.Do(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.first = nil
		close(f.known)
	})
}

// useless says that an HTTP/2 connection has ended that brought no answer. When that goes on,
// those who wait are told, as if it could not have been opened, and the next ones are
// opened less and less often.
func (w *way) useless(cause error) {
	w.mu.Lock()
	w.failing++
	goesOn := w.failing >= mayFail
	w.mu.Unlock()
	if !goesOn {
		return
	}
	for r, p := range w.stock.group.Pools() {
		if r == w.route {
			p.Reset(cause)
		}
	}
}

func (w *way) useful() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers, w.failing = true, 0
	w.backoff.Reset()
}

// refused says that a connection was told to take no more after so many answers, with more
// requests on it: fewer are begun at once from now on.
func (w *way) refused(answers int) {
	if answers == 0 {
		return // and no more connections are needed because of that
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cap = max(leastCap, 2*answers)
	w.capped.Store(true)
}

// leastCap is what a refusal cannot go below: a connection that was young would say too
// little, and cost others.
const leastCap = 16

// atOnce is how many streams to begin at once where the server wants that many, on a
// connection that has brought so many answers. What is learned from a refusal is
// forgotten as more answers come.
func (w *way) atOnce(streams, answers int) int {
	if !w.capped.Load() {
		return streams
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if answers > w.cap {
		w.cap *= 2
	}
	if w.cap >= streams {
		w.capped.Store(false)
		return streams
	}
	return w.cap
}

// works reports whether connections on the route bring answers.
func (w *way) works() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers && w.failing < mayFailOnce
}

// pause is how long to wait before the next connection.
func (w *way) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failing < mayFail {
		return 0
	}
	return w.backoff.Next()
}

const (
	// mayFail is how many connections in a row may bring no answer before that is a
	// failure, and others are opened less and less often.
	mayFail     = 2
	mayFailOnce = 16 // after some have brought answers
	firstPause  = 100 * time.Millisecond
	lastPause   = 10 * time.Second
)

// A wayOwner is whom ports belong to, for fairness: the stock's connections on one route.
type wayOwner struct {
	stock *stock
	route route
}

// owner does not change when the pool for the route is made again.
func (w *way) owner() any { return wayOwner{w.stock, w.route} }

func (w *way) obstacle() error { return w.stock.dialer.Obstacle(w.owner()) }

// ask waits for a port, unless the last connection turns out to have room for all.
func (w *way) ask(ctx context.Context) (pool.Permit[*conn], error) {
	address, err := w.dials()
	if err != nil {
		return nil, err
	}
	f := w.await(ctx)
	if d := w.pause(); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	setup := w.stock.scope.Setup(ctx, "HTTP", address)
	reserving := setup.With(dialer.WithOwner(dialer.WithoutMaxWait(resolving(ctx)), w.owner()))
	res, err := w.stock.dialer.Reserve(reserving, "tcp", address)
	if err != nil {
		if ctx.Err() == nil { // else nobody needs it any more
			setup.End(err)
		}
		w.learned(f)
		return nil, err
	}
	return &opening{way: w, first: f, setup: setup, Reservation: res}, nil
}

// resolving returns ctx for looking names up, which httptrace has hooks of its own for: what
// the resolver dials is nobody's connection.
func resolving(ctx context.Context) context.Context {
	trace := httptrace.ContextClientTrace(ctx)
	if trace == nil {
		return ctx
	}
	return httptrace.WithClientTrace(untraced{ctx}, &httptrace.ClientTrace{DNSStart: trace.DNSStart, DNSDone: trace.DNSDone})
}

// An untraced context has all of another one's values but its traces.
type untraced struct{ context.Context }

func (c untraced) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil && (t.PkgPath() == "internal/nettrace" || t.PkgPath() == "net/http/httptrace") {
		return nil
	}
	return c.Context.Value(key)
}
