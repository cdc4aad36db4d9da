package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer/budget"
)

// sharers is how many processes contend, this one included.
const sharers = 8

// asSharer is the argument, before a directory and a limit, that makes this program another
// process that shares the budget there, and the daemon's.
const asSharer = "budget-sharer"

// What the other processes are told, and say.
const (
	ready     = "ready"
	useHost   = "host"
	useDaemon = "daemon"
	going     = "going"
	halt      = "halt" // answered by how many ports they were granted
)

// An otherProcess is this program once more. It ends with its standard input, and so too if
// this process is killed. Whoever starts it closes it.
type otherProcess struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
}

// startOther returns when the process is ready.
func startOther(stderr io.Writer, args ...string) (*otherProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &otherProcess{process: exec.Command(self, args...)}
	o.process.Stderr = stderr
	if o.in, err = o.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := o.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	o.out = bufio.NewScanner(out)
	if err := o.process.Start(); err != nil {
		return nil, err
	}
	if _, err := o.answer(); err != nil { // it is ready
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

func (o *otherProcess) tell(what string) error {
	_, err := fmt.Fprintln(o.in, what)
	return err
}

// answer waits for a line. A process that is stuck is killed.
func (o *otherProcess) answer() (string, error) {
	late := time.AfterFunc(stuck, func() { o.process.Process.Kill() })
	defer late.Stop()
	if !o.out.Scan() {
		return "", fmt.Errorf("%s said nothing: %w", o.process.Args[1], cmp.Or(o.out.Err(), io.ErrUnexpectedEOF))
	}
	return o.out.Text(), nil
}

// close waits for the end of the process.
func (o *otherProcess) close() error {
	o.in.Close()
	late := time.AfterFunc(stuck, func() { o.process.Process.Kill() })
	defer late.Stop()
	return o.process.Wait()
}

// A sharing is a budget of this host, a daemon's of the same limit, and the other processes
// that share them. Whoever opens it closes it.
type sharing struct {
	host, daemon grantSource
	others       []*otherProcess
	closes       []func() error // in the order in which they were opened
}

// openSharing has so many other processes share a budget in dir.
func openSharing(dir string, limit, others int) (*sharing, error) {
	s := new(sharing)
	if err := s.open(dir, limit, others); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *sharing) open(dir string, limit, others int) error {
	d, err := startDaemon(socketIn(dir), limit)
	if err != nil {
		return err
	}
	s.closes = append(s.closes, d.close)
	for range others {
		o, err := startOther(os.Stderr, asSharer, dir, strconv.Itoa(limit))
		if err != nil {
			return err
		}
		s.others = append(s.others, o)
		s.closes = append(s.closes, o.close)
	}
	h, c, err := join(dir, limit)
	if err != nil {
		return err
	}
	s.closes = append(s.closes, h.Close, c.Close)
	s.host, s.daemon = grantSource{h, inMemory}, grantSource{c, bySocket}
	if n := h.Reports(grantKey)[0].Sharers; n != 1+others {
		return fmt.Errorf("%d processes share, want %d", n, 1+others)
	}
	return nil
}

// join makes this process one of both budgets.
func join(dir string, limit int) (*budget.Shared, *daemonBudget, error) {
	h, err := budget.Host(dir, limit)
	if err != nil {
		return nil, nil, err
	}
	c, err := dialDaemon(socketIn(dir))
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, c, nil
}

func socketIn(dir string) string { return filepath.Join(dir, "socket") }

func (s *sharing) close() error {
	var errs []error
	for i := range s.closes {
		errs = append(errs, s.closes[len(s.closes)-1-i]())
	}
	return errors.Join(errs...)
}

// withSharing calls f with a sharing of its own.
func withSharing(limit, others int, f func(*sharing) error) (err error) {
	dir, err := os.MkdirTemp("", "natwise-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := openSharing(dir, limit, others)
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.close())
}

// withHost calls f with a sharing that nobody else uses. A port is held, so that the account
// lasts as with perKey.
func withHost(f func(*sharing) error) error {
	return withSharing(plenty, 0, func(s *sharing) error {
		s.host.Take(grantKey)
		return f(s)
	})
}

// crowdTurns times single grants of the host's budget and of the daemon's, while all others
// use the same one.
func crowdTurns(limit, pairs int) (mine, theirs []singles, err error) {
	room := make([]time.Duration, 0, mostIn)
	err = withSharing(limit, sharers-1, func(s *sharing) error {
		among := func(use string, b grantSource) func() (singles, error) {
			return func() (found singles, err error) {
				err = s.while(use, func() error {
					found, err = b.time(room)
					return err
				})
				return found, err
			}
		}
		mine, theirs, err = inTurns(pairs, among(useHost, s.host), among(useDaemon, s.daemon))
		return err
	})
	return mine, theirs, err
}

// while calls f while all others use one of the budgets.
func (s *sharing) while(use string, f func() error) error {
	if _, err := s.all(use); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	granted, err := s.all(halt)
	if slices.Contains(granted, "0") {
		err = errors.Join(err, fmt.Errorf("some of the others were granted nothing: %v", granted))
	}
	return err
}

// all tells all others something, and returns what each of them says.
func (s *sharing) all(what string) (answers []string, err error) {
	for _, o := range s.others {
		if err := o.tell(what); err != nil {
			return nil, err
		}
	}
	for _, o := range s.others {
		answer, err := o.answer()
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// beSharer does what it is told until nobody holds the other end of in any more, and returns
// the status of the process.
func beSharer(dir, limit string, in io.Reader, out, stderr io.Writer) int {
	n, err := strconv.Atoi(limit)
	if err != nil {
		fmt.Fprintln(stderr, "bench: sharer: limit:", err)
		return 1
	}
	h, c, err := join(dir, n)
	if err != nil {
		fmt.Fprintln(stderr, "bench: sharer:", err)
		return 1
	}
	defer h.Close()
	defer c.Close()
	fmt.Fprintln(out, ready)
	var hammering *hammer
	for told := bufio.NewScanner(in); told.Scan(); {
		switch told.Text() {
		case useHost:
			hammering = startHammer(h, n)
			fmt.Fprintln(out, going)
		case useDaemon:
			hammering = startHammer(c, n)
			fmt.Fprintln(out, going)
		case halt:
			fmt.Fprintln(out, hammering.stop())
		}
	}
	return 0
}

// A hammer takes and releases again and again. Whoever starts it stops it; it stops by itself
// if nobody does for very long.
type hammer struct {
	over atomic.Bool
	late *time.Timer
	done chan int // how many ports it was granted
}

// startHammer returns when the first port has been taken and released. Where ports are scarce
// it holds several at once, so that there are too few for all.
func startHammer(b budget.Budget, limit int) *hammer {
	width := 1
	if limit == scarce {
		width = scarce / 2
	}
	h := &hammer{done: make(chan int, 1)}
	h.late = time.AfterFunc(2*stuck, func() { h.over.Store(true) })
	began := make(chan struct{})
	go func() {
		held := make([]budget.Grant, 0, width)
		granted := strike(b, held)
		for granted == 0 && !h.over.Load() {
			granted += strike(b, held)
		}
		close(began)
		for !h.over.Load() {
			granted += strike(b, held)
		}
		h.done <- granted
	}()
	<-began
	return h
}

// strike takes as many as there is room for in held, if it can, releases them, and returns how
// many that were.
func strike(b budget.Budget, held []budget.Grant) int {
	for len(held) < cap(held) {
		g, ok := b.Take(grantKey)
		if !ok {
			break
		}
		held = append(held, g)
	}
	for _, g := range held {
		g.Release()
	}
	return len(held)
}

func (h *hammer) stop() (granted int) {
	h.over.Store(true)
	h.late.Stop()
	return <-h.done
}
