package main

import (
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A stage is a lab with an origin and processes. Whoever opens it closes it.
type stage struct {
	*natlab.Lab
	path      netpath.Profile
	origin    *http.Server
	watch     *watch
	processes []*process // all that were started
	current   []*process // by number; who has gone is followed by another
}

// path is work.Path with so many ports, that forgets after idle.
func path(ports int, idle time.Duration) netpath.Profile {
	p := work.Path()
	p.Limits = []netpath.Limit{{Scope: netpath.Destination, N: ports}}
	p.Idle = idle
	return p
}

// originPort is where the origin is, at the first server.
const originPort = 80

// open builds a stage for so many processes. The gateway has room for more flows than the
// path says, so that one too many is seen; or it has not, and refuses.
func open(p netpath.Profile, room, processes int) (_ *stage, err error) {
	lab, err := natlab.New(natlab.Config{Path: p, Room: room, Clients: min(processes, addresses)})
	if err != nil {
		return nil, err
	}
	st := &stage{Lab: lab, path: p}
	ln, err := lab.Listen(st.at().String())
	if err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	st.origin = &http.Server{Handler: http.HandlerFunc(answer)}
	go st.origin.Serve(ln) // until close
	st.watch = newWatch(lab)
	return st, nil
}

// addresses is how many a lab's client has at most. Where there are more processes, some
// share one.
const addresses = 16

// at is where the origin is.
func (st *stage) at() netip.AddrPort { return netip.AddrPortFrom(st.Server(0), originPort) }

// close kills the processes that are still there, and ends everything.
func (st *stage) close() error {
	var errs []error
	for _, p := range st.processes {
		if !p.over() {
			errs = append(errs, p.kill())
		}
	}
	return errors.Join(append(errs, st.watch.close(), st.origin.Close(), st.Lab.Close())...)
}

// begin starts the i-th process, at an address of its own where there are enough. What is
// missing in its role is filled in.
func (st *stage) begin(i int, r Role) (*process, error) {
	r.Origin, r.Source = st.at(), st.Client(i%addresses)
	p, err := begin(st.Lab, r)
	if err != nil {
		return nil, err
	}
	st.processes = append(st.processes, p)
	if i == len(st.current) {
		st.current = append(st.current, p)
	} else {
		st.current[i] = p
	}
	return p, nil
}

// together starts the processes from the i-th to before the j-th, and returns when all have
// begun to work.
func (st *stage) together(i, j int, role Role) error {
	var begun []*process
	for ; i < j; i++ {
		p, err := st.begin(i, role)
		if err != nil {
			return err
		}
		begun = append(begun, p)
	}
	for _, p := range begun {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return nil
}

// kill kills the processes from the i-th to before the j-th.
func (st *stage) kill(i, j int) error {
	var gone []netip.Addr
	for _, p := range st.current[i:j] {
		if err := p.kill(); err != nil {
			return err
		}
		gone = append(gone, p.source)
	}
	return st.watch.bury(gone...)
}

// part has the i-th process end in order.
func (st *stage) part(i int) error {
	p := st.current[i]
	return errors.Join(p.leave(), st.watch.bury(p.source))
}

// leave has all processes that are still there end in order.
func (st *stage) leave() error {
	errs := make([]error, len(st.processes))
	var leaving sync.WaitGroup
	for i, p := range st.processes {
		if !p.over() {
			leaving.Go(func() { errs[i] = p.leave() })
		}
	}
	leaving.Wait()
	return errors.Join(errs...)
}

// errIdle says that a lab has measured nothing.
var errIdle = errors.New("fleet: nothing was served")

// served adds up what all processes were served since some time.
func (st *stage) served(since time.Time) (tally, error) {
	t := served(st.processes, since)
	if t.served == 0 {
		return t, errIdle
	}
	return t, nil
}

// answer takes as long as the request asks for.
func answer(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.Header.Get(serviceHeader))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		w.Write([]byte(work.Answer))
	case <-r.Context().Done():
	}
}

// serviceHeader says how long the origin is to take.
const serviceHeader = "Service"
