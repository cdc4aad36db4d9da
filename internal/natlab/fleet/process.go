package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// A process is a client, as its parent knows it. It may be used by many goroutines. Whoever
// starts it ends it, by kill or leave.
type process struct {
	source netip.Addr
	cmd    *exec.Cmd
	stdin  io.Closer
	gone   chan struct{} // closed when it has ended, and err is set
	err    error         // how

	mu    sync.Mutex // guards lines
	lines []Line
}

// begin starts a client in the lab.
func begin(lab *natlab.Lab, r Role) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{source: r.Source, cmd: exec.Command(self), gone: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), clientEnv+"=1")
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of a parent that dies, even where it is stopped
	to, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := lab.Inside("client", p.cmd.Start); err != nil {
		return nil, err
	}
	p.stdin = to
	go p.follow(from)
	if err := json.NewEncoder(to).Encode(r); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// follow reads what the process says until it has ended.
func (p *process) follow(from io.Reader) {
	defer close(p.gone)
	for in := json.NewDecoder(from); ; {
		var l Line
		if err := in.Decode(&l); err != nil {
			break // it has ended, or what it says cannot be read: then it has nothing to say any more
		}
		p.mu.Lock()
		p.lines = append(p.lines, l)
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
}

// kill ends it as the kernel does that has no memory left.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	<-p.gone
	return nil
}

// leave asks it to end in order, and waits for that.
func (p *process) leave() error {
	p.stdin.Close()
	select {
	case <-p.gone:
	case <-time.After(2 * leaveWithin):
		return errors.Join(fmt.Errorf("a client does not end within %v", 2*leaveWithin), p.kill())
	}
	return p.err
}

// over reports whether it has ended.
func (p *process) over() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// stop has it do nothing until wake, in the middle of whatever it does.
func (p *process) stop() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) wake() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// began is when it first said something: then its workers had begun. Zero: not yet.
func (p *process) began() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == 0 {
		return time.Time{}
	}
	return p.lines[0].At
}

// said returns what it has said since some time.
func (p *process) said(since time.Time) []Line {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := slices.BinarySearchFunc(p.lines, since, func(l Line, t time.Time) int { return l.At.Compare(t) })
	return slices.Clone(p.lines[i:])
}

// reports returns the last that it said of its budget.
func (p *process) reports() []budget.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == 0 {
		return nil
	}
	return p.lines[len(p.lines)-1].Reports
}

// A tally is what clients were served.
type tally struct {
	served, failed int
	late           []time.Duration
	causes         work.Causes
}

// served adds up what the clients were served since some time.
func served(ps []*process, since time.Time) (t tally) {
	for _, p := range ps {
		for _, l := range p.said(since) {
			t.served += l.Served
			t.failed += l.Failed
			t.late = append(t.late, l.Late...)
			if l.Error != "" {
				t.causes.Add(errors.New(l.Error))
			}
		}
	}
	return t
}

// thirst is the longest time, in that time, in which a client was served nothing.
func (p *process) thirst(since, until time.Time) (longest time.Duration) {
	for _, l := range p.said(since) {
		if l.Served > 0 && l.At.Before(until) {
			longest = max(longest, l.At.Sub(since))
			since = l.At
		}
	}
	return max(longest, until.Sub(since))
}

// ready waits until it has begun to work.
func (p *process) ready() error {
	for tick := time.Tick(time.Millisecond); p.began().IsZero(); <-tick {
		if p.over() {
			return fmt.Errorf("a client ended before it began: %w", p.err)
		}
	}
	return nil
}
