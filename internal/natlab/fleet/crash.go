package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	killed = 4 // processes, at one moment

	// usable is what part of the ports the living have together when everything is: a
	// twentieth is kept for who comes, and of the rest a few change hands all the time.
	usable = 0.95 * 0.95

	// dawdling is how long they may take for that beyond one hold.
	dawdling = time.Second
)

// crash kills half of the processes, stops one for longer than anything lasts, and lets one
// leave.
func crash(r *work.Report) (err error) {
	idle := 5 * time.Second
	if r.Full {
		idle = work.Path().Idle
	}
	st, err := open(path(hostPorts, idle), 2*hostPorts, hostProcesses)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	dir, err := os.MkdirTemp("", "natwise-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c := &casualty{stage: st, role: st.hostRole(shared, dir), note: func(m work.Measurement) { r.Note(m.At(shared, "")) }}
	scenes := []func() error{c.settle, c.strike, c.freeze, c.leaveOne}
	if r.Full {
		scenes = append(scenes, c.strike, c.strike, c.strike)
	}
	for _, scene := range scenes {
		if err := scene(); err != nil {
			return err
		}
	}
	counts, err := st.Counts()
	if err != nil {
		return err
	}
	c.note(work.Told("ports taken at a time", "", work.Number(peak(st.watch.between(time.Time{}, time.Now())))).AtMost(hostPorts))
	c.note(work.Told("SYNs refused", "", work.Number(counts.Refused)).AtMost(0))
	return st.leave()
}

// A casualty is a stage where processes end.
type casualty struct {
	*stage
	role Role
	note func(work.Measurement)
}

// hold is the longest that the gateway keeps a port whose process is gone: the kernel ends its
// flows.
func (c *casualty) hold() time.Duration {
	h := c.path.Hold
	return max(h.FIN, h.RST, h.SYN)
}

// recover waits until the living have the ports, and notes how long that took since something
// happened. It looks at what was seen from now on: before, the dead were not known.
func (c *casualty) recover(what string, since time.Time) {
	within := c.hold() + dawdling
	at, ok := c.watch.until(time.Now(), 2*within, func(s sight) bool { return float64(s.living()) >= usable*hostPorts })
	took := work.Seconds(at.Sub(since))
	if !ok {
		took = work.MoreThan(2 * within)
	}
	c.note(work.Told("everything usable after "+what, "s", took).AtMost(within.Seconds()))
}

func (c *casualty) settle() error {
	if err := c.together(0, hostProcesses, c.role); err != nil {
		return err
	}
	begin := time.Now()
	c.watch.until(begin, 2*c.hold(), func(s sight) bool { return float64(s.living()) >= usable*hostPorts })
	time.Sleep(c.hold()) // so that ports come and go
	var living []float64
	for _, s := range c.watch.between(time.Now().Add(-c.hold()), time.Time{}) {
		living = append(living, float64(s.living()))
	}
	c.note(work.Told("ports taken before, the median", "", work.Ratio(work.Median(living), 1)))
	return nil
}

// strike kills some, and starts them again at once.
func (c *casualty) strike() error {
	begin := time.Now()
	if err := c.kill(0, killed); err != nil {
		return err
	}
	if err := c.together(0, killed, c.role); err != nil {
		return err
	}
	c.recover(fmt.Sprintf("kill -9 of %d", killed), begin)
	return nil
}

// freeze stops one, and wakes it when the gateway has forgotten what it can forget.
func (c *casualty) freeze() error {
	p := c.current[killed]
	lasts := max(c.hold(), c.path.Idle) + 2*time.Second
	if err := p.stop(); err != nil {
		return err
	}
	time.Sleep(lasts)
	begin := time.Now()
	others := served(c.others(p), begin.Add(-lasts))
	if err := p.wake(); err != nil {
		return err
	}
	m := work.Told("the others were served while it was stopped", "a second", work.Ratio(float64(others.served), lasts.Seconds()))
	if others.served == 0 {
		m.Miss("they were not")
	}
	c.note(m)
	within := c.hold() + dawdling
	took := work.MoreThan(within)
	asked := begin.Add(2 * reportEvery) // what is told before may have been answered long ago
	for tick := time.Tick(reportEvery / 2); time.Since(begin) < within; <-tick {
		if lines := p.said(asked); served([]*process{p}, asked).served > 0 {
			took = work.Seconds(lines[0].At.Sub(begin))
			break
		}
	}
	c.note(work.Told("served again after SIGSTOP, and SIGCONT", "s", took).AtMost(within.Seconds()))
	c.recover("SIGCONT", begin)
	return nil
}

// others are all that are there but one.
func (c *casualty) others(than *process) []*process {
	return slices.DeleteFunc(slices.Clone(c.current), func(p *process) bool { return p == than })
}

// leaveOne has one leave in order, and another come in its place when that is over.
func (c *casualty) leaveOne() error {
	const one = killed + 1
	begin := time.Now()
	if err := c.part(one); err != nil {
		return err
	}
	c.recover("Close of one", begin)
	return c.together(one, one+1, c.role)
}
