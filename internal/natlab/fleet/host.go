package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	hostPorts     = 128
	hostProcesses = 8

	// Each process has as many workers as there are ports, so it wants all of them.
	hostService = 100 * time.Millisecond
	hostCloses  = 50
)

// What is asked of processes that share.
const (
	halfShare = hostPorts / hostProcesses / 2
	starved   = 2 * time.Second // with less than that, at most
)

// How processes share the ports.
const (
	shared = "shared" // by budget.Host
	static = "static" // Profile.Sharers: each has its part, used or not
)

// host lets the processes want everything: all from the same moment on, and where one of them
// was there before and has all ports.
func host(r *work.Report) error {
	lasts := 4 * time.Second
	if r.Full {
		lasts = 30 * time.Second
	}
	ours, err := contest(shared, lasts, 0)
	if err != nil {
		return err
	}
	late, err := contest(shared, lasts, 3*time.Second)
	if err != nil {
		return err
	}
	peer, err := contest(notShared, lasts, 0)
	if err != nil {
		return err
	}
	parts, err := contest(static, lasts, 0)
	if err != nil {
		return err
	}
	ours.note(r, shared, &peer)
	late.note(r, shared+", one came first", nil)
	parts.tell(r, static)
	return nil
}

// hostRole is what each process is told.
func (st *stage) hostRole(how, dir string) Role {
	role := Role{Path: st.path, Workers: hostPorts, Service: hostService, Closes: hostCloses}
	switch how {
	case shared:
		role.Host = dir
	case static:
		role.Path.Sharers = hostProcesses
		fallthrough
	default:
		role.Ramp = -1 // nobody was here before, which a shared budget knows by itself
	}
	return role
}

// An outcome is what came of processes that want the same ports.
type outcome struct {
	peak, refused  int
	below          time.Duration // that a process had less than half of its part
	least, most    float64       // ports of a process, on the average
	lasted         time.Duration
	served, failed int
	p99            time.Duration
	causes         work.Causes
}

// contest has the processes begin, one of them earlier than the others, and tells what came of
// it from when the last has begun, except for the first figures, which are of all the time.
func contest(how string, lasts, earlier time.Duration) (o outcome, err error) {
	// Who shares may take one port too many, which is seen. The others meet the limit.
	room := hostPorts
	if how == shared {
		room = 2 * hostPorts
	}
	st, err := open(path(hostPorts, work.Path().Idle), room, hostProcesses)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	dir, err := os.MkdirTemp("", "natwise-fleet-")
	if err != nil {
		return o, err
	}
	defer os.RemoveAll(dir)
	role := st.hostRole(how, dir)
	first := 0
	if earlier > 0 {
		first = 1
		if err := st.together(0, 1, role); err != nil {
			return o, err
		}
		time.Sleep(earlier)
	}
	if err := st.together(first, hostProcesses, role); err != nil {
		return o, err
	}
	begin := time.Now()
	time.Sleep(lasts)
	if o, err = st.outcome(begin, time.Now()); err != nil {
		return o, err
	}
	return o, st.leave()
}

// outcome is what came of it.
func (st *stage) outcome(begin, end time.Time) (o outcome, err error) {
	counts, err := st.Counts()
	if err != nil {
		return o, err
	}
	o.refused = counts.Refused
	o.peak = peak(st.watch.between(time.Time{}, end))
	var who []netip.Addr
	for _, p := range st.processes {
		who = append(who, p.source)
		o.below = max(o.below, below(st.watch.between(p.began(), end), p.source, halfShare))
	}
	parts := shares(st.watch.between(begin, end), who)
	o.least, o.most = parts[0], parts[len(parts)-1]
	t, err := st.served(begin)
	o.lasted, o.served, o.failed, o.causes = end.Sub(begin), t.served, t.failed, t.causes
	o.p99 = work.Percentile(t.late, 0.99)
	return o, err
}

// note notes an outcome of which something is asked, beside a peer's if there is one.
func (o outcome) note(r *work.Report, how string, peer *outcome) {
	for _, f := range figures {
		m := f.told(o).At(how, "")
		if peer != nil {
			m = m.Beside(notShared, f.of(*peer))
		}
		if f.most != nil {
			m = m.AtMost(*f.most)
		}
		r.Note(m)
	}
}

// tell notes an outcome of which nothing is asked.
func (o outcome) tell(r *work.Report, how string) {
	for _, f := range figures {
		r.Note(f.told(o).At(how, ""))
	}
}

// A figure is one of an outcome.
type figure struct {
	name, unit string
	of         func(outcome) work.Reading
	most       *float64 // nil: it is only told
}

func (f figure) told(o outcome) work.Measurement {
	m := work.Told(f.name, f.unit, f.of(o))
	if f.name == requestsFailed {
		m = m.Said(o.causes.Err(), nil)
	}
	return m
}

const requestsFailed = "requests failed"

var figures = []figure{
	{"ports taken at a time", "", func(o outcome) work.Reading { return work.Number(o.peak) }, new(float64(hostPorts))},
	{"SYNs refused", "", func(o outcome) work.Reading { return work.Number(o.refused) }, new(0.0)},
	{fmt.Sprintf("a process had less than %d ports, for", halfShare), "s", func(o outcome) work.Reading { return work.Seconds(o.below) }, new(starved.Seconds())},
	{"ports of the poorest process", "", func(o outcome) work.Reading { return work.Ratio(o.least, 1) }, nil},
	{"ports of the richest process", "", func(o outcome) work.Reading { return work.Ratio(o.most, 1) }, nil},
	{"requests served", "a second", func(o outcome) work.Reading { return work.Ratio(float64(o.served), o.lasted.Seconds()) }, nil},
	{requestsFailed, "", func(o outcome) work.Reading { return work.Number(o.failed) }, nil},
	{"waited, p99", "s", func(o outcome) work.Reading { return work.Seconds(o.p99) }, nil},
}
