package budget_test

import (
	"os"
	"testing"

	"github.com/natwise/natwise/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }
