package dialer

import (
	"errors"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	// proofEvery is how often a doubted connection is probed: the kernel counts in
	// seconds.
	proofEvery = time.Second

	// proofAfter is when two probes have gone out, and their answers should be there.
	proofAfter = proofEvery + 300*time.Millisecond

	// unproved is how many probes, or retransmissions, must be in vain: a lossy path
	// loses one.
	unproved = 2
)

// doubt asks all connections that lead where k's did, which was found in a black hole
// while the path is up: what has swallowed it may have swallowed them. Those that wait for
// an answer, or for somebody to use them, have nothing unacknowledged, and would find out
// by themselves only when as many probes have failed as the plan wants.
func (k *keeper) doubt(why *keepalive.BlackholeError) {
	l := k.dialer.ledger()
	if k.doubted.Load() || why.Evidence == keepalive.GaveUp || !l.begins(&l.asking, k.key()) {
		return
	}
	go func() {
		defer l.ends(&l.asking, k.key())
		asked := k.probeOthers()
		patience := proofAfter
		for _, d := range asked {
			patience = max(patience, proofEvery+2*d.before.RTO)
		}
		time.Sleep(patience)
		for _, d := range asked {
			d.judge(why.Evidence)
		}
	}()
}

// A doubted connection is being asked whether it lives.
type doubted struct {
	keeper *keeper
	conn   *keepalive.Conn
	before keepalive.Info
}

// probeOthers has the kernel probe all connections that lead where k's does.
func (k *keeper) probeOthers() (asked []doubted) {
	l := k.dialer.ledger()
	for _, o := range l.detector.Owners(k.key()) {
		if d, ok := o.(*keeper).probe(); ok {
			asked = append(asked, d)
		}
	}
	return asked
}

// probe has the kernel probe the connection, if there is one and somebody can tell what
// comes of it. Whoever calls it calls judge or answered.
func (k *keeper) probe() (d doubted, ok bool) {
	d = doubted{keeper: k, conn: k.dialer.ledger().conn(k.flow)}
	if d.conn == nil {
		return d, false
	}
	var err error
	if d.before, err = d.conn.Info(); err != nil {
		return d, false
	}
	urgent := k.plan()
	urgent.Idle, urgent.Interval = proofEvery, proofEvery
	return d, d.conn.Follow(urgent) == nil
}

// answered returns what is known of the connection since it was probed, and lets it be as it
// was. It says false while nobody can tell whether it lives.
func (d doubted) answered() (i keepalive.Info, told bool) {
	i, err := d.conn.Info()
	if err != nil {
		return i, false
	}
	d.conn.Follow(d.keeper.plan())
	return i, i.SegmentsIn > d.before.SegmentsIn || i.Probes > 0 || i.Retransmits > 0
}

// judge ends the connection if nothing has come though it was asked for.
func (d doubted) judge(evidence keepalive.Evidence) {
	i, err := d.conn.Info()
	if err != nil {
		return // it has ended
	}
	if i.SegmentsIn == d.before.SegmentsIn && (i.Probes >= unproved || i.Retransmits >= unproved) {
		d.keeper.doubted.Store(true)
		d.conn.GiveUp(&keepalive.BlackholeError{Evidence: evidence, Silence: i.LastAck})
		return
	}
	d.conn.Follow(d.keeper.plan())
}

// begins reports whether what is done for one path at a time, by what set says, may begin.
func (l *Ledger) begins(set *map[netpath.Key]struct{}, k netpath.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, busy := (*set)[k]; busy {
		return false
	}
	if *set == nil {
		*set = make(map[netpath.Key]struct{})
	}
	(*set)[k] = struct{}{}
	return true
}

func (l *Ledger) ends(set *map[netpath.Key]struct{}, k netpath.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(*set, k)
}

// blackhole is the verdict in an ending, if there is one.
func blackhole(err error) *keepalive.BlackholeError {
	var b *keepalive.BlackholeError
	errors.As(err, &b)
	return b
}
