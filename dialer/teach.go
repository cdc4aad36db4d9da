package dialer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/natwise/natwise/keepalive"
)

const (
	// leastAnswer is how long an answer may take, at least, before a connection
	// counts as forgotten.
	leastAnswer = time.Second

	// mostGap is of use where a path is said never to forget: a plan probes every
	// minute anyway, which is a quarter of it.
	mostGap = 4 * time.Minute

	// settling is how long the acknowledgement of an answer may be late (Linux,
	// TCP_DELACK_MAX: 200 ms).
	settling = 250 * time.Millisecond

	// slack is what timers are coarse by, and certificates.
	slack = 60 * time.Millisecond
)

// Teach has c, which is parked or in its user's last turn, teach Dialer.Learner
// before it is closed: it is asked, stays silent, without probes, for as long as the
// Learner wants to know about, and is asked again. If it does not answer, another
// connection is, since an outage teaches nothing. Both functions must bring about an
// answer of the far end and return when their context ends; the second opens and
// closes its own connection, for which WithControl is in its context.
//
// Teach blocks for minutes, and returns at once where there is nothing to learn:
// there is no Learner, or it knows the path, or another connection to the same
// address is being taught by. Meanwhile c is parked, so that its port goes to
// whoever needs it. The caller closes c.
func (c *Conn) Teach(ctx context.Context, ask, askAnother func(context.Context) error) {
	k := c.keeper
	l := k.dialer.ledger()
	if k.dialer.Learner == nil || !l.begins(&l.taught, k.key()) {
		return
	}
	defer l.ends(&l.taught, k.key())
	gap := k.toLearn()
	if gap == 0 {
		return
	}
	silent := k.plan()
	silent.Idle, silent.Forgets = -1, -1
	if _, err := c.Unpark(); err != nil || c.Follow(silent) != nil || c.asks(ctx, ask) != nil || !sleep(ctx, settling) {
		return
	}
	if !c.Park(c.Turn()) {
		return
	}
	began := time.Now().Add(-c.Quiet())
	if !sleep(ctx, gap-settling+slack) {
		return
	}
	if _, err := c.Unpark(); err != nil {
		return // somebody needed the port
	}
	k.learn(ctx, c, began, ask, askAnother)
}

// sleep reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// learn finds out whether c has survived its silence.
func (k *keeper) learn(ctx context.Context, c *Conn, began time.Time, ask, askAnother func(context.Context) error) {
	gap := time.Since(began)
	if _, err := c.Peek(); err != nil {
		if errors.Is(err, io.EOF) {
			i, _ := c.Info()
			k.dialer.Learner.Closed(k.key(), gap-i.LastAck) // when it came
		} else if errors.Is(err, keepalive.ErrEnded) {
			k.died(began, gap) // by RST: there were no probes
		}
		return
	}
	if c.Gap() == 0 {
		return // something has crossed the path: nobody knows
	}
	before, _ := c.Info()
	if c.asks(ctx, ask) == nil || ctx.Err() != nil || c.Gap() == 0 {
		return // what was read has told the Learner, if it was no answer
	}
	if after, err := c.Info(); err == nil && after.SegmentsIn > before.SegmentsIn {
		return // it is known to the path: only the answer takes its time
	}
	another, cancel := context.WithTimeout(WithControl(ctx), defaultTimeout)
	defer cancel()
	if askAnother(another) == nil {
		k.died(began, gap)
		c.GiveUp(&keepalive.BlackholeError{Evidence: keepalive.Control, Silence: gap})
	}
}

// asks asks c, and gives it as long as an answer may take.
func (c *Conn) asks(ctx context.Context, ask func(context.Context) error) error {
	patience := leastAnswer
	if i, err := c.Info(); err == nil {
		patience = max(patience, 4*i.RTO)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return ask(ctx)
}

// toLearn is the silence of which the Learner would like to know whether the path
// survives it. Zero: none.
func (k *keeper) toLearn() time.Duration {
	path := k.dialer.Path()
	most := keepalive.For(path).MaxSilence()
	if most == 0 {
		most = mostGap
	}
	if gaps := k.dialer.Learner.Next(k.key(), path, most, 1); len(gaps) > 0 {
		return gaps[0]
	}
	return 0
}
