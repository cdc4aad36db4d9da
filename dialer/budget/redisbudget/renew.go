package redisbudget

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	perCall  = 32                     // accounts: Redis does nothing else meanwhile
	minPause = 100 * time.Millisecond // between two calls for the same account
	maxCall  = time.Second            // for an answer
)

// An asking is what is asked for an account in one call.
type asking struct {
	account *account
	claim   claim
	refused bool // a Take was
}

// wakeLocked has the goroutine look at an account that wants more. It starts it where none
// runs.
func (b *Budget) wakeLocked(a *account) {
	if b.hot == nil {
		b.hot = make(map[*account]struct{})
	}
	if b.done == nil {
		ctx, stop := context.WithCancel(context.Background())
		b.stop, b.done = stop, make(chan struct{})
		b.hope = b.deadline(time.Now())
		go b.renew(ctx, b.done)
	}
	if _, hot := b.hot[a]; !hot {
		b.hot[a] = struct{}{}
		a.deadline = b.hope
	}
	select {
	case b.soon <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// renew asks Redis whenever an account is due. It ends when none has or wants a lease, or
// with ctx.
func (b *Budget) renew(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		round, wait, ok := b.plan(now)
		switch {
		case !ok:
			return
		case len(round) > 0:
			b.call(ctx, round, now)
		default:
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-b.soon:
			case <-ctx.Done():
			}
		}
	}
}

// plan returns what is to be asked now, or how long there is nothing to do. Not ok: nothing
// at all, and the goroutine is gone.
func (b *Budget) plan(now time.Time) (round []asking, wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked(now)
	if len(b.hot) == 0 {
		b.stop()
		b.stop, b.done, b.lost = nil, nil, false
		return nil, 0, false
	}
	due, wait := b.dueLocked(now)
	for _, a := range due {
		round = append(round, a.askLocked(now))
	}
	return round, wait, true
}

// expireLocked ends what has passed its deadline: leases, and the hope for one.
func (b *Budget) expireLocked(now time.Time) {
	changed := false
	for a := range b.hot {
		if !a.deadline.passed(now) {
			continue
		}
		lost := b.failing != ""
		changed = changed || a.leased > 0 || a.lost != lost
		a.leased, a.lost = 0, lost
		b.lost = b.lost || lost
	}
	if changed {
		b.tellLocked()
	}
}

// dueLocked returns accounts to ask for, those that are due for longest first, or how long
// there are none.
func (b *Budget) dueLocked(now time.Time) (due []*account, wait time.Duration) {
	wait = math.MaxInt64
	for a := range b.hot {
		at := a.nextLocked()
		if at.Before(b.resume) {
			at = b.resume
		}
		wait = min(wait, at.Sub(now))
		if a.leased > 0 || b.failing != "" && !a.lost {
			wait = min(wait, max(0, a.deadline.monotonic.Sub(now)))
		}
		// Who is due in half a renewal's time comes along, so that soon one call renews all.
		if at.Before(now.Add(b.cfg.TTL / 6)) {
			due = append(due, a)
		}
	}
	if wait > 0 {
		return nil, wait
	}
	slices.SortFunc(due, func(a, c *account) int { return a.nextLocked().Compare(c.nextLocked()) })
	return due[:min(len(due), perCall)], 0
}

// nextLocked is when a is to be asked for.
func (a *account) nextLocked() time.Time {
	if (a.refused || a.ahead) && a.soon.Before(a.due) {
		return a.soon
	}
	return a.due
}

// askLocked decides what to ask for. What it does not want any more is given back before it
// says so: what it has, and may use until the answer comes, is never more than it says.
func (a *account) askLocked(now time.Time) asking {
	b := a.budget
	beyond := a.beyondLocked()
	if now.Sub(a.turned) >= b.cfg.TTL/4 {
		a.before, a.peak, a.turned = max(0, a.peak), beyond, now
	}
	wants := b.roomFor(max(a.peak, a.before))
	if a.refused {
		a.extra = max(b.cfg.Block, min(2*a.extra, b.pool))
		wants = max(wants, b.blocks(beyond+a.extra))
	} else {
		a.extra = 0
	}
	wants = max(beyond, min(wants, b.pool))
	if now.Before(b.learning) {
		wants = max(wants, a.leased) // what is given back now does not come again soon
	}
	a.leased = min(a.leased, wants)
	asked := asking{
		account: a,
		claim:   claim{account: a.key.String(), wants: wants, has: max(a.leased, beyond)},
		refused: a.refused,
	}
	a.refused, a.ahead = false, false
	return asked
}

// roomFor is the lease in which n ports are at most three quarters.
func (b *Budget) roomFor(n int) int {
	if n <= 0 {
		return 0
	}
	return b.blocks(n + n/3 + 1)
}

// blocks rounds up to whole blocks.
func (b *Budget) blocks(n int) int { return (n + b.cfg.Block - 1) / b.cfg.Block * b.cfg.Block }

// deadline is when a lease ends that was asked for at a time: before Redis says so, whose
// clock begins later and may go slower.
func (b *Budget) deadline(sent time.Time) deadline { return deadlineAt(sent.Add(b.cfg.TTL / 10 * 9)) }

// call asks Redis. Leases count from sent.
func (b *Budget) call(ctx context.Context, round []asking, sent time.Time) {
	claims := make([]claim, len(round))
	for i, r := range round {
		claims[i] = r.claim
	}
	b.mu.Lock()
	r := b.requestLocked(claims)
	b.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, min(b.cfg.TTL/6, maxCall))
	defer cancel()
	said, err := ask(ctx, b.cfg.Client, b.cfg.NAT, r)

	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.failLocked(round, err)
		return
	}
	b.acceptLocked(round, said, sent)
}

func (b *Budget) requestLocked(claims []claim) request {
	b.calls++
	since := time.Since(b.heard) // by the monotonic clock: never more than it was
	return request{
		id: b.id, call: b.calls, seen: b.version,
		ttl: b.cfg.TTL, hold: b.quarantineLocked(), pool: b.cfg.pool(max(2*b.cfg.Instances, b.counted)),
		born: b.born, clock: b.clock + since,
		claims: claims,
	}
}

// failLocked leaves everything as it is: leases end by their deadlines.
func (b *Budget) failLocked(round []asking, err error) {
	if b.closed {
		return // it was Close that ended the call
	}
	b.failures++
	b.failing = reason(err)
	b.resume = time.Now().Add(jitter(b.cfg.TTL / 6))
	for _, r := range round {
		r.account.refused = r.account.refused || r.refused
	}
}

func (b *Budget) acceptLocked(round []asking, said answer, sent time.Time) {
	now := time.Now()
	changed := b.failing != "" || b.counted != said.counted || now.Before(b.learning) != (said.learning > 0)
	b.renewals++
	b.failing, b.lost, b.resume = "", false, time.Time{}
	b.version, b.living, b.counted = said.version, said.living, said.counted
	b.born, b.clock, b.heard = said.born, said.clock, now
	b.learning = now.Add(said.learning)
	b.hope = b.deadline(sent)
	b.floor = b.cfg.floor(max(2*b.cfg.Instances, said.counted))

	each := jitter(b.cfg.TTL / 3) // the same for all: they come together again
	for i, r := range round {
		a := r.account
		changed = changed || r.refused || a.lost || a.leased != said.parts[i].grant
		a.deadline, a.answered, a.lost = b.hope, now, false
		a.acceptLocked(r, said.parts[i], sent, each)
		changed = changed || a.recallLocked() > 0 // those that were in use may be idle by now
	}
	if changed {
		b.tellLocked()
	}
}

func (a *account) acceptLocked(r asking, said part, sent time.Time, each time.Duration) {
	b := a.budget
	switch {
	case time.Now().Before(b.learning):
		a.pause = b.cfg.TTL // nothing comes before the next renewal either
	case r.refused && said.grant <= a.leased:
		a.pause = min(max(minPause, 2*a.pause), b.cfg.TTL)
	default:
		a.pause = jitter(minPause)
	}
	a.due, a.soon = sent.Add(each), sent.Add(min(a.pause, each))
	a.leased, a.quarantined = said.grant, said.quarantined
	a.short = said.grant < r.claim.wants
	a.eager = math.MaxInt
	if said.grant == r.claim.wants && said.grant > 0 && said.grant < b.pool {
		a.eager = b.floor + said.grant - said.grant/4
	}
	if r.claim.wants == 0 && said.grant == 0 && a.beyondLocked() == 0 && !a.refused {
		a.coolLocked()
	}
}

// coolLocked is the end of an account's lease.
func (a *account) coolLocked() {
	*a = account{budget: a.budget, key: a.key, held: a.held, called: a.called, eager: math.MaxInt}
	delete(a.budget.hot, a)
	a.forgetLocked()
}

// leave makes the last calls. Nothing runs beside it.
func (b *Budget) leave(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls == 0 {
		return nil
	}
	claims := []claim{}
	for a := range b.hot {
		a.leased = 0
		claims = append(claims, claim{account: a.key.String(), has: a.beyondLocked()})
		a.leased = 0
		delete(b.hot, a)
		a.forgetLocked()
	}
	for {
		n := min(len(claims), perCall)
		r := b.requestLocked(claims[:n])
		r.leaves = true
		b.mu.Unlock()
		_, err := ask(ctx, b.cfg.Client, b.cfg.NAT, r)
		b.mu.Lock()
		if err != nil {
			return fmt.Errorf("redisbudget: close: %w", err)
		}
		if claims = claims[n:]; len(claims) == 0 {
			return nil
		}
	}
}

// jitter keeps instances apart: d, a tenth more or less.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(max(1, d/5))
}
