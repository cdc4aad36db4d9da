package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/internal/fauxnat"
)

// A plan is what both runs have in common.
type plan struct {
	processes, ports int
	scale            int           // of the NAT's timers
	late             time.Duration // of the NAT, at most
	lasts            time.Duration // a run
	service          time.Duration // the server's time for an answer
}

// want is how many requests a process always has: half the gateway's ports, so that all
// of them together want several times what there is.
func (p plan) want() int { return max(1, p.ports/2) }

// timeout is what each request is given: four times what it takes if the ports are
// shared evenly and put to use.
func (p plan) timeout() time.Duration {
	part := max(1, p.ports/p.processes)
	return max(2*time.Second, time.Duration(4*(1+p.want()/part))*p.service)
}

// hold is the longest that the processes book a port after its end.
func (p plan) hold() time.Duration { return processPath(p.ports, p.scale, p.late).Hold.FIN }

// A row is one process of the fleet, together with its successor after a restart. Its
// fields are guarded by fleet.mu.
type row struct {
	report                         // the last one
	served, failed int             // in all
	waits          []time.Duration // of all requests
	killed         bool
}

// A process is one that runs.
type process struct {
	row   *row
	cmd   *exec.Cmd
	stdin io.Closer
	read  chan struct{} // closed when its reports have ended
	errs  bytes.Buffer  // its standard error, once it has ended
}

// A fleet is the processes of one run, behind one gateway.
type fleet struct {
	plan
	gateway  *gateway
	order    order
	start    time.Time
	launched []*process

	mu      sync.Mutex // guards the fields below, and what is in the rows
	rows    []*row
	crashed time.Duration // when one was killed; 0: none yet
	lost    int           // ports that it held, as it said last
	kept    int           // the most that the budget has kept for the NAT
	back    time.Duration // for how long it did, once it does no more
	over    bool          // the processes are told to end

	firstErr string // of a request that failed
	degraded string // why the budget gave less than it could, as a process said
}

// run lets the processes work, with a budget in the directory shared or each for itself.
// In the middle one is killed and started again. show is called four times a second.
func (p plan) run(ctx context.Context, shared string, show func(*fleet)) (*fleet, error) {
	g, err := openGateway(natPath(p.ports, p.scale), p.service)
	if err != nil {
		return nil, err
	}
	defer g.close()
	f := &fleet{plan: p, gateway: g, start: time.Now(), order: order{
		Gateway: addrOf(g.door), Dest: g.dest, Ports: p.ports, Scale: p.scale, Late: p.late,
		Want: p.want(), Timeout: p.timeout(), Shared: shared,
	}}
	for range p.processes {
		f.rows = append(f.rows, new(row))
	}
	return f, f.run(ctx, show)
}

// run starts the processes, and returns when all have ended.
func (f *fleet) run(ctx context.Context, show func(*fleet)) error {
	defer f.killAll() // of which none is left, unless there was an error
	var running []*process
	for _, r := range f.rows {
		p, err := f.launch(r)
		if err != nil {
			return err
		}
		running = append(running, p)
	}
	if err := f.watch(ctx, f.lasts/2, running, show); err != nil {
		return err
	}
	victim := f.victim(running)
	successor, err := f.crash(running[victim])
	if err != nil {
		return err
	}
	running[victim] = successor
	if err := f.watch(ctx, f.lasts-f.lasts/2, running, show); err != nil {
		return err
	}
	show(f)
	return f.end(running)
}

// end lets the processes end by themselves.
func (f *fleet) end(running []*process) (err error) {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	for _, p := range running {
		p.stdin.Close()
	}
	for _, p := range running {
		<-p.read
		if failed := p.cmd.Wait(); failed != nil {
			err = errors.Join(err, failed, p.complaint())
		}
	}
	return err
}

func (f *fleet) killAll() {
	for _, p := range f.launched {
		p.kill()
	}
}

// launch starts a process: this command again.
func (f *fleet) launch(r *row) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{row: r, cmd: exec.Command(self, asProcess), read: make(chan struct{})}
	p.cmd.Stderr = &p.errs
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.stdin = stdin
	f.launched = append(f.launched, p)
	go f.follow(p, json.NewDecoder(stdout))
	return p, json.NewEncoder(stdin).Encode(f.order)
}

// follow reads what a process reports, until it has ended.
func (f *fleet) follow(p *process, reports *json.Decoder) {
	defer close(p.read)
	for {
		var r report
		if reports.Decode(&r) != nil {
			return
		}
		f.note(p.row, r)
	}
}

func (f *fleet) note(r *row, said report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return // what those keep that end sooner is not the killed one's
	}
	r.report = said
	r.served += said.Served
	r.failed += said.Failed
	r.waits = append(r.waits, said.Waits...)
	f.firstErr = cmp.Or(f.firstErr, said.Error)
	for _, s := range said.Shared {
		f.degraded = cmp.Or(f.degraded, s.Degraded)
	}
	if f.crashed == 0 {
		return
	}
	if kept := f.keptLocked(); kept > 0 {
		f.kept, f.back = max(f.kept, kept), 0
	} else if f.kept > 0 && f.back == 0 {
		f.back = time.Since(f.start) - f.crashed
	}
}

// keptLocked is how many ports the budget keeps at present, as the last reports say.
func (f *fleet) keptLocked() (kept int) {
	for _, r := range f.rows {
		for _, s := range r.Shared {
			kept = max(kept, s.Quarantined)
		}
	}
	return kept
}

// watch calls show until d is over. An error says that ctx is done, or that a process has
// ended which should not have.
func (f *fleet) watch(ctx context.Context, d time.Duration, running []*process, show func(*fleet)) error {
	over := time.NewTimer(d)
	defer over.Stop()
	frame := time.NewTicker(tick)
	defer frame.Stop()
	for {
		select {
		case <-frame.C:
			show(f)
		case <-over.C:
			return nil
		case <-ctx.Done():
			return errors.New("interrupted")
		}
		for _, p := range running {
			select {
			case <-p.read:
				return errors.Join(errors.New("a process has ended before its time"), p.cmd.Wait(), p.complaint())
			default:
			}
		}
	}
}

// victim is the process that holds the most.
func (f *fleet) victim(running []*process) (at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range running {
		if p.row.Held > running[at].row.Held {
			at = i
		}
	}
	return at
}

// crash kills a process without a warning, and starts its successor at once.
func (f *fleet) crash(p *process) (successor *process, err error) {
	p.kill()
	f.mu.Lock()
	f.crashed, f.lost = time.Since(f.start), p.row.Held
	p.row.killed, p.row.report = true, report{}
	f.mu.Unlock()
	return f.launch(p.row)
}

// kill is kill -9. It returns when the process is no more, and does nothing the next time.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.read
	p.cmd.Wait()
}

// complaint is what the process has printed on its standard error, nil if nothing.
func (p *process) complaint() error {
	if said := strings.TrimSpace(p.errs.String()); said != "" {
		return errors.New(said)
	}
	return nil
}

// canShare says why processes cannot share a budget in dir; nil: they can.
func canShare(dir string, ports int) error {
	shared, err := budget.Host(dir, ports)
	if err != nil {
		return err
	}
	return shared.Close()
}

func (f *fleet) counts() fauxnat.Counts { return f.gateway.nat.Stats().Counts }
