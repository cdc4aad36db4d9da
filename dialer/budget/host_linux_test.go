package budget_test

import (
	"testing"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
)

// host returns a member of the budget of n in dir.
func host(t testing.TB, dir string, n int) *budget.Shared {
	t.Helper()
	s, err := budget.Host(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestHostKeepsTheContract(t *testing.T) {
	budgettest.Test(t, func(n int) budget.Budget { return host(t, t.TempDir(), n) })
}

func BenchmarkHostTakeAndRelease(b *testing.B) {
	s := host(b, b.TempDir(), 128)
	s.Take(budgettest.Key(1))
	b.ReportAllocs()
	for b.Loop() {
		g, _ := s.Take(budgettest.Key(1))
		g.Release()
	}
}
