package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

// A fault is something that happens at a time of each round.
type fault struct {
	at   time.Duration
	kind kind
}

type kind int

const (
	forget    kind = iota // a flow of each client, by the gateway
	cut                   // by RST, when the client sends something
	terminate             // by the server, as its operator does
	killed                // both servers
	vanished              // both servers, while packets vanish, so that nobody is told
	stranded              // commits wait for a standby that is not there, and those that do are terminated
	orphaned              // they wait, and the servers are killed
	restart               // both servers
)

// A round is what happens again and again: work, then a rest, twice.
const (
	round      = 20 * time.Second
	half       = round / 2
	working    = 6500 * time.Millisecond // of each half; the rest is longer than the path remembers
	realIdle   = 3 * time.Second
	faultEvery = 500 * time.Millisecond // for each client
)

// resting returns for how long nobody asks anything, so long after the beginning.
func resting(since time.Duration) time.Duration {
	if now := since % half; now >= working {
		return half - now
	}
	return 0
}

// faults are those of a round. The second rest is not quiet: in the first one, what
// is idle is forgotten.
func faults() (all []fault) {
	for _, f := range []fault{
		{2500 * time.Millisecond, killed},
		{half + 2500*time.Millisecond, vanished},
		{half + 5200*time.Millisecond, orphaned},
		{half + 7500*time.Millisecond, killed},
	} {
		all = append(all, f, fault{f.at + outage, restart})
	}
	singles := []kind{forget, stranded, cut, terminate}
	for i, at := 0, faultEvery; at < round; at += faultEvery {
		down := slices.ContainsFunc(all, func(f fault) bool { return f.kind == restart && at >= f.at-outage && at <= f.at })
		if resting(at) == 0 && !down {
			all = append(all, fault{at, singles[i%len(singles)]})
			i++
		}
	}
	slices.SortStableFunc(all, func(a, b fault) int { return int(a.at - b.at) })
	return all
}

// A toll is how often each fault has struck.
type toll [restart + 1]int

// A fiend does the faults. Whoever makes one closes it.
type fiend struct {
	*stage
	direct map[string]*sql.DB // by driver
	down   bool               // the servers are
	toll   toll
}

func (st *stage) fiend() (f *fiend, err error) {
	f = &fiend{stage: st, direct: make(map[string]*sql.DB)}
	for _, driver := range drivers.Names {
		if f.direct[driver], err = st.direct(driver); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

func (f *fiend) close() error {
	var errs []error
	for _, db := range f.direct {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}

// harm does the faults of one round after the other, until ctx ends; the servers run
// then.
func (f *fiend) harm(ctx context.Context, begin time.Time) error {
	for n := time.Duration(0); ; n += round {
		for _, next := range faults() {
			if !until(ctx, begin.Add(n+next.at)) {
				return f.do(restart)
			}
			if err := f.do(next.kind); err != nil {
				return fmt.Errorf("fault %d: %w", next.kind, err)
			}
		}
	}
}

func (f *fiend) do(k kind) error {
	switch k {
	case restart:
		return f.restart()
	case stranded:
		return f.strand()
	case forget, cut, terminate:
		f.toll[k] += f.strike(k)
		return nil
	case vanished:
		if err := f.darken(); err != nil {
			return err
		}
	case orphaned:
		if err := f.wait(true); err != nil {
			return err
		}
		until(context.Background(), time.Now().Add(gather))
	}
	f.toll[k]++
	f.down = true
	return f.kill()
}

func (f *fiend) restart() error {
	if !f.down {
		return nil
	}
	f.down = false
	f.toll[restart]++
	return errors.Join(f.Blackhole(netip.AddrPort{}, false), f.start(), f.wait(false))
}

// strike ends a connection of each client, and returns of how many.
func (f *fiend) strike(k kind) (struck int) {
	for _, c := range f.clients {
		flows := c.connections()
		if len(flows) == 0 {
			continue
		}
		if f.end(c, flows[rand.N(len(flows))], k) == nil { // else it has ended by itself
			struck++
		}
	}
	return struck
}

func (f *fiend) end(c *client, flow net.Conn, k kind) error {
	switch k {
	case forget:
		return f.ForgetFlow(flow)
	case cut:
		return f.cut(flow)
	}
	return f.terminate(c, flow)
}

// slow is what the servers have to answer the fiend in.
const slow = 2 * time.Second

// terminate has the server end a connection. The gateway keeps the client's port.
func (f *fiend) terminate(c *client, flow net.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	from := flow.LocalAddr().(*net.TCPAddr)
	db := f.direct[c.driver]
	if c.driver != drivers.MySQL {
		var ended int
		err := db.QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE client_port = $1", from.Port).Scan(&ended)
		if err == nil && ended == 0 {
			err = sql.ErrNoRows
		}
		return err
	}
	var id int
	err := db.QueryRowContext(ctx, "SELECT id FROM information_schema.processlist WHERE host LIKE ?", fmt.Sprintf("%%:%d", from.Port)).Scan(&id)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("KILL %d", id))
	return err
}

// wait has all commits of PostgreSQL wait for a standby that is not there, or none. What
// waits is written, and will be seen if the server comes to its end.
func (f *fiend) wait(on bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	change := "ALTER SYSTEM RESET synchronous_standby_names"
	if on {
		change = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
	}
	db := f.direct[drivers.PGX]
	_, err := db.ExecContext(ctx, change)
	if err == nil {
		_, err = db.ExecContext(ctx, "SELECT pg_reload_conf()")
	}
	return err
}

// gather is for how long commits wait before something happens to those who do.
const gather = 200 * time.Millisecond

// strand has commits wait and terminates all that do. They are told that their connection
// ends, after the row is there.
func (f *fiend) strand() error {
	if err := f.wait(true); err != nil {
		return err
	}
	until(context.Background(), time.Now().Add(gather))
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	var ended int
	err := f.direct[drivers.PGX].QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&ended)
	f.toll[stranded] += ended
	return errors.Join(err, f.wait(false))
}
