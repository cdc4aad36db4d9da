package pool_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/pool"
)

// A process that was stopped gets its requests before its timers.
func TestAFrozenProcessIsLentNothingThatIsTooOld(t *testing.T) {
	const limit = 300 * time.Millisecond
	if os.Getenv("POOL_FROZEN") != "" {
		thaw(t, limit)
		return
	}
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "POOL_FROZEN=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if _, err := lines.ReadString('\n'); err != nil { // its values are idle
			t.Fatal(err)
		}
		cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(2 * limit) // of another process's life
		fmt.Fprintln(in, "go on")
		cmd.Process.Signal(syscall.SIGCONT)
		rest, _ := io.ReadAll(lines)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, rest)
		}
	}
}

// thaw is the other process.
func thaw(t *testing.T, limit time.Duration) {
	opened := 0
	open := func(context.Context) (int, error) { opened++; return opened, nil }
	checked := false
	idle := pool.New(pool.Config[int]{Open: open, MaxIdle: limit})
	each := pool.New(pool.Config[int]{Open: open, IdleFor: func(int) time.Duration { return limit }})
	old := pool.New(pool.Config[int]{Open: open, MaxLife: limit})
	check := pool.New(pool.Config[int]{Open: open, CheckAfter: limit, Check: func(context.Context, int) error { checked = true; return nil }})
	pools := []*pool.Pool[int]{idle, each, old, check}
	for _, p := range pools {
		if l, err := p.Get(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			l.Put()
		}
	}
	fmt.Println("idle")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for i, p := range pools[:3] {
		if l, ok := p.TryGet(time.Hour); ok {
			l.Put()
			t.Errorf("what is too old was lent by pool %d to whoever tried", i)
		}
	}
	for i, p := range pools {
		if l, ok := p.TryGet(limit); ok {
			l.Put()
			t.Errorf("pool %d lent what was proved before the freeze", i)
		}
		l, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if l.Value() <= len(pools) && !(p == check && checked) {
			t.Errorf("pool %d lent a value of before the freeze", i)
		}
		l.Put()
		p.Close(t.Context())
	}
}
