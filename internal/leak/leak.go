// Package leak finds goroutines that outlive the tests of a package. A TestMain
// says
//
//	func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }
//
// It counts, and does not know whose a goroutine is: a package whose tests start
// one that stays by right, as os/signal does, starts it before.
package leak

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

const (
	patience = 2 * time.Second // with goroutines that are on their way out
	pause    = time.Millisecond
)

// Check runs the tests and returns their status. Where they pass and leave
// goroutines behind, it returns 1 and writes all stacks to the standard error.
func Check(run func() int) int { return check(run, os.Stderr) }

func check(run func() int, w io.Writer) int {
	before := runtime.NumGoroutine()
	status := run()
	if status != 0 || fuzzing() {
		return status
	}
	if stacks := Beyond(before); stacks != "" {
		fmt.Fprintf(w, "goroutines left behind:\n%s", stacks)
		return 1
	}
	return 0
}

// fuzzing reports whether go test has -fuzz, whose engine leaves goroutines of
// its own.
func fuzzing() bool {
	f := flag.Lookup("test.fuzz")
	return f != nil && f.Value.String() != ""
}

// Beyond waits until there are n goroutines or fewer, for two seconds at most,
// and returns "". If there still are more it returns the stacks of all.
func Beyond(n int) string {
	// Nobody tells of a goroutine's end, so somebody has to ask.
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > n; time.Sleep(pause) {
		if time.Now().After(deadline) {
			var stacks bytes.Buffer
			pprof.Lookup("goroutine").WriteTo(&stacks, 2) // and who started each
			return stacks.String()
		}
	}
	return ""
}
