package main

import (
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

func TestAFateIsWhatTheErrorPromises(t *testing.T) {
	for _, c := range []struct {
		err  error
		want work.Fate
	}{
		{nil, work.Succeeded},
		{fmt.Errorf("%w: 404", errStrange), work.Strange},
		{&dialer.DialError{Network: "tcp", Address: "a:1", Err: io.EOF}, work.Safe},
		{io.EOF, work.Unknown},
	} {
		if got := judge(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestTheFaultsProveSomething(t *testing.T) {
	if err := faults.Check(); err != nil {
		t.Error(err)
	}
}
