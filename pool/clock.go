package pool

import "time"

// An instant is a time since the pool was made, with what the machine has slept
// as far as that was noticed.
type instant = time.Duration

// justNow is when a lease has ended of which nobody needed to know the time yet.
const justNow = instant(-1)

const never = instant(1<<63 - 1)

// clock reads the clock; nowLocked is for where a reading may be old.
func (p *Pool[T]) clock() instant { return time.Since(p.epoch) + instant(p.slept.Load()) }

// awakeLocked reads both clocks: where the machine was suspended, the monotonic
// one may have stood still. A wall clock that is set forward is taken for a sleep,
// which closes more than it must; one that is set back, for nothing.
func (p *Pool[T]) awakeLocked() {
	const least = time.Second // less is a wall clock that is being corrected
	now := time.Now()
	wall := time.Duration(now.UnixNano() - p.epoch.UnixNano())
	if slept := wall - now.Sub(p.epoch); slept > time.Duration(p.slept.Load())+least {
		p.slept.Store(int64(slept))
	}
	p.now = now.Sub(p.epoch) + instant(p.slept.Load())
}

// after returns t + d, or never where that is beyond all time.
func after(t instant, d time.Duration) instant {
	if sum := t + d; sum >= t {
		return sum
	}
	return never
}

const tickEvery = 50 * time.Millisecond

// nowLocked returns a time that is up to tickEvery old, so that a busy pool does
// not read the clock at every Get and Put: that takes longer than all the rest.
// An unused pool does not tick.
func (p *Pool[T]) nowLocked() instant {
	if !p.asked { // a store that can be saved
		p.asked = true
	}
	if !p.ticking {
		p.startTickingLocked()
	}
	return p.now
}

func (p *Pool[T]) startTickingLocked() {
	p.now = p.clock()
	if p.shut {
		return
	}
	p.ticking = true
	if p.ticker == nil {
		p.ticker = time.AfterFunc(tickEvery, p.tick)
	} else {
		p.ticker.Reset(tickEvery)
	}
}

func (p *Pool[T]) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ticking = p.asked && !p.shut; p.ticking {
		p.now, p.asked = p.clock(), false
		p.ticker.Reset(tickEvery)
	}
}

// armLocked lets tend run at that time, if it does not run before.
func (p *Pool[T]) armLocked(at instant) {
	if at >= p.wakeAt || p.shut {
		return
	}
	p.wakeAt = at
	d := at - p.clock()
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.tend)
	} else {
		p.timer.Reset(d)
	}
}

func (p *Pool[T]) stopTimersLocked() {
	for _, t := range []*time.Timer{p.timer, p.ticker} {
		if t != nil {
			t.Stop()
		}
	}
}
