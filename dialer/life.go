package dialer

import (
	"time"
	"weak"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// dial says that the SYN of f is about to be sent.
func (l *Ledger) dial(f *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.stage, f.sent = dialing, time.Now()
	for _, d := range f.debts() {
		d.account.asked--
		d.account.dialing++
	}
}

// connected says that f carries a connection.
func (l *Ledger) connected(f *flow, c *keepalive.Conn, k *keeper) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	f.stage = open
	f.conn, f.keeper = weak.Make(c), k
	f.local = addrPort(c.LocalAddr())
	for _, d := range f.debts() {
		d.account.dialing--
		d.account.opened++
	}
	if f.grant != nil {
		if l.revocable++; l.revocable == 1 {
			l.deaf = make(chan struct{})
			go l.listen(l.deaf)
		}
	}
	if f.owes > 0 {
		l.provedLocked(now, f.at[0].account)
	}
	l.succeededLocked(f)
	l.pumpLocked(now, f.debts())
}

// conn is the connection of f; nil: there is none.
func (l *Ledger) conn(f *flow) *keepalive.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f.conn.Value()
}

// listen looks at all flows whenever the Budget asks for it, until deaf.
func (l *Ledger) listen(deaf <-chan struct{}) {
	for {
		select {
		case <-l.told:
			l.recheck()
			l.tellEngines()
		case <-deaf:
			return
		}
	}
}

// drop gives back a flow whose SYN was never sent: nothing is held for it.
func (l *Ledger) drop(f *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var now time.Time // of interest only to those who wait
	if len(l.crowded) > 0 {
		now = time.Now()
	}
	l.dropLocked(now, f)
}

func (l *Ledger) dropLocked(now time.Time, f *flow) {
	if f.stage == asked {
		for _, d := range f.debts() {
			d.account.asked--
		}
	} else {
		for _, d := range f.debts() {
			d.account.dialing--
		}
	}
	if f.trial {
		f.at[0].account.failing.trying = false
	}
	if f.owes > 0 {
		f.at[0].account.live.remove(f)
	}
	l.closeLocked(now, f)
	l.spareFlow = f
}

// failed says how the dial of f went wrong after its SYN. An inconclusive
// failure, such as the caller's own impatience, says nothing about the address.
func (l *Ledger) failed(f *flow, how keepalive.How, err error, conclusive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if f.owes > 0 && how == keepalive.Unanswered {
		l.vainLocked(now, f.at[0].account)
	}
	for _, d := range f.debts() {
		d.account.dialing--
		d.account.failed++
	}
	if conclusive {
		l.failedLocked(now, f, err)
	} else if f.trial {
		f.at[0].account.failing.trying = false
	}
	l.coolLocked(now, f, keepalive.Ending{How: how})
}

// ended says that the connection of f is closed. It reports whether the ledger
// itself had wanted that.
func (l *Ledger) ended(f *flow, e keepalive.Ending) (reclaimed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reclaimed = f.reclaimed
	l.coolLocked(time.Now(), f, e)
	return reclaimed
}

// coolLocked begins the hold of f.
func (l *Ledger) coolLocked(now time.Time, f *flow, e keepalive.Ending) {
	if f.owes == 0 {
		return // exempt
	}
	f.at[0].account.live.remove(f)
	f.keeper = nil // nobody uses it any more
	if f.stage == open && f.grant != nil {
		if l.revocable--; l.revocable == 0 {
			close(l.deaf)
		}
	}
	hold := l.hold(e)
	if hold <= 0 {
		l.closeLocked(now, f)
		return
	}
	var buf [2 * maxKeys]debt
	free, held := buf[:0:maxKeys], buf[maxKeys:maxKeys]
	for _, d := range f.debts() {
		if d.account.key.Scope() == netpath.Sockets {
			free = append(free, d) // no port: a closed socket leaves at once
			continue
		}
		held = append(held, d)
		d.account.cooling[e.How]++
	}
	if len(held) == 0 {
		l.closeLocked(now, f)
		return
	}
	f.owes = copy(f.at[:], held)
	f.stage, f.how, f.release = cooling, e.How, now.Add(hold)
	queue := int(e.How)
	if e.Unsure {
		queue += hows
	}
	l.cool[queue].push(f)
	l.payLocked(now, f, free)
	l.pumpLocked(now, f.debts()) // one dial less is under way
	l.armLocked(now)
}

// closeLocked ends a flow: its ports and its grant are given back.
func (l *Ledger) closeLocked(now time.Time, f *flow) {
	if f.grant != nil {
		f.grant.Release()
	}
	l.payLocked(now, f, f.debts())
	f.owes = 0
}

// payLocked gives back ports of f and lets those who wait have them.
func (l *Ledger) payLocked(now time.Time, f *flow, debts []debt) {
	for _, d := range debts {
		d.account.total--
		d.share.flows--
		if f.reclaimed {
			d.account.reclaiming--
			d.share.reclaiming--
		}
		l.closeShareLocked(d.account, d.share)
	}
	l.pumpLocked(now, debts)
	for _, d := range debts {
		l.forgetLocked(d.account)
	}
}
