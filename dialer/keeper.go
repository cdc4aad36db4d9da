package dialer

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A keeper is told of what becomes of a connection, and has what it takes to open
// another like it. It does not keep the connection alive.
type keeper struct {
	dialer *Dialer
	target target
	way    candidate
	flow   *flow
	exempt bool // nobody counts its hold
	born   time.Time
	local  netip.AddrPort

	doubted atomic.Bool // it was asked whether it lives, and did not answer

	peer   *telemetry.Peer
	uses   atomic.Uint64          // exchanges that were begun, as pools say
	serves atomic.Int32           // of those under way, where a connection carries several
	reason atomic.Pointer[string] // why its owner closes it; nil: nobody said
}

var _ keepalive.Owner = (*keeper)(nil)

// plan is what the path asks for, as far as it is known by now, with the user's own
// fields over it.
func (k *keeper) plan() keepalive.Plan {
	d := k.dialer
	plan := d.Plan.Over(keepalive.For(d.learner().Path(k.key(), d.Path())))
	if k.exempt {
		plan.Linger = 0
	}
	return plan
}

// key is what the Learner knows the path by.
func (k *keeper) key() netpath.Key {
	return netpath.Key{Source: k.way.src, Dest: k.way.dst, Network: "tcp"}
}

func (k *keeper) event(e Event) Event {
	e.Host, e.Local, e.Remote = k.target.address, k.local, k.way.dst
	return e
}

func (k *keeper) ended(e keepalive.Ending) {
	ended := k.event(Event{Kind: Ended, Took: time.Since(k.born), Ending: e, Err: e.Err})
	ended.Retired = k.dialer.ledger().ended(k.flow, e)
	k.tellEnded(ended)
	k.dialer.observe(ended)
	if why := blackhole(e.Err); why != nil {
		k.doubt(why)
	}
}

// Suspected passes on a suspicion. One that is over proves that the address
// answers.
func (k *keeper) Suspected(suspect bool, silence time.Duration) {
	kind := Suspected
	if !suspect {
		kind = Trusted
		l := k.dialer.ledger()
		l.mu.Lock()
		l.succeededLocked(k.flow)
		l.mu.Unlock()
	}
	k.dialer.observe(k.event(Event{Kind: kind, Took: silence}))
}

// Forgotten and Remembered let the Learner know. A peer that died with its probes
// unanswered looks the same as a path that forgets. Two of them may shorten the plan
// for nothing; it does not go on like that from there.
func (k *keeper) Forgotten(silence time.Duration) {
	if silence < k.dialer.Path().Idle/16 {
		return
	}
	plan := k.plan()
	k.died(time.Now().Add(-silence-time.Duration(plan.Count)*plan.Interval), silence)
}

func (k *keeper) Remembered(silence time.Duration) {
	k.dialer.learner().Probed(k.key(), silence)
}

// died lets the Learner know that a silence was not survived. If less will do from
// now on, every connection on this path needs to be kept alive more often.
func (k *keeper) died(began time.Time, silence time.Duration) {
	if !k.dialer.learner().Died(k.key(), began, silence) {
		return
	}
	for _, o := range k.dialer.ledger().detector.Owners(k.key()) {
		o.(*keeper).replan()
	}
}

func (k *keeper) replan() {
	if c := k.dialer.ledger().conn(k.flow); c != nil {
		c.Follow(k.plan())
	}
}

// Try opens a control connection the same way. Nothing is sent on it, so that it
// may end in whichever way frees its port soonest.
func (k *keeper) Try(ctx context.Context) error {
	t := k.target
	t.candidates = []candidate{k.way}
	t.setup = k.dialer.ledger().scope.Setup(ctx, "", t.address)
	r, err := k.dialer.reserve(ctx, t, k.dialer.request(WithControl(ctx), t))
	if err != nil {
		return err
	}
	r.own = true
	c, err := r.Dial(ctx)
	if err != nil {
		return err
	}
	if k.dialer.ledger().resetIsSooner() {
		c.(*Conn).Conn.EndSoonest()
	}
	return c.Close()
}
