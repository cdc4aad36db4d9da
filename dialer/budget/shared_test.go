package budget_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
	"github.com/natwise/natwise/keepalive/netpath"
)

const hold = 240 * time.Second

// A process has a budget and what it took of account 1, and gives back what is revoked.
type process struct {
	*budget.Shared
	grants []budget.Grant
	told   chan struct{}
}

// start starts a process, which ends with the test, if not before.
func start(t *testing.T, m *budget.Machine, n int) *process {
	p := &process{Shared: m.Join(n), told: make(chan struct{}, 1)}
	t.Cleanup(func() { p.Close() })
	p.SetHold(hold)
	p.Notify(p.told)
	return p
}

// fill takes all that p can get now, and returns how much it has.
func (p *process) fill() int {
	for {
		g, ok := p.Take(budgettest.Key(1))
		if !ok {
			return len(p.grants)
		}
		p.grants = append(p.grants, g)
	}
}

// want keeps p asking for more whenever it is told to, and giving back what is wanted back,
// for that long.
func (p *process) want(d time.Duration) {
	for over := time.After(d); ; {
		p.fill()
		select {
		case <-p.told:
		case <-over:
			return
		}
		p.yield()
	}
}

// yield gives back what is revoked.
func (p *process) yield() {
	var kept []budget.Grant
	for _, g := range p.grants {
		if g.Revoked() {
			g.Release()
		} else {
			kept = append(kept, g)
		}
	}
	p.grants = kept
}

func (p *process) release() {
	for _, g := range p.grants {
		g.Release()
	}
	p.grants = nil
}

// report is that of account 1.
func (p *process) report() budget.Report { return p.Reports(budgettest.Key(1))[0] }

func TestASharedBudgetKeepsTheContract(t *testing.T) {
	budgettest.Test(t, func(n int) budget.Budget {
		s := budget.NewMachine(n).Join(n)
		t.Cleanup(func() { s.Close() })
		return s
	})
}

func TestProcessesTogetherHoldTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		a, b := start(t, m, 8), start(t, m, 8)
		if got := a.fill(); got != 8 {
			t.Fatalf("alone: %d of 8", got)
		}
		if got := b.fill(); got != 0 {
			t.Errorf("%d beyond the limit", got)
		}
		a.grants[0].Release()
		<-b.told // or the test deadlocks
		if got := b.fill(); got != 1 {
			t.Errorf("%d of the one that was given back", got)
		}
	})
}

func TestATwentiethIsForThoseWhoCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(100)
		a, b := start(t, m, 100), start(t, m, 100)
		for range 10 {
			g, _ := a.Take(budgettest.Key(1))
			a.grants = append(a.grants, g)
		}
		if r := a.report(); r.Held != 10 || r.Room != 85 {
			t.Errorf("the first may have more: %+v", r)
		}
		if got := a.fill(); got != 95 {
			t.Errorf("the first has %d, want 95", got)
		}
		if r := a.report(); r.Held != 95 || r.Room != 0 {
			t.Errorf("the first may have no more: %+v", r)
		}
		if got := b.fill(); got != 5 {
			t.Errorf("the second has %d at once, want 5", got)
		}
	})
}

func TestWhoWantsGetsAnEqualPartOnceItIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(128)
		first := start(t, m, 128)
		first.fill()
		ps := []*process{first}
		for range 7 {
			p := start(t, m, 128)
			ps = append(ps, p)
		}
		for _, p := range ps {
			go p.want(3 * time.Second)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, p := range ps {
			if got := p.report().Held; got != 15 && got != 16 { // 122: all but a twentieth
				t.Errorf("process %d holds %d after a second, want 15 or 16", i, got)
			}
		}
		time.Sleep(3 * time.Second)
	})
}

func TestWhoWantsNothingKeepsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(100)
		small, large := start(t, m, 100), start(t, m, 100)
		for range 10 {
			g, _ := small.Take(budgettest.Key(1))
			small.grants = append(small.grants, g)
		}
		large.want(2 * time.Second)
		if got := len(large.grants); got != 85 {
			t.Errorf("%d beside 10, want 85", got)
		}
		if small.yield(); len(small.grants) != 10 {
			t.Errorf("%d of 10 are left to whoever asks for no more", len(small.grants))
		}
	})
}

func TestAGrantThatIsRevokedStaysSoAndOnlyTheExcessIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(100)
		a, b := start(t, m, 100), start(t, m, 100)
		a.fill()
		b.fill()
		<-a.told
		revoked := func() (n int) {
			for _, g := range a.grants {
				if g.Revoked() {
					n++
				}
			}
			return n
		}
		if got := revoked(); got != 47 { // the part is half of all but a twentieth
			t.Errorf("%d of 95 are revoked, want 47", got)
		}
		time.Sleep(time.Minute) // nobody asks any more
		if got := revoked(); got != 47 {
			t.Errorf("%d of them a minute later", got)
		}
	})
}

func TestWhatADeadProcessHeldComesBackAfterOneHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		dead, alive := start(t, m, 8), start(t, m, 8)
		dead.fill()
		alive.fill()
		m.Kill(dead.Shared)
		died := time.Now()
		time.Sleep(hold)
		if got := alive.fill(); got != 0 {
			t.Fatalf("%d ports of the dead within its hold", got)
		}
		if r := alive.report(); r.Quarantined != 8 {
			t.Errorf("%d are quarantined, want 8", r.Quarantined)
		}
		for alive.fill() < 8 {
			<-alive.told
		}
		if late := time.Since(died) - hold; late > 300*time.Millisecond {
			t.Errorf("all of them %v after the hold", late)
		}
	})
}

func TestASuccessorKnowsWhatItsPredecessorLeft(t *testing.T) {
	for _, ending := range []string{"Close", "kill"} {
		t.Run(ending, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := budget.NewMachine(8)
				first := start(t, m, 8)
				for range 5 {
					first.Take(budgettest.Key(1))
				}
				if first.Reports(netpath.Key{})[0].Remembers {
					t.Error("a new table remembers what was before it")
				}
				time.Sleep(hold)
				if ending == "Close" {
					first.Close()
				} else {
					m.Kill(first.Shared)
				}
				second := start(t, m, 8)
				if got := second.fill(); got != 3 {
					t.Errorf("%d at once, want 3", got)
				}
				if r := second.report(); r.Quarantined != 5 || !r.Remembers {
					t.Errorf("report %+v", r)
				}
				time.Sleep(hold + time.Second)
				if got := second.fill(); got != 8 {
					t.Errorf("%d after the hold, want 8", got)
				}
			})
		})
	}
}

func TestAStoppedProcessKeepsWhatItHasAndWantsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(100)
		stopped, alive := start(t, m, 100), start(t, m, 100)
		for range 30 {
			g, _ := alive.Take(budgettest.Key(1))
			alive.grants = append(alive.grants, g)
		}
		stopped.fill() // it is hungry, and hears no more
		m.Stop(stopped.Shared)
		time.Sleep(time.Hour)
		alive.want(time.Minute)
		if r := stopped.report(); r.Held != len(stopped.grants) || r.Held+len(alive.grants) > 100 {
			t.Errorf("%d and %d are held of 100", r.Held, len(alive.grants))
		}
		if alive.yield(); len(alive.grants) < 30 {
			t.Errorf("ports are wanted back for a process that is stopped: %d are left", len(alive.grants))
		}
		m.Continue(stopped.Shared)
		time.Sleep(time.Second)
		if got := stopped.report().Held; got != len(stopped.grants) {
			t.Errorf("%d of %d after it went on", got, len(stopped.grants))
		}
	})
}

func TestLimitsMayDifferWhileAProgramIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(10)
		old, young := start(t, m, 10), start(t, m, 20)
		if got := old.fill(); got != 10 {
			t.Fatalf("%d of 10", got)
		}
		if got := young.fill(); got != 9 { // a twentieth of 20 is for newcomers
			t.Errorf("the new limit leaves %d, want 9", got)
		}
		old.release()
		if got := old.fill(); got != 1 {
			t.Errorf("the old limit allows %d beside %d", got, len(young.grants))
		}
	})
}

func TestAccountsThatNobodyUsesMakeRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(2)
		s := m.Join(2)
		defer s.Close()
		for i := range 3 * m.Accounts() {
			g, ok := s.Take(manyKeys(i))
			if !ok {
				t.Fatalf("account %d: no grant", i)
			}
			g.Release()
		}
		if r := s.Reports(netpath.Key{})[0]; r.Degraded != "" {
			t.Error(r.Degraded)
		}
	})
}

func TestWithoutRoomForAnAccountItHasAnEqualPartAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		s, other := m.Join(8), m.Join(8)
		defer s.Close()
		defer other.Close()
		var grants []budget.Grant
		for i := range m.Accounts() {
			g, _ := s.Take(manyKeys(i))
			grants = append(grants, g)
		}
		time.Sleep(time.Second) // it hears of the other
		got := 0
		for ; got < 8; got++ {
			if _, ok := s.Take(manyKeys(m.Accounts())); !ok {
				break
			}
		}
		if got != 4 {
			t.Errorf("%d, want 4, which is half", got)
		}
		if r := s.Reports(netpath.Key{})[0]; r.Degraded == "" {
			t.Error("it does not say that there is no room")
		}
		for _, g := range grants {
			g.Release()
		}
		time.Sleep(2 * time.Second)
		s.Take(manyKeys(m.Accounts()))
		if r := s.Reports(netpath.Key{})[0]; r.Degraded != "" {
			t.Errorf("there is room again, and it says %q", r.Degraded)
		}
		if _, ok := other.Take(manyKeys(m.Accounts())); !ok {
			t.Error("the other gets none of it")
		}
	})
}

func TestAFullDirectoryLetsNoAccountInItExceedItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(128)
		a, b := start(t, m, 128), start(t, m, 128)
		first := a.fill()
		for i := range m.Accounts() - 1 {
			a.Take(manyKeys(1000 + i))
		}
		time.Sleep(time.Second)
		b.Take(manyKeys(0)) // finds no room
		if both := first + b.fill(); both > 128 {
			t.Errorf("%d of 128", both)
		}
	})
}

func TestAnAccountWhosePlaceAnotherHasTakenFindsANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(128)
		a, b := start(t, m, 128), start(t, m, 128)
		g, _ := a.Take(manyKeys(0))
		var others []budget.Grant
		for i := range m.Accounts() - 1 {
			g, _ := b.Take(manyKeys(1000 + i))
			others = append(others, g)
		}
		g.Release() // a still looks after it, but has nothing there
		got := a.fill()
		others[0].Release()
		time.Sleep(time.Second)
		if _, ok := a.Take(manyKeys(0)); !ok {
			t.Error("the account has no place any more")
		}
		if got += b.fill(); got > 128 {
			t.Errorf("%d of 128 in its former place", got)
		}
	})
}

func TestWhoWasRefusedIsToldOfRoomThoughAnotherUserHadSomeMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		a, b := start(t, m, 8), start(t, m, 8)
		b.fill()
		if _, ok := a.Take(budgettest.Key(1)); ok {
			t.Fatal("a ninth port")
		}
		b.grants[0].Release()
		a.Take(budgettest.Key(1)) // another user of a, who was not told
		for told := true; told; { // who was refused asks again, in vain
			time.Sleep(600 * time.Millisecond)
			select {
			case <-a.told:
				_, told = a.Take(budgettest.Key(1))
			default:
				told = false
			}
		}
		b.grants = b.grants[1:]
		b.release()
		select {
		case <-a.told:
		case <-time.After(2 * time.Second):
			t.Error("seven ports are free, and nobody is told")
		}
	})
}

func TestTheLongestHoldThatWasSaidCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		a, b := start(t, m, 8), start(t, m, 8)
		a.SetHold(20 * time.Minute)
		a.SetHold(time.Minute)
		a.fill()
		m.Kill(a.Shared)
		b.fill()
		time.Sleep(19 * time.Minute)
		if got := b.fill(); got > 0 {
			t.Errorf("%d ports of the dead after 19 of 20 minutes", got)
		}
		time.Sleep(2 * time.Minute)
		if got := b.fill(); got != 8 {
			t.Errorf("%d of 8 after the hold", got)
		}
	})
}

func TestAProcessThatIsStoppedInTheDirectoryIsNotInTheWayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		stopped, s := start(t, m, 8), start(t, m, 8)
		stopped.fill()
		time.Sleep(time.Second)
		resume := m.StopInDirectory(stopped.Shared)
		refused := 0
		for range 1000 { // ten seconds
			if g, ok := s.Take(budgettest.Key(2)); ok {
				g.Release()
			} else {
				refused++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if refused > 110 {
			t.Errorf("refused for %d0 ms, want a second", refused)
		}
		if r := s.Reports(netpath.Key{})[0]; r.Degraded == "" {
			t.Error("it does not say that a process is stopped")
		}
		if _, ok := s.Take(budgettest.Key(1)); ok {
			t.Error("a ninth port of an account that has its place")
		}
		resume()
		s.Take(budgettest.Key(3))
		if r := s.Reports(netpath.Key{})[0]; r.Degraded != "" {
			t.Error(r.Degraded)
		}
	})
}

func TestTwoProcessesThatMeetInTheDirectoryRaiseNoAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		a, b := start(t, m, 8), start(t, m, 8)
		resume := m.StopInDirectory(a.Shared)
		if _, ok := b.Take(budgettest.Key(1)); ok {
			t.Fatal("a grant, while the directory changes")
		}
		resume()
		if got := a.fill(); got != 8 {
			t.Fatalf("%d of 8", got)
		}
		b.fill() // the account is there by now
		time.Sleep(time.Hour)
		if r := b.Reports(netpath.Key{})[0]; r.Degraded != "" {
			t.Errorf("an hour later: %s", r.Degraded)
		}
		resume = m.StopInDirectory(a.Shared)
		if _, ok := b.Take(budgettest.Key(2)); ok {
			t.Error("the next time it does not wait")
		}
		resume()
	})
}

func TestADamagedHeaderLosesNoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(8)
		a, b := start(t, m, 8), start(t, m, 8)
		a.fill()
		clear(m.Memory()[48:budget.Header]) // all that changes in it
		m.Kill(a.Shared)
		b.fill()
		time.Sleep(hold - time.Second)
		if got := b.fill(); got > 0 {
			t.Errorf("%d ports of the dead", got)
		}
	})
}

func TestALateBurialOfItsPredecessorDoesNotMakeAProcessStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMachine(100)
		a, b := start(t, m, 100), start(t, m, 100)
		a.fill()
		b.fill()
		m.BuryLate(b.Shared)
		go a.want(3 * time.Second)
		b.want(3 * time.Second)
		if got := len(b.grants); got < 47 {
			t.Errorf("%d after three seconds, want an equal part of 95", got)
		}
		synctest.Wait()
	})
}

// manyKeys returns one of many accounts.
func manyKeys(i int) netpath.Key {
	k := budgettest.Key(i % 250)
	k.Source = budgettest.Key(i / 250 % 250).Dest.Addr()
	return k
}

func TestATableOfGarbageIsWholeAgainAfterOneHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for range 4 {
			m := budget.NewMachine(8)
			old := start(t, m, 8)
			old.fill()
			m.Kill(old.Shared)
			mem := m.Memory()[budget.Header:]
			tags := 8 << 10 // members: whoever is alive writes its own line again
			for range 1 << 16 {
				mem[tags+r.IntN(len(mem)-tags)] = byte(r.Uint32())
			}
			s := start(t, m, 8)
			s.want(6 * time.Minute)
			if got := len(s.grants); got != 8 {
				t.Errorf("%d of 8 after six minutes", got)
			}
			s.Close()
		}
	})
}

func TestOnlyTheExcessOverAnEqualPartIsTakenFromThoseWhoHaveMore(t *testing.T) {
	for _, c := range []struct {
		n       int
		content []int
		hungry  int
		before  int
		want    int
	}{
		{128, nil, 0, 0, 128},
		{128, nil, 7, 3, 16},
		{128, []int{4}, 1, 0, 62},
		{128, []int{100}, 1, 1, 43},
		{128, []int{100}, 0, 0, 64},
		{128, []int{10, 40, 60}, 0, 0, 40},
		{10, nil, 2, 0, 4},
		{10, nil, 2, 1, 3},
		{0, nil, 5, 0, 0},
		{1, nil, 5, 5, 0},
	} {
		if got := budget.Part(c.n, slices.Clone(c.content), c.hungry, c.before); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte{0, 0, 8, 16, 3, 11, 2, 4, 0, 0, 5, 6, 0, 8, 16})
	f.Fuzz(func(t *testing.T, program []byte) { synctest.Test(t, func(t *testing.T) { history(t, program) }) })
}

// history plays program, a byte an action, for three processes of one machine: what they hold
// and what the NAT holds for the dead is never more than the limit, and when all is given
// back and forgotten, all of it can be had.
func history(t *testing.T, program []byte) {
	const limit = 6
	m := budget.NewMachine(limit)
	var ps [3]*process
	for i := range ps {
		ps[i] = start(t, m, limit)
	}
	var nat []time.Time // until when ports of those who are gone are held
	for step, op := range program[:min(len(program), 200)] {
		p := ps[op>>3%3]
		switch op & 7 {
		case 0, 1:
			if g, ok := p.Take(budgettest.Key(1)); ok {
				p.grants = append(p.grants, g)
			}
		case 2:
			if n := len(p.grants); n > 0 {
				p.grants[n-1].Release()
				p.grants[n-1].Release()
				p.grants = p.grants[:n-1]
			}
		case 3:
			p.yield()
		case 4, 5:
			for range p.grants {
				nat = append(nat, time.Now().Add(hold))
			}
			if op&1 == 0 {
				m.Kill(p.Shared)
			} else {
				p.Close()
			}
			ps[op>>3%3] = start(t, m, limit)
		case 6:
			time.Sleep(time.Duration(op) * time.Second / 4)
		case 7:
			time.Sleep(time.Duration(op) * time.Millisecond)
		}
		held := 0
		for _, until := range nat {
			if until.After(time.Now()) {
				held++
			}
		}
		for _, p := range ps {
			held += len(p.grants)
		}
		if held > limit {
			t.Fatalf("step %d: %d ports are held, want at most %d", step, held, limit)
		}
	}
	for _, p := range ps[1:] {
		p.Close()
	}
	ps[0].release()
	time.Sleep(2*hold + time.Minute)
	if got := ps[0].fill(); got != limit {
		t.Errorf("%d of %d can be had in the end", got, limit)
	}
	ps[0].Close()
}
