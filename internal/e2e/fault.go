package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	forget    work.Kind = iota // a flow of each client, by the gateway
	cut                        // by RST, when the client sends something
	terminate                  // by the server, as its operator does
	stranded                   // commits wait for a standby that is not there, and those that do are terminated
	killed                     // both servers
	vanished                   // both servers, while packets vanish, so that nobody is told
	orphaned                   // commits wait, and the servers are killed
	restart                    // both servers
)

// The second rest is not quiet: in the first one, what is idle is forgotten.
var faults = work.Schedule{
	Outages: []work.Fault{
		{At: 2500 * time.Millisecond, Kind: killed},
		{At: work.Half + 2500*time.Millisecond, Kind: vanished},
		{At: work.Half + 5200*time.Millisecond, Kind: orphaned},
		{At: work.Half + 7500*time.Millisecond, Kind: killed},
	},
	Restart: restart,
	Singles: []work.Kind{forget, stranded, cut, terminate},
	Figures: []string{
		forget:    "flows forgotten by the gateway",
		cut:       "flows reset by the gateway",
		terminate: "connections terminated by the server",
		stranded:  "connections terminated after the commit",
		killed:    "servers killed",
		vanished:  "servers killed, without a word",
		orphaned:  "servers killed after commits",
	},
}

// A fiend does the faults. Whoever makes one closes it.
type fiend struct {
	*stage
	direct map[string]*sql.DB // by driver
	down   bool               // the servers are
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

// do does a fault, and returns how often it has struck.
func (f *fiend) do(k work.Kind) (struck int, err error) {
	switch k {
	case restart:
		return f.restart()
	case stranded:
		return f.strand()
	case forget, cut, terminate:
		return f.strike(k), nil
	case vanished:
		if err := f.darken(); err != nil {
			return 0, err
		}
	case orphaned:
		if err := f.wait(true); err != nil {
			return 0, err
		}
		work.Until(context.Background(), time.Now().Add(gather))
	}
	f.down = true
	return 1, f.kill()
}

func (f *fiend) restart() (struck int, err error) {
	if !f.down {
		return 0, nil
	}
	f.down = false
	return 1, errors.Join(f.Blackhole(netip.AddrPort{}, false), f.start(), f.wait(false))
}

// strike ends a connection of each client, and returns of how many.
func (f *fiend) strike(k work.Kind) (struck int) {
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

func (f *fiend) end(c *client, flow net.Conn, k work.Kind) error {
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

// strand has commits wait and terminates all that do, and returns how many. They are told
// that their connection ends, after the row is there.
func (f *fiend) strand() (ended int, err error) {
	if err := f.wait(true); err != nil {
		return 0, err
	}
	work.Until(context.Background(), time.Now().Add(gather))
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	err = f.direct[drivers.PGX].QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&ended)
	return ended, errors.Join(err, f.wait(false))
}
