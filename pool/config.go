package pool

import (
	"context"
	"fmt"
	"time"
)

// A Config says what a Pool is made of. Open or Ask is needed; everything else
// may be left zero.
//
// The functions are called under no lock, by many goroutines at once. A panic
// in one of them is not caught: where it comes up in the caller's goroutine
// (Close within Discard, IdleFor within Put, Obstacle within Get, and Check if
// ProbeTimeout is negative) and is recovered there, the pool goes on.
type Config[T any] struct {
	// Open opens a value. Its context has the values, not the cancellation, of
	// the Get that has waited longest; it ends after OpenTimeout, by Reset and by
	// Close. Otherwise what is begun is finished: the value goes to whoever waits
	// then.
	Open func(ctx context.Context) (T, error)

	// Ask, instead of Open, asks for permission first, where opening needs one:
	// a port, a slot of a semaphore. Its context ends when nobody needs the value
	// any more. There is at most one Ask at a time, however many wait: fairness
	// between pools must not go by the length of their queues. It must heed its
	// context; how long it may take is its own affair.
	Ask func(ctx context.Context) (Permit[T], error)

	// Obstacle says what the Ask under way waits for, if it knows: who has the ports.
	// A Get whose deadline has passed asks it before it leaves the queue, and has
	// it in its *WaitError. It must not block.
	Obstacle func() error

	// Close ends a value, for a cause: what Discard was given, or a Reason. Until
	// it returns, the value takes up room. The pool calls it in a goroutine of
	// its own, so that one which hangs holds up nobody; only Discard calls it
	// in the caller's. Nil: there is nothing to end.
	Close func(v T, cause error)

	// Capacity says how many leases v can carry at once. Nil: one. It is read
	// when v is opened, and whenever Watch says that something changed; it must not
	// call changed itself. Zero or less: no more; v is closed when its last lease
	// has ended.
	Capacity func(v T) int

	// Expect is how many leases a value will probably carry, until the first that is
	// opened tells. Zero: nobody knows, and one is opened to learn it, however many
	// wait. It needs Capacity.
	Expect int

	// Watch is told once of each value, and calls changed, under no lock of its
	// own, whenever Capacity(v) may have changed: v got more streams, or has ended.
	// Without Capacity it calls changed when v has ended. Why it has, if that is
	// known, is what Close is told, and throws doubt on the others as the error of a
	// Beat does; nil does not.
	Watch func(v T, changed func(spent error))

	// Check asks an idle value whether it is still good, before it is lent. Its
	// context has the values of the Get's. A Get that ends before does not cut it
	// off, and the value stays; only where ProbeTimeout is negative its context is
	// the Get's, and Check has failed when that ends. CheckAfter is for how long the
	// value must have been idle to be asked. Zero: always. What was opened for those
	// who wait is not asked before its first lease.
	Check      func(ctx context.Context, v T) error
	CheckAfter time.Duration

	// Beat is called with each idle value every BeatEvery, shortened by up to a
	// tenth; four at a time, and never while the value is lent. One that fails
	// is closed, and the other idle ones are asked at once, before they are lent.
	// Lease.Doubt has the same asked for another reason.
	//
	// Check and Beat must heed their context. An error of theirs that matches a
	// Reason, such as Reclaimed, is told as that, and says nothing of the others.
	Beat      func(ctx context.Context, v T) error
	BeatEvery time.Duration

	// Max is how many values there may be, with those being opened and those
	// being closed. Zero: as many as are needed.
	Max int

	// MinIdle is how many idle values are kept ready once the pool is in use,
	// opened one after the other, 100 ms apart. One that was taken away, by Reclaim,
	// Retire or Watch, is replaced after 5 s; where opening fails, none is until somebody
	// needs a value.
	MinIdle int

	// MaxIdle closes a value that was idle for so long, unless MinIdle needs it.
	// Zero: never.
	MaxIdle time.Duration

	// IdleFor says how long v may be idle, where that differs from value to value: a
	// server may tell it with each answer. It is read when v is opened and each time
	// it is put back. After that v is closed, even if MinIdle needs it; MaxIdle may
	// be sooner. Zero: MaxIdle alone counts. Negative: v is closed at once, unless
	// somebody waits.
	IdleFor func(v T) time.Duration

	// MaxLife closes a value of that age when it is not lent, and lends it no
	// more. Each draws its own at birth, between three quarters and the whole, so
	// that those opened together do not end together. Zero: never.
	MaxLife time.Duration

	// OpenTimeout bounds Open. Zero: 30 s. Negative: nothing does. An Open that
	// does not heed its context counts as failed a second later.
	OpenTimeout time.Duration

	// ProbeTimeout bounds each Check and Beat. Zero: 5 s. Negative: nothing does but
	// what is said there, for a Check that takes no time: it is called in the
	// goroutine of its Get, which saves some microseconds.
	ProbeTimeout time.Duration

	// MaxWait is how long a Get waits whose context has no deadline; it ends as by
	// one. Zero: as long as it takes. A Check in the goroutine of its Get, where
	// ProbeTimeout is negative, is not cut off by it.
	MaxWait time.Duration

	// Patience is for how long a Get outlasts openings that fail, while the pool
	// tries again, less and less often. Zero: an opening that fails, with
	// nothing else there or under way, fails those who waited when it began.
	// Negative: so it does, and otherwise, whoever of them has waited longest.
	Patience time.Duration

	// LeakAfter, if not zero, reports a lease that is out for so long to Observe,
	// with the place that took it; and a Get that waited in vain says if its own
	// goroutine has a lease of the same pool. It costs some microseconds a Get.
	LeakAfter time.Duration

	// Observe is told of what happens, under no lock. It must not block.
	Observe func(Event)
}

// A Permit is the permission to open one value. The pool opens it or releases
// it, once.
type Permit[T any] interface {
	Open(ctx context.Context) (T, error)
	Release()
}

// freely is the Permit of a Config without Ask.
type freely[T any] func(ctx context.Context) (T, error)

func (f freely[T]) Open(ctx context.Context) (T, error) { return f(ctx) }
func (f freely[T]) Release()                            {}

const (
	defaultOpenTimeout  = 30 * time.Second
	defaultProbeTimeout = 5 * time.Second

	// overdueAfter is how long after its context ended an Open may go on before
	// the pool stops to count on it.
	overdueAfter = time.Second

	fillEvery   = 100 * time.Millisecond
	refillAfter = 5 * time.Second
	beatsAtOnce = 4

	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// Validate returns what is wrong with c, by field and value: New panics with it.
func (c Config[T]) Validate() error {
	switch {
	case c.Open == nil && c.Ask == nil:
		return fmt.Errorf("pool: Config has neither Open nor Ask")
	case c.Open != nil && c.Ask != nil:
		return fmt.Errorf("pool: Config has both Open and Ask")
	case c.Beat == nil != (c.BeatEvery == 0):
		return fmt.Errorf("pool: Config.BeatEvery is %v, and Beat is set: %t; each needs the other", c.BeatEvery, c.Beat != nil)
	case c.Expect != 0 && c.Capacity == nil:
		return fmt.Errorf("pool: Config.Expect is %d, and Capacity is not set", c.Expect)
	case c.Max > 0 && c.MinIdle > c.Max:
		return fmt.Errorf("pool: Config.MinIdle is %d, more than Max, %d", c.MinIdle, c.Max)
	}
	for _, f := range []struct {
		field string
		n     int64
		value any
	}{
		{"Expect", int64(c.Expect), c.Expect},
		{"Max", int64(c.Max), c.Max},
		{"MinIdle", int64(c.MinIdle), c.MinIdle},
		{"CheckAfter", int64(c.CheckAfter), c.CheckAfter},
		{"BeatEvery", int64(c.BeatEvery), c.BeatEvery},
		{"MaxIdle", int64(c.MaxIdle), c.MaxIdle},
		{"MaxLife", int64(c.MaxLife), c.MaxLife},
		{"MaxWait", int64(c.MaxWait), c.MaxWait},
		{"LeakAfter", int64(c.LeakAfter), c.LeakAfter},
	} {
		if f.n < 0 {
			return fmt.Errorf("pool: Config.%s is %v; it cannot be negative", f.field, f.value)
		}
	}
	return nil
}

// bounded returns ctx with a timeout: def where it is zero, none where it is
// negative.
func bounded(ctx context.Context, timeout, def time.Duration) (context.Context, context.CancelFunc) {
	if timeout < 0 {
		return ctx, func() {}
	}
	if timeout == 0 {
		timeout = def
	}
	return context.WithTimeout(ctx, timeout)
}
