package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
		want fate
	}{
		{nil, stored},
		{fmt.Errorf("%w: 2, error <nil>", errStrange), strange},
		{&dialer.DialError{Network: "tcp", Address: "a:1", Err: io.EOF}, safe},
		{fmt.Errorf("exec: %w", driver.ErrBadConn), safe},
		{&sqlx.LostError{Op: "exec", Err: driver.ErrBadConn}, safe},
		{&sqlx.LostError{Op: "exec", Sent: true, Err: driver.ErrBadConn}, unknown},
		{errDeaf, unknown},
		{io.EOF, unknown},
	} {
		if got := judge(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestEachFateIsHeldAgainstTheRows(t *testing.T) {
	doubles := func(v verdict) int { return v.twice[inTx] }
	for _, c := range []struct {
		name string
		fate fate
		rows int
		of   func(verdict) int
		bad  bool
	}{
		{"stored", stored, 1, func(v verdict) int { return v.stored }, false},
		{"a phantom", stored, 0, func(v verdict) int { return v.phantoms }, true},
		{"safe", safe, 0, func(v verdict) int { return v.safe }, false},
		{"a broken promise", safe, 1, func(v verdict) int { return v.broken }, true},
		{"ran", unknown, 1, func(v verdict) int { return v.ran }, false},
		{"lost", unknown, 0, func(v verdict) int { return v.lost }, false},
		{"strange", strange, 1, func(v verdict) int { return v.strange }, true},
		{"twice, and all seemed well", stored, 2, doubles, true},
		{"twice", unknown, 2, doubles, true},
		{"twice, though nobody knows what came of it", unsent, 2, doubles, true},
	} {
		v := weigh([]insert{{c.fate, io.EOF}}, func(int) way { return inTx }, func(int) int { return c.rows })
		if c.of(v) != 1 {
			t.Errorf("%s: %+v", c.name, v)
		}
		if bad := doubles(v) + v.phantoms + v.broken + v.strange; (bad > 0) != c.bad {
			t.Errorf("%s: %d that must not be: %+v", c.name, bad, v)
		}
		if (v.sent == 0) != (c.fate == unsent) {
			t.Errorf("%s: %d sent", c.name, v.sent)
		}
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

func TestARoundHasEveryFaultAndItsServersRunInTheEnd(t *testing.T) {
	all := faults()
	seen := make(map[kind]bool)
	var down time.Duration // since when; zero: they run
	for i, f := range all {
		if i > 0 && f.at < all[i-1].at {
			t.Errorf("fault %d comes at %v, after that of %v", i, f.at, all[i-1].at)
		}
		seen[f.kind] = true
		switch f.kind {
		case killed, vanished, orphaned:
			if down != 0 {
				t.Errorf("killed at %v, and they are down", f.at)
			}
			down = f.at
		case restart:
			if f.at-down != outage {
				t.Errorf("started at %v, down since %v", f.at, down)
			}
			down = 0
		default:
			if down != 0 || resting(f.at) > 0 {
				t.Errorf("fault %d at %v, where there is nothing to strike", f.kind, f.at)
			}
		}
	}
	if down != 0 || all[len(all)-1].at >= round {
		t.Error("the round does not come to its end")
	}
	for k := range restart + 1 {
		if !seen[k] {
			t.Errorf("no fault %d", k)
		}
	}
}

func TestOneRestIsSoQuietThatThePathForgets(t *testing.T) {
	quiet := func(begin, end time.Duration) bool {
		return !slices.ContainsFunc(faults(), func(f fault) bool { return f.at > begin && f.at < end })
	}
	if rest := resting(working); rest <= realIdle || !quiet(working, working+rest) {
		t.Errorf("it lasts %v, the path remembers for %v", rest, realIdle)
	}
	if resting(working-1) != 0 || resting(half) != 0 || resting(round-1) != 1 {
		t.Error("they rest when they are to work")
	}
	if quiet(half+working, round) {
		t.Error("nobody is killed while all rest")
	}
}

func TestAllIsWellWhenTheLastBadAnswerIsOver(t *testing.T) {
	struck := time.Now()
	answer := func(due, over time.Duration, err error) asked {
		return asked{struck.Add(due), struck.Add(over), over - due, err}
	}
	good := answer(5*time.Second, 5*time.Second+inTime, nil)
	for _, c := range []struct {
		name  string
		asked []asked
		want  work.Reading
	}{
		{"nothing went wrong", []asked{good}, work.Seconds(0)},
		{"an error before", []asked{answer(-2*time.Second, -time.Second, io.EOF), good}, work.Seconds(0)},
		{"an error", []asked{answer(0, 2*time.Second, io.EOF), good}, work.Seconds(2 * time.Second)},
		{"a late answer", []asked{answer(time.Second, 3*time.Second, nil), answer(time.Second, 2*time.Second, io.EOF), good}, work.Seconds(3 * time.Second)},
		{"an error at the end", []asked{good, answer(4*time.Second, 4500*time.Millisecond, io.EOF)}, work.MoreThan(5 * time.Second)},
	} {
		s := &stream{struck: mark{at: struck}, asked: c.asked}
		if got := s.recovery(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestWhatFailedIsLaterThanAll(t *testing.T) {
	struck := time.Now()
	s := &stream{struck: mark{at: struck}}
	for i := range 10 {
		s.asked = append(s.asked, asked{over: struck.Add(time.Second), late: time.Duration(i) * time.Second})
	}
	s.asked[9].err = io.EOF
	s.asked = append(s.asked, asked{over: struck.Add(-time.Second), err: io.EOF})
	l := s.late()
	if l.all() != 10 || l.failed != 1 {
		t.Errorf("%d, of which %d failed", l.all(), l.failed)
	}
	if got := l.quantile(0.9); got != work.Seconds(8*time.Second) {
		t.Errorf("p90 is %+v", got)
	}
	if got := l.quantile(0.99); got != work.MoreThan(impatience) {
		t.Errorf("p99 is %+v", got)
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
