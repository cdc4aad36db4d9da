package dialer_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestABudgetBelowThePathsLimitMakesADialWait(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.Budget = budget.All(budget.PerKey(1), budget.PerKey(3))
		lab.ledger.MaxWait = -1
		d := lab.dialer()
		c := lab.dial(d, server)
		time.AfterFunc(time.Second, func() { c.Close() })
		start := time.Now()
		lab.dial(d, server).Close()
		if took := waited(start); took != 241*time.Second+margin {
			t.Errorf("after %v", took)
		}
	})
}

func TestABudgetThatGrowsWakesTheWaiters(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		limit := budget.PerKey(1)
		lab.ledger.Budget = limit
		d := lab.dialer()
		defer lab.dial(d, server).Close()
		time.AfterFunc(time.Second, func() { limit.SetLimit(4) })
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				c, err := d.DialContext(t.Context(), "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				if took := waited(start); took != time.Second {
					t.Errorf("after %v", took)
				}
				c.Close()
			})
		}
		wg.Wait()
	})
}

func TestABudgetsRefusalIsAnErrBudget(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.ledger.Budget = budget.PerKey(0)
		lab.ledger.MaxWait = time.Second
		_, err := lab.dialer().DialContext(t.Context(), "tcp", server)
		if !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("got %v", err)
		}
	})
}

func TestIfTheBudgetRefusesOneAddressAnotherIsTaken(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.ledger.Budget = budget.PerKey(1)
		d := lab.named(first, second)
		a, b := lab.dial(d, name), lab.dial(d, name)
		if a.RemoteAddr().String() == b.RemoteAddr().String() {
			t.Errorf("both on %v", a.RemoteAddr())
		}
		a.Close()
		b.Close()
	})
}

func TestTwoLedgersOnOneBudgetLoseNoWakeUp(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		shared := budget.PerKey(5)
		lab.ledger.Budget, lab.ledger.MaxWait = shared, -1
		twin := &dialer.Ledger{Path: lab.ledger.Path, Budget: shared, MaxWait: -1, Ramp: -1}
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 40 {
			d := lab.dialer()
			if i%2 == 1 {
				d.Ledger = twin
			}
			wg.Go(func() {
				c, err := d.DialContext(t.Context(), "tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				c.Close()
			})
		}
		wg.Wait()
		if took := waited(start); took != 7*(240*time.Second+margin) { // 8 rounds of 5
			t.Errorf("40 dials took %v", took)
		}
		if peak := lab.nat.Stats().Peak; peak != 5 {
			t.Errorf("%d ports at most", peak)
		}
		time.Sleep(time.Hour)
		if as := twin.Accounts(); len(as) > 0 {
			t.Errorf("the twin left %v", as)
		}
	})
}

func TestShadowDoesNotAskTheBudgetForLeave(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.Budget, lab.ledger.Shadow = budget.PerKey(1), true
		d := lab.dialer()
		for range 3 {
			defer lab.dial(d, server).Close()
		}
	})
}

// A recall is a budget that allows everything and can ask for all of it back.
type recall struct {
	mu     sync.Mutex // guards notify
	notify []chan<- struct{}

	revoked atomic.Bool
	out     atomic.Int32
}

func (r *recall) Take(netpath.Key) (budget.Grant, bool) {
	r.out.Add(1)
	return &recalled{budget: r}, true
}

func (r *recall) Notify(c chan<- struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notify = append(r.notify, c)
}

func (r *recall) revoke() {
	r.revoked.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.notify {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

type recalled struct {
	budget *recall
	once   sync.Once
}

func (g *recalled) Release()      { g.once.Do(func() { g.budget.out.Add(-1) }) }
func (g *recalled) Revoked() bool { return g.budget.revoked.Load() }

func TestARevokedGrantRetiresAParkedFlowAtOnce(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		shared := new(recall)
		lab.ledger.Budget = shared
		d := lab.dialer()
		parked, busy := lab.dial(d, server), lab.dial(d, server)
		parked.Serve(t.Context(), time.Time{})
		busy.Serve(t.Context(), time.Time{})
		park(t, parked)
		shared.revoke()
		synctest.Wait()
		if !parked.Closed() {
			t.Error("the parked flow is still open")
		}
		if _, err := parked.Unpark(); !errors.Is(err, keepalive.ErrRetired) {
			t.Errorf("Unpark: %v", err)
		}
		if busy.Closed() {
			t.Error("the busy flow was ended")
		}
		park(t, busy)
		if !busy.Closed() {
			t.Error("the busy flow is still open after it was parked")
		}
		time.Sleep(time.Hour)
		if n := shared.out.Load(); n != 0 {
			t.Errorf("%d grants are still out", n)
		}
	})
}

// wanting is a budget that may want its grants back.
type wanting struct {
	mu     sync.Mutex
	notify chan<- struct{}
	recall int
}

func (b *wanting) Take(netpath.Key) (budget.Grant, bool) { return &wanted{b: b}, true }

func (b *wanting) Notify(c chan<- struct{}) { b.notify = c }

func (b *wanting) want(n int) {
	b.mu.Lock()
	b.recall = n
	b.mu.Unlock()
	b.notify <- struct{}{}
}

type wanted struct {
	b      *wanting
	marked bool
}

func (g *wanted) Release() {}

func (g *wanted) Revoked() bool {
	g.b.mu.Lock()
	defer g.b.mu.Unlock()
	if !g.marked && g.b.recall > 0 {
		g.b.recall--
		g.marked = true
	}
	return g.marked
}

func TestOfTheFlowsThatABudgetWantsBackTheLongestIdleGoFirst(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		b := new(wanting)
		lab.ledger.Budget = b
		d := lab.dialer()
		var conns []*dialer.Conn
		for range 4 {
			c := lab.dial(d, server)
			defer c.Close()
			conns = append(conns, c)
		}
		for _, i := range []int{2, 0, 1} { // the last one stays in use
			conns[i].Serve(t.Context(), time.Time{})
			park(t, conns[i])
			time.Sleep(time.Second)
		}
		b.want(2)
		time.Sleep(time.Second)
		for i, want := range []bool{true, false, true, false} {
			if got := conns[i].Closed(); got != want {
				t.Errorf("connection %d: ended is %v", i, got)
			}
		}
	})
}

func TestABudgetDoesNotEndWhatWasNeverLent(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		b := new(wanting)
		lab.ledger.Budget = b
		c := lab.dial(lab.dialer(), server)
		defer c.Close()
		park(t, c)
		b.want(1)
		time.Sleep(50 * time.Millisecond)
		if c.Closed() {
			t.Fatal("a new connection was ended before anybody had it")
		}
		time.Sleep(time.Second)
		b.want(1)
		time.Sleep(time.Second)
		if !c.Closed() {
			t.Error("one that nobody takes stays open")
		}
	})
}

func TestWhoWaitsForTheBudgetGetsAnIdlePortOfItsOwnProcess(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		lab.ledger.Budget, lab.ledger.MaxWait = budget.PerKey(2), -1
		mine := lab.dialer()
		for range 2 {
			c := lab.dial(mine, server)
			defer c.Close()
			c.Serve(t.Context(), time.Time{})
			park(t, c)
		}
		start := time.Now()
		lab.dial(lab.dialer(), server).Close() // another owner: below the path's limit, but not the budget's
		if took := waited(start); took > 20*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestOfWhatABudgetWantsBackTheClosedFlowsCountFirst(t *testing.T) {
	inLab(t, 128, func(t *testing.T, lab *lab) {
		lab.serve(server)
		b := new(wanting)
		lab.ledger.Budget = b
		d := lab.dialer()
		idle, closed := lab.dial(d, server), lab.dial(d, server)
		defer idle.Close()
		idle.Serve(t.Context(), time.Time{})
		park(t, idle)
		closed.Close()
		time.Sleep(235 * time.Second) // of 240: sooner than any that is ended now
		b.want(1)
		time.Sleep(time.Second)
		if idle.Closed() {
			t.Error("an idle flow was ended, and a port comes back without that")
		}
	})
}

func TestABudgetIsAskedForADestinationAndNotForAllSockets(t *testing.T) {
	onPath(t, netpath.AzureFunctions(), func(t *testing.T, lab *lab) {
		lab.serve(first, second)
		lab.ledger.Budget = budget.PerKey(1)
		lab.ledger.MaxWait = time.Second
		for _, to := range []string{first, second} {
			defer lab.dial(lab.dialer(), to).Close() // one each, though it is the second socket
		}
	})
}
