package budget_test

import (
	"testing"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestPerKeyKeepsTheContract(t *testing.T) {
	budgettest.Test(t, func(n int) budget.Budget { return budget.PerKey(n) })
}

func TestAllKeepsTheContract(t *testing.T) {
	budgettest.Test(t, func(n int) budget.Budget {
		return budget.All(budget.PerKey(8), budget.PerKey(n), budget.PerKey(9))
	})
}

func TestAllOfNothingAllowsEverything(t *testing.T) {
	b := budget.All()
	for range 1000 {
		if _, ok := b.Take(budgettest.Key(1)); !ok {
			t.Fatal("refused")
		}
	}
}

func TestAllHoldsNothingAfterARefusal(t *testing.T) {
	wide, none := budget.PerKey(1), budget.PerKey(0)
	if _, ok := budget.All(wide, none).Take(budgettest.Key(1)); ok {
		t.Fatal("a grant against the second budget's will")
	}
	if _, ok := wide.Take(budgettest.Key(1)); !ok {
		t.Error("the first budget was not given back its grant")
	}
}

// revocable is a budget whose grants can be called back.
type revocable struct{ revoked bool }

func (b *revocable) Take(netpath.Key) (budget.Grant, bool) { return b, true }
func (b *revocable) Notify(chan<- struct{})                {}
func (b *revocable) Release()                              {}
func (b *revocable) Revoked() bool                         { return b.revoked }

func TestAGrantOfAllIsRevokedWithAnyPartOfIt(t *testing.T) {
	part := new(revocable)
	g, ok := budget.All(budget.PerKey(1), part).Take(budgettest.Key(1))
	if !ok || g.Revoked() {
		t.Fatal("want a grant that stands")
	}
	if part.revoked = true; !g.Revoked() {
		t.Error("the revoked part was not seen")
	}
}

func TestARaisedLimitIsToldToThoseWhoFailed(t *testing.T) {
	b := budget.PerKey(0)
	told := make(chan struct{}, 1)
	b.Notify(told)
	b.Take(budgettest.Key(1))
	b.SetLimit(1)
	<-told
	if _, ok := b.Take(budgettest.Key(1)); !ok {
		t.Error("no grant under the new limit")
	}
}

func TestANegativeLimitIsTheCallersBug(t *testing.T) {
	defer func() {
		if got, want := recover(), "budget: limit is -3, want 0 or more"; got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}()
	budget.PerKey(-3)
}

func FuzzHistories(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 1, 3, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		budgettest.History(t, budget.PerKey(2), 2, program)
		budgettest.History(t, budget.All(budget.PerKey(2), budget.PerKey(5)), 2, program)
	})
}

func BenchmarkTakeAndRelease(b *testing.B) {
	l := budget.PerKey(2)
	l.Take(budgettest.Key(1))
	b.ReportAllocs()
	for b.Loop() {
		g, _ := l.Take(budgettest.Key(1))
		g.Release()
	}
}
