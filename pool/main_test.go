package pool_test

import (
	"os"
	"testing"

	"github.com/natwise/natwise/internal/leak"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }
