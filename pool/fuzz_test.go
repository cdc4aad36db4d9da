package pool_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/pool"
)

var (
	histories = flag.Int("histories", 1000, "how many random histories to run")
	full      = flag.Bool("full", false, "run random histories for ten minutes")
)

// FuzzPool takes bytes for a program of gets, puts, failing openings and what
// else can happen to a pool.
func FuzzPool(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 0, 0, 16, 48, 1, 1, 0, 2, 33})                               // more gets than values
	f.Add([]byte("B0000$$11.0\xe8"))                                                      // doubted while it is asked
	f.Add([]byte{1 | 8, 0, 0, 0, 0, 5, 21, 37, 0, 14, 46, 4, 1, 17})                      // failing openings, and later ones
	f.Add([]byte{3 | 16, 0, 0, 0, 0, 15, 3, 19, 15, 4, 31, 0, 15, 4, 7})                  // permissions
	f.Add([]byte{2 | 32, 0, 0, 0, 0, 0, 0, 4, 54, 6, 22, 1, 1, 38, 2, 0, 0})              // shared values, growing and shrinking
	f.Add([]byte{4 | 64, 0, 0, 0, 0, 4, 4, 4, 1, 1, 1, 14, 94, 10, 0, 0, 12})             // idle, beaten, found broken
	f.Add([]byte{2 | 128, 0, 0, 0, 4, 4, 2, 18, 0, 0, 11, 7, 0, 4, 11, 8, 9, 1})          // slow closings, reset, reclaim
	f.Add([]byte{0, 0, 0, 0, 0, 121, 4, 4, 4, 1, 13, 29, 2, 0})                           // closed in the middle
	f.Add([]byte{65, 0, 0, 0, 0, 4, 4, 4, 1, 46, 1, 46, 136, 1, 200, 0, 46, 136, 152, 2}) // tried for, and doubted
	f.Add([]byte{64, 0, 0, 4, 1, 0, 30, 131, 0, 30, 3, 7, 0, 30, 118, 0, 4, 246, 9})      // cut off in a check, ended for a reason
	f.Add([]byte{1 | 16, 1 | 2, 0, 15, 4, 0, 0, 46, 46, 46, 1})                           // waits that end by MaxWait
	f.Add([]byte{2 | 64, 4, 0, 0, 4, 4, 57, 1, 1, 46, 0, 46, 46, 1})                      // values that say how long they may be idle
	f.Add([]byte{32, 8, 0, 0, 0, 0, 4, 4, 9, 1, 1, 0, 25, 2, 0, 4, 4})                    // expected to be shared, and retired
	f.Add([]byte{255, 255, 0, 0, 15, 4, 1, 10, 0, 14, 158, 10, 7, 0, 47, 8, 3, 9, 11, 11})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 3 && len(program) <= 256 {
			synctest.Test(t, func(t *testing.T) { newHistory(t, program[0], program[1]).run(program[2:]) })
		}
	})
}

// With -full, for ten minutes: go test -race ./pool -run Histories -full -timeout 20m.
func TestRandomHistoriesBreakNoInvariant(t *testing.T) {
	if *full {
		runForTenMinutes(t)
		return
	}
	var all sync.WaitGroup
	var ran atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for !t.Failed() && ran.Add(1) <= int64(*histories) {
				program := make([]byte, 4+rand.IntN(200))
				for i := range program {
					program[i] = byte(rand.Uint32())
				}
				synctest.Test(t, func(t *testing.T) { newHistory(t, program[0], program[1]).run(program[2:]) })
				if t.Failed() {
					t.Logf("the program was %#v", program)
				}
			}
		})
	}
	all.Wait()
}

// runForTenMinutes runs this test in one process after the other: the race
// detector of Go 1.26 gives no memory back that it used for a bubble, some 100 kB
// each.
func runForTenMinutes(t *testing.T) {
	const each = 10_000
	ran := 0
	for start := time.Now(); time.Since(start) < 10*time.Minute; ran += each {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-histories="+strconv.Itoa(each))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("after %d histories: %v\n%s", ran, err, out)
		}
	}
	t.Logf("%d histories", ran)
}

// A history is what a program has done to a pool so far, and what must be true
// of it.
type history struct {
	t       *testing.T
	p       *pool.Pool[*thing]
	max     int
	slow    bool // Close waits, and Open does not heed its context
	beaten  bool // there are Check and Beat
	timed   bool // there is IdleFor
	maxWait time.Duration
	all     sync.WaitGroup
	drained atomic.Bool // Close has returned

	mu        sync.Mutex // guards what follows, and all things
	asks      []*answer  // under way
	opens     []*answer
	closes    []*answer
	things    []*thing
	resets    int
	gets      int
	waiting   []*call // in order of arrival
	served    []*call // since the last step
	leases    []*call // out
	past      []*pool.Lease[*thing]
	closing   bool
	failed    bool // an Ask or an Open, not because it was called off
	probing   int  // Checks and Beats under way
	permitted int  // granted, neither opened nor released
}

// A thing is what the pool is of.
type thing struct {
	leases, capacity int
	generation       int
	born             time.Time
	broken           bool // Check and Beat say so
	discarded        bool // by one of those who had it
	asked            bool // by a Check or a Beat
	retired          bool // by a Retire that has begun
	ended, closed    bool // Close was called, has returned
	changed          func(error)

	says    time.Duration // how long it may be idle, when it is asked next
	idleFor time.Duration // what it has said; zero: for ever
	rested  time.Time     // when it was opened or put back

	proved    time.Time // when it was opened or put back, or passed
	hasPassed bool      // and it was the last of these
	doubted   bool      // and has not passed a Beat since
}

// An answer is what an Ask, an Open or a Close waits for.
type answer struct{ yes chan bool }

type call struct {
	number  int
	cancel  context.CancelFunc
	gone    bool      // cancel was called
	late    time.Time // by then it must have ended; zero: nobody says when
	checked bool      // it had a value already, which it had to ask first
	lease   pool.Lease[*thing]
	proved  time.Time // the value, before the lease; zero: that is not certain
}

type callKey struct{}

var (
	errNo   = errors.New("no")
	errFull = errors.New("full") // the Obstacle
)

func newHistory(t *testing.T, options, more byte) *history {
	h := &history{t: t, max: int(options & 3), slow: options&128 != 0, beaten: options&64 != 0}
	cfg := pool.Config[*thing]{Max: h.max, Close: h.end}
	if options&16 != 0 {
		cfg.Ask = h.ask
	} else {
		cfg.Open = h.open
	}
	if options&8 != 0 {
		cfg.Patience = 3 * time.Second
	}
	if options&4 != 0 {
		cfg.MinIdle = min(1, h.max)
		cfg.LeakAfter = time.Second
	}
	if options&32 != 0 {
		cfg.Capacity = h.capacity
		cfg.Watch = func(v *thing, changed func(error)) { v.changed = changed }
	}
	if h.beaten {
		cfg.Check, cfg.CheckAfter = h.check, time.Duration(options&1)*2*time.Second
		cfg.Beat, cfg.BeatEvery = h.beat, 7*time.Second
		cfg.MaxIdle, cfg.MaxLife = time.Minute, 5*time.Minute
	}
	if more&1 != 0 {
		h.maxWait = 5 * time.Second
		cfg.MaxWait = h.maxWait
	}
	if more&2 != 0 {
		cfg.Obstacle = func() error {
			h.p.Stats() // would wait for ever for the lock
			return errFull
		}
	}
	if more&4 != 0 {
		h.timed = true
		cfg.IdleFor = h.idleFor
	}
	if more&8 != 0 && cfg.Capacity != nil {
		cfg.Expect = 1 + int(more>>4)
	}
	h.p = pool.New(cfg)
	return h
}

// wait adds an answer to a list and waits for it, or for ctx.
func (h *history) wait(ctx context.Context, list *[]*answer) (yes bool) {
	a := &answer{make(chan bool, 1)}
	h.mu.Lock()
	*list = append(*list, a)
	h.mu.Unlock()
	select {
	case yes = <-a.yes:
	case <-ctx.Done():
	}
	h.mu.Lock()
	*list = slices.DeleteFunc(*list, func(b *answer) bool { return a == b })
	h.mu.Unlock()
	return yes
}

func (h *history) ask(ctx context.Context) (pool.Permit[*thing], error) {
	yes := h.wait(ctx, &h.asks)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !yes {
		h.failed = h.failed || ctx.Err() == nil
		return nil, errNo
	}
	h.permitted++
	return &permit{h: h}, nil
}

type permit struct {
	h    *history
	used bool
}

func (p *permit) use() {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	if p.used {
		p.h.t.Error("a permission was used twice")
	}
	p.used = true
	p.h.permitted--
}

func (p *permit) Release() { p.use() }

func (p *permit) Open(ctx context.Context) (*thing, error) {
	p.use()
	return p.h.open(ctx)
}

func (h *history) open(ctx context.Context) (*thing, error) {
	h.mu.Lock()
	v := &thing{generation: h.resets, capacity: 1}
	h.mu.Unlock()
	if h.slow {
		ctx = context.WithoutCancel(ctx)
	}
	yes := h.wait(ctx, &h.opens)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !yes {
		h.failed = true
		return nil, errNo
	}
	v.born = time.Now()
	v.proved, v.rested = v.born, v.born
	h.things = append(h.things, v)
	return v, nil
}

func (h *history) end(v *thing, cause error) {
	h.mu.Lock()
	if v.ended || v.leases > 0 || v.asked || cause == nil {
		h.t.Errorf("closed for %v: %+v", cause, v)
	}
	v.ended = true
	h.mu.Unlock()
	if h.slow {
		h.wait(context.Background(), &h.closes)
	}
	h.mu.Lock()
	v.closed = true
	h.mu.Unlock()
}

// idleFor is IdleFor.
func (h *history) idleFor(v *thing) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	v.idleFor = v.says
	return v.idleFor
}

// overdue reports whether v, leased to nobody, has been idle for as long as it has
// said that it may, and for longer by some time.
func (v *thing) overdue(by time.Duration) bool {
	return v.idleFor != 0 && time.Since(v.rested) >= max(0, v.idleFor)+by
}

func (h *history) capacity(v *thing) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return v.capacity
}

// check is Check. It takes a while.
func (h *history) check(ctx context.Context, v *thing) error {
	h.mu.Lock()
	if v.asked || v.ended || v.leases > 0 {
		h.t.Errorf("asked: %+v", v)
	}
	if g, ok := ctx.Value(callKey{}).(*call); ok {
		g.checked = true
	}
	v.asked = true
	h.probing++
	h.mu.Unlock()
	time.Sleep(100 * time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	v.asked = false
	h.probing--
	if v.broken {
		return errNo
	}
	if ctx.Err() == nil {
		v.proved, v.hasPassed = time.Now(), true
	}
	return ctx.Err()
}

// beat is Beat, which alone ends a doubt.
func (h *history) beat(ctx context.Context, v *thing) error {
	err := h.check(ctx, v)
	h.mu.Lock()
	defer h.mu.Unlock()
	v.doubted = v.doubted && err != nil
	return err
}

// get begins a Get, which ends by itself after timeout if that is not zero.
func (h *history) get(timeout time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	h.mu.Lock()
	g := &call{number: h.gets}
	g.cancel = func() {
		h.mu.Lock()
		g.gone = true
		h.mu.Unlock()
		cancel()
	}
	if timeout == 0 {
		timeout = h.maxWait
	}
	if timeout > 0 {
		g.late = time.Now().Add(timeout)
	}
	ctx = context.WithValue(ctx, callKey{}, g)
	h.gets++
	h.waiting = append(h.waiting, g)
	h.mu.Unlock()
	h.all.Go(func() {
		defer cancel()
		l, err := h.p.Get(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.waiting = slices.DeleteFunc(h.waiting, func(w *call) bool { return w == g })
		if err != nil {
			if err == errNo && !h.failed {
				h.t.Error("a Get failed, but no opening had")
			}
			if w := (*pool.WaitError)(nil); errors.As(err, &w) && (g.late.IsZero() || g.late.After(time.Now())) {
				h.t.Errorf("before it was late: %v", err)
			}
			return
		}
		h.served = append(h.served, g)
		h.lent(g, l)
	})
}

// lent notes that g has the lease l.
func (h *history) lent(g *call, l pool.Lease[*thing]) {
	v := l.Value()
	if v.leases++; v.leases > v.capacity || v.ended || v.doubted || v.retired || v.generation != h.resets {
		h.t.Errorf("lent after %d resets: %+v", h.resets, v)
	}
	asking := 200 * time.Millisecond // a Check and a Beat
	if !h.beaten {
		asking = 0
	}
	if v.leases == 1 && v.idleFor >= 0 && v.overdue(asking) {
		h.t.Errorf("lent when it was idle for %v: %+v", time.Since(v.rested), v)
	}
	// What was handed over as it was put back has no date of its own.
	if v.leases == 1 && (v.hasPassed || time.Since(v.proved) >= 2*coarse) {
		g.proved = v.proved
	}
	g.lease = l
	h.leases = append(h.leases, g)
}

// try leases what was proved within some time, if it can be had at once.
func (h *history) try(proved time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.p.TryGet(proved)
	if !ok {
		return
	}
	if v := l.Value(); v.leases > 0 || v.asked || time.Since(v.proved) > proved || len(h.waiting) > 0 && h.probing == 0 {
		h.t.Errorf("lent before %d who wait, if proved within %v: %+v", len(h.waiting), proved, v)
	}
	h.lent(new(call), l)
}

// doubt lets whoever has a lease doubt what is idle.
func (h *history) doubt(g *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.things {
		if v.leases == 0 && h.beaten && !g.proved.IsZero() && !v.proved.After(g.proved.Add(-coarse)) {
			v.doubted = true
		}
	}
	g.lease.Doubt()
}

// giveBack ends the lease of g by one of the two.
func (h *history) giveBack(g *call, broken bool) {
	h.mu.Lock()
	h.leases = slices.DeleteFunc(h.leases, func(l *call) bool { return l == g })
	h.past = append(h.past, &g.lease)
	v := g.lease.Value()
	v.leases--
	v.discarded = v.discarded || broken
	v.proved, v.hasPassed = time.Now(), false
	v.rested = v.proved
	h.mu.Unlock()
	if broken {
		h.all.Go(func() { g.lease.Discard(errNo) })
	} else {
		g.lease.Put()
	}
}

// pick returns one of a list, nil if it is empty.
func pick[E any](h *history, list *[]*E, n int) *E {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(*list) == 0 {
		return nil
	}
	return (*list)[n%len(*list)]
}

// step does what one byte says.
func (h *history) step(what, n int) {
	switch what {
	case 0:
		h.get(0)
	case 1, 2:
		if g := pick(h, &h.leases, n); g != nil {
			h.giveBack(g, what == 2)
		}
	case 3:
		if g := pick(h, &h.waiting, n); g != nil {
			g.cancel()
		}
	case 4, 5:
		answerOne(pick(h, &h.opens, n), what == 4)
	case 6:
		h.resize(pick(h, &h.things, n), n%4, n > 8)
	case 7:
		h.mu.Lock()
		h.resets++
		h.mu.Unlock()
		h.p.Reset(errNo)
	case 8:
		if n < 8 {
			h.p.Reclaim()
		} else if n < 12 {
			h.try(time.Duration(n-8) * time.Second)
		} else if g := pick(h, &h.leases, n); g != nil {
			h.doubt(g)
		}
	case 9:
		switch {
		case n == 7:
			h.close()
		case n < 3:
			h.retire(n)
		case n > 8 && h.timed:
			if v := pick(h, &h.things, n); v != nil {
				h.mu.Lock()
				v.says = []time.Duration{-1, 0, 2 * time.Second, 20 * time.Second}[n%4]
				h.mu.Unlock()
			}
		}
	case 10:
		if v := pick(h, &h.things, n); v != nil {
			h.mu.Lock()
			v.broken = true
			h.mu.Unlock()
		}
	case 11:
		answerOne(pick(h, &h.closes, n), true)
	case 12:
		if l := pick(h, &h.past, n); l != nil {
			l.Doubt()
			l.Put()
			l.Discard(errNo)
		}
	case 13:
		h.get(time.Duration(1+n) * time.Second)
	case 14:
		time.Sleep([]time.Duration{time.Millisecond, 200 * time.Millisecond, 3 * time.Second, 100 * time.Second}[n%4])
	case 15:
		answerOne(pick(h, &h.asks, n), n%4 != 3)
	}
}

func answerOne(a *answer, yes bool) {
	if a != nil {
		a.yes <- yes
	}
}

func (h *history) resize(v *thing, capacity int, because bool) {
	if v == nil || v.changed == nil {
		return
	}
	h.mu.Lock()
	v.capacity = capacity
	h.mu.Unlock()
	if because {
		v.changed(errNo)
	} else {
		v.changed(nil)
	}
}

// retire retires every third value, or so.
func (h *history) retire(n int) {
	h.mu.Lock()
	old := make(map[*thing]bool)
	for i, v := range h.things {
		if i%3 == n {
			old[v] = true
			v.retired = true
		}
	}
	h.mu.Unlock()
	h.p.Retire(errNo, func(v *thing) bool {
		h.p.Stats() // would wait for ever for the lock
		return old[v]
	})
}

func (h *history) close() {
	if h.closing {
		return
	}
	h.closing = true
	h.all.Go(func() {
		if err := h.p.Close(context.Background()); err != nil {
			h.t.Error(err)
		}
		h.drained.Store(true)
	})
}

// run runs the program, and then lets everything come to its end.
func (h *history) run(program []byte) {
	for _, b := range program {
		h.step(int(b&15), int(b>>4))
		if b&15 == 3 && b>>4 >= 8 {
			continue // what comes next comes at the same time as the cancellation
		}
		synctest.Wait()
		h.inspect()
	}
	// From now on everything succeeds, and everybody must get a value.
	for i := 0; i < 1000 && h.busy(); i++ {
		h.answerAll()
		h.mu.Lock()
		things, leases := slices.Clone(h.things), slices.Clone(h.leases)
		h.mu.Unlock()
		for _, v := range things {
			h.resize(v, 1, false)
		}
		for _, g := range leases {
			h.giveBack(g, false)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	for w := pick(h, &h.waiting, 0); w != nil; w = pick(h, &h.waiting, 0) {
		h.t.Errorf("get %d was lost: %+v", w.number, h.p.Stats())
		w.cancel()
		synctest.Wait()
	}
	h.close()
	for i := 0; i < 10_000 && !h.drained.Load(); i++ {
		h.answerAll()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	h.all.Wait()
	for i, v := range h.things {
		if !v.closed {
			h.t.Errorf("value %d was never closed: %+v", i, v)
		}
	}
	if s := h.p.Stats(); s.Size+s.Idle+s.InUse+s.Waiting+s.Asking+s.Connecting+s.Closing > 0 || h.permitted != 0 {
		h.t.Errorf("in the end there is left: %+v, and %d permissions", s, h.permitted)
	}
}

// busy reports whether something is under way.
func (h *history) busy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting)+len(h.asks)+len(h.opens)+len(h.closes)+len(h.leases) > 0
}

func (h *history) answerAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, list := range [][]*answer{h.asks, h.opens, h.closes} {
		for _, a := range list {
			select {
			case a.yes <- true:
			default: // it was answered a moment ago
			}
		}
	}
}

// inspect looks for what must never be.
func (h *history) inspect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.p.Stats()
	alive := 0
	for _, v := range h.things {
		if !v.closed {
			alive++
		}
	}
	if under := alive + len(h.opens) + len(h.asks); h.max > 0 && under > h.max || s.Size != under {
		h.t.Errorf("%d values alive, %d being opened, %d asked for, at most %d: %+v", alive, len(h.opens), len(h.asks), h.max, s)
	}
	if len(h.asks) > 1 {
		h.t.Errorf("%d ask at once", len(h.asks))
	}
	if checked := s.InUse - len(h.leases); checked < 0 || checked > h.probing || s.Waiting+checked != len(h.waiting) || s.Connecting != len(h.opens) || s.Asking != len(h.asks) {
		h.t.Errorf("%d leases, %d waiting, %d being opened, %d asked for: %+v", len(h.leases), len(h.waiting), len(h.opens), len(h.asks), s)
	}
	served := h.served
	h.served = nil
	if h.probing > 0 {
		return // who waits for a Check is among the waiting
	}
	for _, v := range h.things {
		if h.lendable(v) && len(h.waiting) > 0 {
			h.t.Errorf("%d wait, and nobody is lent %+v", len(h.waiting), v)
		}
		if v.leases == 0 && !v.ended && (v.retired || v.overdue(0)) {
			h.t.Errorf("idle for %v, and not closed: %+v", time.Since(v.rested), v)
		}
	}
	for _, w := range h.waiting {
		if !w.late.IsZero() && time.Now().After(w.late) {
			h.t.Errorf("get %d waits for too long", w.number)
		}
	}
	for _, g := range served {
		for _, w := range h.waiting {
			if w.number < g.number && !w.checked {
				h.t.Errorf("get %d was served before %d", g.number, w.number)
			}
		}
	}
	if h.closing && len(h.waiting) > 0 {
		h.t.Errorf("%d wait for a closed pool", len(h.waiting))
	}
}

func (h *history) lendable(v *thing) bool {
	return !v.ended && !v.asked && !v.discarded && !v.retired && !v.overdue(0) && time.Since(v.born) < 200*time.Second && v.leases < v.capacity && v.generation == h.resets && !h.closing
}
