package keepalive_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/natwise/natwise/keepalive"
)

const (
	large    = 64 << 20
	copyStep = 32 << 10 // io.Copy's buffer
)

// A threadIO is what the kernel has counted for this thread. Splice counts
// nothing; sendfile counts one read and one write a call.
type threadIO struct{ rchar, syscr int }

// ofThread returns what f costs the thread that runs it.
func ofThread(t *testing.T, f func()) threadIO {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := readThreadIO(t)
	f()
	after := readThreadIO(t)
	return threadIO{after.rchar - before.rchar, after.syscr - before.syscr}
}

func readThreadIO(t *testing.T) (io threadIO) {
	b, err := os.ReadFile("/proc/thread-self/io")
	if err != nil {
		t.Skip("the kernel does not count what a thread reads: ", err)
	}
	var wchar int
	if _, err := fmt.Sscanf(strings.ReplaceAll(string(b), "\n", " "), "rchar: %d wchar: %d syscr: %d", &io.rchar, &wchar, &io.syscr); err != nil {
		t.Fatal(err)
	}
	return io
}

// discard reads whatever comes, and returns how much at the end.
func discard(c *net.TCPConn) chan int64 {
	got := make(chan int64, 1)
	go func() {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
		got <- n
	}()
	return got
}

func TestAFileIsSentBySendfile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(large); err != nil {
		t.Fatal(err)
	}
	c, far, _ := watched(t, keepalive.Plan{})
	got := discard(far)
	cost := ofThread(t, func() {
		if n, err := io.Copy(c, f); n != large || err != nil {
			t.Errorf("sent %d, %v", n, err)
		}
	})
	c.Close()
	if n := <-got; n != large {
		t.Errorf("the peer got %d bytes", n)
	}
	t.Logf("%+v", cost)
	if cost.syscr >= large/copyStep {
		t.Errorf("that took %d reads, no fewer than copying takes", cost.syscr)
	}
}

func TestConnToConnIsSpliced(t *testing.T) {
	from, in, _ := watched(t, keepalive.Plan{})
	out, to, _ := watched(t, keepalive.Plan{})
	source := keepalive.Watch(in, keepalive.Plan{}, func(keepalive.Ending) {})
	defer source.Close()
	got := discard(to)
	go func() {
		for b := make([]byte, 1<<20); from.BytesWritten() < large; {
			if _, err := from.Write(b); err != nil {
				return
			}
		}
		from.Close()
	}()
	cost := ofThread(t, func() {
		if n, err := io.Copy(out, source); n != large || err != nil {
			t.Errorf("passed on %d, %v", n, err)
		}
	})
	out.Close()
	if n := <-got; n != large {
		t.Errorf("the peer got %d bytes", n)
	}
	t.Logf("%+v", cost)
	if cost.rchar > large/2 {
		t.Errorf("%d bytes were read", cost.rchar)
	}
}
