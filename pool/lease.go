package pool

// An entry is one value and what the pool knows of it. All but value and pool
// is guarded by the pool's mutex.
type entry[T any] struct {
	// What each lease reads and writes stands together, as in Pool.
	leased     int
	capacity   int
	at         int     // its place in pool.free, counted from one; 0: it is not there
	rested     instant // since when it is idle, or justNow
	generation uint64  // the pool's at birth; another one: it is not fit to be lent
	first      slot[T]
	spare      *slot[T] // further slots that carry no lease
	pool       *Pool[T]
	value      T

	probing   bool // a Check or Beat is asking it; not to be lent meanwhile
	fit       bool // counted in the pool's fit, while the generation is the pool's
	gone      bool // taken out of the pool; Close is called or will be
	condemned bool // it takes no more leases, for this reason:
	reason    Reason
	cause     error
	retired   error // it takes no more leases either, because of Retire

	gauging, gaugeAgain bool // Capacity is being read; and must be once more

	place     node[*entry[T]] // in pool.values
	born      instant
	expires   instant // MaxLife, drawn at birth
	idleFor   instant // IdleFor, read last
	beatEvery instant // BeatEvery, drawn at birth
	proved    instant // when it last passed a Check or a Beat
	spent     error   // what Watch was told of its end
}

// proof returns when e was last known to be good. For one that is lent, that was
// before the lease.
func (e *entry[T]) proof() instant { return max(e.rested, e.proved) }

// noGeneration is of values that are condemned or retired.
const noGeneration = 1<<64 - 1

// A slot is what one lease after the other is made of.
type slot[T any] struct {
	turn  uint64 // counts beginnings and endings
	entry *entry[T]
	next  *slot[T]
	taken *taken // of the present lease, where LeakAfter is set
	held  node[*slot[T]]
}

// lent is what the turns of leases that are out have in common: they are odd.
const lent = 1

// A Lease is one turn with a value. It is made by Get and ended by Put or
// Discard, once; what is ended again, or late, when somebody else has the value,
// does nothing. It may be copied, and ended by another goroutine than the one
// that took it. The zero Lease has no value, and ending it does nothing.
type Lease[T any] struct {
	slot *slot[T]
	turn uint64
}

// Value returns the value that is leased. It panics after Put or Discard, which
// only a bug of the caller's can bring about.
func (l Lease[T]) Value() T {
	if l.slot == nil || l.slot.turn != l.turn {
		panic("pool: Lease.Value after the lease was ended")
	}
	return l.slot.entry.value
}

// Doubt says that an answer of the value's was due and has not come, though nothing
// has failed: what swallowed it may swallow the answers of others. Those idle values
// that were known to be good no later than this one was before its lease are asked
// by Beat, at once and before they are lent, as after a Beat that failed; those put
// back or asked since are not. Without Beat nobody can be asked, and it does nothing.
// Nor does it after Put or Discard; the lease goes on until then.
func (l Lease[T]) Doubt() {
	if l.slot == nil {
		return
	}
	e := l.slot.entry
	p := e.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.slot.turn == l.turn {
		p.doubtUntilLocked(e.proof() + 1)
	}
}

// Put gives the value back, as good as it was. It does not block, unless IdleFor
// does.
func (l Lease[T]) Put() {
	if l.slot == nil {
		return
	}
	e := l.slot.entry
	p := e.pool
	p.mu.Lock()
	if l.slot.turn != l.turn {
		p.mu.Unlock()
		return
	}
	if p.waiters.len == 0 && p.asking == nil && e.generation == p.generation && e.leased == 1 && e.capacity == 1 && !p.dated {
		p.endLeaseLocked(l.slot)
		p.free.push(e) // what settleLocked would come to, and almost always
		e.rested = p.nowLocked()
		p.mu.Unlock()
		return
	}
	if p.cfg.IdleFor != nil && !p.timeLocked(l) {
		p.mu.Unlock()
		return
	}
	p.endLeaseLocked(l.slot)
	p.settleLocked(e)
	p.unlock()
}

// timeLocked reads how long the value of l may be idle from now on. Until that is
// known, the lease goes on. It reports false if somebody else ended it meanwhile.
func (p *Pool[T]) timeLocked(l Lease[T]) (ours bool) {
	e := l.slot.entry
	p.mu.Unlock()
	d := p.idleFor(e.value)
	p.mu.Lock()
	if ours = l.slot.turn == l.turn; ours {
		e.idleFor = d
	}
	return ours
}

// Discard ends the lease because the value is broken, and returns when Close
// has. A value with other leases takes no more and is closed with the last of
// them. Without a cause Close is told Discarded.
func (l Lease[T]) Discard(cause error) {
	if l.slot == nil {
		return
	}
	e := l.slot.entry
	p := e.pool
	p.mu.Lock()
	if l.slot.turn != l.turn {
		p.mu.Unlock()
		return
	}
	p.endLeaseLocked(l.slot)
	e.condemnLocked(Discarded, cause)
	last := e.leased == 0
	if last {
		p.removeLocked(e)
	} else {
		p.unlistLocked(e)
	}
	p.mu.Unlock()
	if last {
		p.close(e)
	}
}
