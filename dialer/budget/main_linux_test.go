package budget_test

import (
	"os"
	"testing"

	"github.com/natwise/natwise/internal/leak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childOf); dir != "" {
		child(dir)
		return
	}
	os.Exit(leak.Check(m.Run))
}

// childOf is the variable that makes the test program another process of a budget, in the
// directory that it names.
const childOf = "NATWISE_BUDGET_OF"

// limitOf is the variable that gives such a process another limit than 8.
const limitOf = "NATWISE_BUDGET_LIMIT"
