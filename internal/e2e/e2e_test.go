package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/sqlx"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

func TestAFateIsWhatTheErrorPromises(t *testing.T) {
	for _, c := range []struct {
		err  error
		want work.Fate
	}{
		{nil, work.Succeeded},
		{fmt.Errorf("%w: 2, error <nil>", errStrange), work.Strange},
		{&dialer.DialError{Network: "tcp", Address: "a:1", Err: io.EOF}, work.Safe},
		{fmt.Errorf("exec: %w", driver.ErrBadConn), work.Safe},
		{&sqlx.LostError{Op: "exec", Err: driver.ErrBadConn}, work.Safe},
		{&sqlx.LostError{Op: "exec", Sent: true, Err: driver.ErrBadConn}, work.Unknown},
		{errDeaf, work.Unknown},
		{io.EOF, work.Unknown},
	} {
		if got := judge(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWhatIsStoredTwiceIsCountedByHowItWasSent(t *testing.T) {
	c := new(crowd)
	if got, want := c.byWay([]int{3, 4, 7}), [...]int{text: 1, inTx: 2}; got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestEveryInsertHasAnIDAndEveryWayIsTaken(t *testing.T) {
	seen := make(map[int]bool)
	taken := make(map[way]int)
	for n := range 2 {
		c := &crowd{base: n * insertsFull}
		for i := range insertsFull {
			if seen[c.id(i)] {
				t.Fatalf("id %d comes twice", c.id(i))
			}
			seen[c.id(i)] = true
			taken[c.way(i)]++
		}
	}
	for w := range ways {
		if taken[w] != 2*insertsFull/int(ways) {
			t.Errorf("%v: %d", w, taken[w])
		}
	}
}

func TestTheFaultsProveSomething(t *testing.T) {
	if err := faults.Check(); err != nil {
		t.Error(err)
	}
}

func TestWhoHeedsNoContextIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		heard := make(chan struct{})
		defer close(heard)
		begin := time.Now()
		err := heeding(ctx, func(context.Context) error {
			<-heard
			return nil
		})
		if took := time.Since(begin); !errors.Is(err, errDeaf) || took != time.Minute+grace {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestWhoHeedsTheContextIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := heeding(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(grace / 2) // it has to say so to its server
			return io.EOF
		})
		if err != io.EOF {
			t.Error(err)
		}
	})
}

func TestOursAndItsPeerSleepSideBySideWithDestinationsOfTheirOwn(t *testing.T) {
	all := idleTerms()
	for i, own := range all {
		if own.address != i {
			t.Errorf("client %d has address %d", i, own.address)
		}
		if i%2 > 0 {
			continue
		}
		if peer := all[i+1]; own.who != ours || peer.who != plain || own.driver != peer.driver || own.kept != peer.kept {
			t.Errorf("%+v beside %+v", own, peer)
		}
	}
}
