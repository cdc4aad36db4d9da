package main

import (
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A toyEngine shares the ports to one destination with other instances, as package redisbudget
// does, by a server that is away for half of the time. To other destinations it allows all. It
// takes back nothing: connections beyond the floor live on.
type toyEngine struct {
	*budget.Limit // of the destination
	shared        netip.AddrPort
	began         time.Time
	over          chan struct{} // closed by close
	running       sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	report budget.Report
	last   time.Time // answer
	notify []chan<- struct{}
}

var _ budget.Engine = (*toyEngine)(nil)

const (
	toyFloor, toyLease = 8, 8 // ports

	toyRenewal = time.Second
	toyTTL     = 3 * time.Second
	toyAway    = 8 * time.Second // the server, for as long as it is there before
)

// newToyEngine has an engine that asks its server from now on. Whoever calls it calls close.
func newToyEngine(shared netip.AddrPort) *toyEngine {
	e := &toyEngine{
		Limit: budget.PerKey(toyFloor), shared: shared, began: time.Now(), over: make(chan struct{}),
		report: budget.Report{Engine: "toy", Sharers: 4, Limit: ports, Floor: toyFloor, Quarantined: 2},
	}
	e.renew()
	e.running.Go(func() {
		tick := time.NewTicker(toyRenewal)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.renew()
			case <-e.over:
				return
			}
		}
	})
	return e
}

func (e *toyEngine) close() {
	close(e.over)
	e.running.Wait()
}

// renew asks the server for the lease. What was lent before holds until it expires.
func (e *toyEngine) renew() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	was := e.report.Degraded
	if away := now.Sub(e.began)/toyAway%2 == 1; !away {
		e.report.Renewals++
		e.report.Leased, e.report.Degraded, e.last = toyLease, "", now
	} else {
		e.report.Failures++
		if now.Sub(e.last) > toyTTL {
			e.report.Leased, e.report.Degraded = 0, "the server does not answer"
		}
	}
	e.SetLimit(toyFloor + e.report.Leased)
	if e.report.Degraded == was {
		return
	}
	for _, c := range e.notify {
		select {
		case c <- struct{}{}:
		default: // told already
		}
	}
}

// Take asks nobody about other destinations.
func (e *toyEngine) Take(key netpath.Key) (budget.Grant, bool) {
	if key.Dest != e.shared {
		return granted{}, true
	}
	g, ok := e.Limit.Take(key)
	if !ok {
		return nil, false
	}
	e.hold(1)
	return lent{g, e}, true
}

func (e *toyEngine) hold(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.report.Held += n
}

// A lent permission is one that is counted.
type lent struct {
	budget.Grant
	of *toyEngine
}

func (l lent) Release() {
	l.of.hold(-1)
	l.Grant.Release()
}

func (e *toyEngine) Notify(c chan<- struct{}) {
	e.Limit.Notify(c)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notify = append(e.notify, c)
}

func (e *toyEngine) Reports(key netpath.Key) []budget.Report {
	if key != (netpath.Key{}) && key.Dest != e.shared {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.report
	r.Room = max(0, r.Floor+r.Leased-r.Held)
	r.Age = time.Since(e.last)
	return []budget.Report{r}
}

// SetHold is of interest to who takes over what others have left.
func (*toyEngine) SetHold(time.Duration) {}

// granted is a permission that nobody counts.
type granted struct{}

func (granted) Release()      {}
func (granted) Revoked() bool { return false }
