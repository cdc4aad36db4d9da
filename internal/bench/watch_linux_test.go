package main

import (
	"errors"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/natwise/natwise/internal/leak"
)

// smallCrowd is of 40 connections.
func smallCrowd(t *testing.T) *crowd {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	c, err := openCrowd(40)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
		if stacks := leak.Beyond(goroutines); stacks != "" {
			t.Errorf("goroutines left behind:\n%s", stacks)
		}
	})
	return c
}

func TestEveryWayTellsOfEveryEnd(t *testing.T) {
	c := smallCrowd(t)
	goroutines := map[string]int{ourName: 1, readName: 40, loopsName: 80}
	for range 2 { // on the connections that the others have left
		for _, e := range entrants {
			got, err := c.play(e.begin(), 10)
			if err != nil {
				t.Fatalf("%s: %v", e.name, err)
			}
			if got.goroutines != goroutines[e.name] {
				t.Errorf("%s: %d goroutines", e.name, got.goroutines)
			}
			for _, how := range []ending{fin, rst} {
				if news := got.news[how]; len(news) != 10 || slices.Min(news) <= 0 {
					t.Errorf("%s: the news of a %s took %v", e.name, how, news)
				}
			}
		}
	}
	for i, near := range c.near {
		if near == nil || c.far[i] < 0 {
			t.Errorf("connection %d was not opened again", i)
		}
	}
}

// A wrongWay tells something else than what has ended.
type wrongWay struct {
	tell []func()
	told []int
}

func (w *wrongWay) adopt([]*net.TCPConn) {}
func (w *wrongWay) stop()                {}

// watch tells what it is to tell as soon as it has seen the last connection.
func (w *wrongWay) watch(_ int, ended func()) error {
	if w.tell = append(w.tell, ended); len(w.tell) == 40 {
		for _, i := range w.told {
			w.tell[i]()
		}
	}
	return nil
}

func TestWrongNewsIsNoNews(t *testing.T) {
	c := smallCrowd(t)
	for _, told := range []struct {
		conns []int
		want  string
	}{
		{[]int{5}, "connection 0 was ended and 5 was told"},
		{[]int{0, 20, 20}, "1 ends were told twice"},
	} {
		if _, err := c.play(&wrongWay{told: told.conns}, 1); err == nil || !strings.Contains(err.Error(), told.want) {
			t.Errorf("told of %v: %v, want %s", told.conns, err, told.want)
		}
	}
}

// A heavyWay keeps 64 KiB for each connection before, and 32 KiB more to watch it.
type heavyWay struct{ kept [][]byte }

func (w *heavyWay) keep(bytes int)          { w.kept = append(w.kept, make([]byte, bytes)) }
func (w *heavyWay) watch(int, func()) error { w.keep(32 << 10); return nil }
func (w *heavyWay) stop()                   { w.kept = nil }
func (w *heavyWay) adopt(all []*net.TCPConn) {
	for range all {
		w.keep(64 << 10)
	}
}

func TestAWayIsChargedForWhatWatchingTakes(t *testing.T) {
	got, err := smallCrowd(t).play(new(heavyWay), 0)
	if err != nil {
		t.Fatal(err)
	}
	const noise = 1 << 10 // the slice that holds them, and what else goes on in the process
	if math.Abs(got.conn-64<<10) > noise || math.Abs(got.memory.heap-32<<10) > noise {
		t.Errorf("%.0f bytes before, %.0f by watching", got.conn, got.memory.heap)
	}
}

func TestWithoutEnoughDescriptorsThereIsNoCrowd(t *testing.T) {
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	_, err := openCrowd(1 << 40) // more than any kernel allows
	if !errors.Is(err, errUnavailable) || !strings.Contains(err.Error(), "descriptors are needed") {
		t.Error(err)
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after != before {
		t.Errorf("the limit is %+v, it was %+v (error %v)", after, before, err)
	}
	if stacks := leak.Beyond(goroutines); stacks != "" {
		t.Error(stacks)
	}
}
