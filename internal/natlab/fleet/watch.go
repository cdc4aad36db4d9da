package main

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// lookEvery is how often the gateway's table is read. What is in it stays for 1.5 s at the
// least, so no flow is missed.
const lookEvery = 5 * time.Millisecond

// A sight is what the gateway's table held at one moment.
type sight struct {
	at    time.Time
	taken int                // ports, of the dead too
	by    map[netip.Addr]int // ports of the living, by who has them
}

// living is how many ports the living have together.
func (s sight) living() (n int) {
	for _, ports := range s.by {
		n += ports
	}
	return n
}

// A watch looks at the gateway's table all the time. It may be used by many goroutines, and
// whoever makes it ends it with close.
type watch struct {
	lab  *natlab.Lab
	stop chan struct{}
	over sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	err    error
	sights []sight
	dead   map[netip.AddrPort]bool // flows whose process is gone
	opened map[netip.AddrPort]time.Time
}

func newWatch(lab *natlab.Lab) *watch {
	w := &watch{
		lab: lab, stop: make(chan struct{}),
		dead: make(map[netip.AddrPort]bool), opened: make(map[netip.AddrPort]time.Time),
	}
	w.over.Go(w.look)
	return w
}

func (w *watch) close() error {
	close(w.stop)
	w.over.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// look looks until it is told to stop, or the table cannot be read.
func (w *watch) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var flows []natlab.Flow
	for {
		var err error
		flows, err = w.lab.Flows(flows[:0])
		w.mu.Lock()
		if w.err = err; err == nil {
			w.noteLocked(time.Now(), flows)
		}
		w.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
	}
}

func (w *watch) noteLocked(now time.Time, flows []natlab.Flow) {
	s := sight{at: now, taken: len(flows), by: make(map[netip.Addr]int)}
	for _, f := range flows {
		if _, known := w.opened[f.Source]; !known {
			w.opened[f.Source] = now
		}
		if !w.dead[f.Source] {
			s.by[f.Source.Addr()]++
		}
	}
	w.sights = append(w.sights, s)
}

// bury notes that the processes at these addresses are gone: what the gateway knows of them
// now is not usable any more. Who begins at such an address later is alive.
func (w *watch) bury(gone ...netip.Addr) error {
	flows, err := w.lab.Flows(nil)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range flows {
		if slices.Contains(gone, f.Source.Addr()) {
			w.dead[f.Source] = true
		}
	}
	return nil
}

// between returns what was seen in that time. A zero end is now.
func (w *watch) between(begin, end time.Time) []sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	if end.IsZero() {
		end = time.Now()
	}
	at := func(s sight, t time.Time) int { return s.at.Compare(t) }
	i, _ := slices.BinarySearchFunc(w.sights, begin, at)
	j, _ := slices.BinarySearchFunc(w.sights, end, at)
	return slices.Clone(w.sights[i:max(i, j)])
}

// peak is the largest number of ports that were taken at a time.
func peak(sights []sight) (most int) {
	for _, s := range sights {
		most = max(most, s.taken)
	}
	return most
}

// below is the longest time that a process had fewer ports than that.
func below(sights []sight, who netip.Addr, ports int) (longest time.Duration) {
	var since time.Time
	for _, s := range sights {
		switch {
		case s.by[who] >= ports:
			since = time.Time{}
		case since.IsZero():
			since = s.at
		default:
			longest = max(longest, s.at.Sub(since))
		}
	}
	return longest
}

// shares are the average numbers of ports that the processes had, the smallest first.
func shares(sights []sight, of []netip.Addr) (mean []float64) {
	for _, who := range of {
		sum := 0
		for _, s := range sights {
			sum += s.by[who]
		}
		mean = append(mean, float64(sum)/float64(max(1, len(sights))))
	}
	slices.Sort(mean)
	return mean
}

// until waits until ok is true of what is seen, and returns when that was; false: it was not
// within that time.
func (w *watch) until(begin time.Time, within time.Duration, ok func(sight) bool) (time.Time, bool) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for from := begin; ; <-tick.C {
		sights := w.between(from, time.Time{})
		for _, s := range sights {
			if s.at.Sub(begin) > within {
				return s.at, false
			}
			if ok(s) {
				return s.at, true
			}
			from = s.at.Add(1)
		}
		if time.Since(begin) > within+time.Second {
			return time.Time{}, false // the watch has ended, of which its close tells
		}
	}
}

// dialed is how many flows of an address the gateway saw begin in that time.
func (w *watch) dialed(who netip.Addr, begin, end time.Time) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for from, at := range w.opened {
		if from.Addr() == who && !at.Before(begin) && at.Before(end) {
			n++
		}
	}
	return n
}

// String is the figures of a sight, for whoever looks for what went wrong.
func (s sight) String() string { return fmt.Sprintf("%d taken, %d by the living", s.taken, s.living()) }
