package leak_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// some is how many goroutines are left: more than the one of the test before, which
// may still be on its way out when they are counted.
const some = 8

// leaving is tests that end with a status and leave goroutines, which stay for as
// long as t runs.
func leaving(t *testing.T, status int) func() int {
	return func() int {
		for range some {
			go stay(t.Context())
		}
		return status
	}
}

func stay(ctx context.Context) { <-ctx.Done() }

func TestAGoroutineThatStaysFailsTheTestsAndIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		if status := leak.CheckTo(leaving(t, 0), &out); status != 1 {
			t.Errorf("the status is %d", status)
		}
		if took := time.Since(start); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("it was waited for %v", took)
		}
		if !strings.Contains(out.String(), "leak_test.stay") {
			t.Errorf("it is not shown:\n%s", out.String())
		}
	})
}

func TestAGoroutineOnItsWayOutIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		slow := func() int {
			for range some {
				go time.Sleep(time.Second)
			}
			return 0
		}
		if status := leak.CheckTo(slow, &out); status != 0 || out.Len() > 0 {
			t.Errorf("status %d, output %q", status, out.String())
		}
	})
}

func TestTestsThatFailKeepTheirStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		if status := leak.CheckTo(leaving(t, 2), &out); status != 2 || out.Len() > 0 {
			t.Errorf("status %d, output %q", status, out.String())
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it was waited for %v, though the tests had failed by themselves", took)
		}
	})
}
