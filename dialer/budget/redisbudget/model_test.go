package redisbudget

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A model is what share.lua says, once more and in Go: a Redis that knows only this script.
// TestTheModelIsTheScript plays the same histories on both.
type model struct {
	state *fleet // nil: lost
}

type fleet struct {
	born, last, clock, learn int64
	version                  int64
	run                      string
	members                  map[string]member
	accounts                 map[string]map[string]record
}

type member struct {
	call            uint64
	expiry, release int64
}

type record struct {
	lease, wants    int
	expiry, release int64
}

var errStale = errors.New("STALE a later call came first")

func (m *model) share(r request) (answer, error) {
	now, err := strconv.ParseInt(r.now, 10, 64)
	if err != nil {
		return answer{}, err
	}
	ttl, hold := r.ttl.Milliseconds(), r.hold.Milliseconds()
	lost := m.state == nil || m.state.version < r.seen || m.state.run != r.run
	if m.state == nil {
		m.state = &fleet{born: now, last: now, members: map[string]member{}, accounts: map[string]map[string]record{}}
	}
	f := m.state
	me, known := f.members[r.id]
	if known && me.call > r.call {
		return answer{}, errStale // and nothing has changed
	}
	f.clock += max(0, min(now-f.last, ttl))
	if r.born == f.born && f.clock < f.learn {
		f.clock = max(f.clock, r.clock.Milliseconds())
	} else if now < f.last || now > f.last+ttl {
		f.born = now
	}
	f.last, f.run = now, r.run
	if lost {
		f.learn = f.clock + ttl + hold
	}
	f.version = max(f.version, r.seen) + 1

	expiry := f.clock + ttl
	if r.leaves {
		expiry = f.clock
	}
	f.members[r.id] = member{r.call, expiry, expiry + hold}
	maps.DeleteFunc(f.members, func(_ string, m member) bool { return m.release <= f.clock })
	said := answer{
		version:  f.version,
		born:     f.born,
		clock:    time.Duration(f.clock) * time.Millisecond,
		counted:  len(f.members),
		learning: time.Duration(max(0, f.learn-f.clock)) * time.Millisecond,
	}
	for _, m := range f.members {
		if m.expiry > f.clock {
			said.living++
		}
	}
	for _, c := range r.claims {
		said.parts = append(said.parts, f.grant(r, c, expiry, known && me.call == r.call))
	}
	return said, nil
}

func (f *fleet) grant(r request, c claim, expiry int64, again bool) part {
	records := f.accounts[c.account]
	if records == nil {
		records = map[string]record{}
		f.accounts[c.account] = records
	}
	mine := records[r.id]
	delete(records, r.id)
	maps.DeleteFunc(records, func(_ string, r record) bool { return r.release <= f.clock })

	wants := map[string]int{r.id: max(c.wants, c.has)}
	quarantined, others := 0, 0
	for id, r := range records {
		if r.expiry <= f.clock {
			quarantined += r.lease
		} else {
			others += r.lease
			wants[id] = r.wants
		}
	}
	grant := c.has
	if f.learn <= f.clock && !r.leaves {
		left := max(0, r.pool-quarantined)
		grant = min(fair(wants, left)[r.id], c.has+max(0, left-others-c.has))
	}
	lease := max(grant, c.has)
	if again {
		lease = max(lease, mine.lease)
	}
	if lease > 0 || max(c.wants, c.has) > 0 {
		records[r.id] = record{lease, max(c.wants, c.has), expiry, expiry + r.hold.Milliseconds()}
	}
	return part{grant, quarantined}
}

// fair shares what is left port by port, always to one of those that have least and want
// more; among equals to the largest claim first, then by name.
func fair(wants map[string]int, left int) map[string]int {
	ids := slices.SortedFunc(maps.Keys(wants), func(a, b string) int {
		return cmp.Or(cmp.Compare(wants[b], wants[a]), cmp.Compare(b, a))
	})
	has := map[string]int{}
	for level := 0; left > 0; level++ {
		before := left
		for _, id := range ids {
			if left > 0 && wants[id] > level {
				has[id]++
				left--
			}
		}
		if left == before {
			break
		}
	}
	return has
}

// copy is what a replica has, or a file on disk.
func (f *fleet) copy() *fleet {
	if f == nil {
		return nil
	}
	c := *f
	c.members = maps.Clone(f.members)
	c.accounts = map[string]map[string]record{}
	for name, records := range f.accounts {
		c.accounts[name] = maps.Clone(records)
	}
	return &c
}

// A modelRedis is a client of a model, for the time of the test.
type modelRedis struct {
	redis.Scripter // nil: nothing else is asked
	server         *modelServer
	network
}

// A network is what is wrong between a client and its server. The server's mutex guards it.
type network struct {
	down  error         // if not nil, what a call returns
	stuck chan struct{} // if not nil, a call hangs until it is closed, whatever its context says
	mute  bool          // the server does what it is asked, and the answer is lost
	lag   time.Duration // half of it to the server, half of it back
}

// A modelServer is what several clients share.
type modelServer struct {
	mu    sync.Mutex // guards the fields below
	model model
	run   string
	ahead time.Duration // of the time of the test
	calls int
}

func (c *modelRedis) EvalSha(_ context.Context, _ string, _ []string, args ...any) *redis.Cmd {
	c.server.mu.Lock()
	n := c.network
	c.server.mu.Unlock()
	if n.stuck != nil {
		<-n.stuck
		return redis.NewCmdResult(nil, context.DeadlineExceeded)
	}
	if n.down != nil {
		return redis.NewCmdResult(nil, n.down)
	}
	time.Sleep(n.lag / 2)
	said, err := c.server.share(requestOf(args))
	time.Sleep(n.lag / 2)
	if n.mute {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return redis.NewCmdResult(nil, err)
	}
	values := []any{said.version, int64(said.living), int64(said.counted), said.learning.Milliseconds(), said.born, said.clock.Milliseconds()}
	for _, p := range said.parts {
		values = append(values, int64(p.grant), int64(p.quarantined))
	}
	return redis.NewCmdResult(values, nil)
}

// set changes what is wrong from the next call on.
func (c *modelRedis) set(change func(*network)) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	change(&c.network)
}

// asked is how many calls there were.
func (s *modelServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *modelServer) share(r request) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	r.now = strconv.FormatInt(time.Now().Add(s.ahead).UnixMilli(), 10)
	r.run = s.run
	return s.model.share(r)
}

// requestOf reads the arguments of the script.
func requestOf(args []any) request {
	r := request{
		id: args[0].(string), call: args[1].(uint64), seen: args[2].(int64),
		ttl:    time.Duration(args[3].(int64)) * time.Millisecond,
		hold:   time.Duration(args[4].(int64)) * time.Millisecond,
		pool:   args[5].(int),
		leaves: args[6] == "1",
		born:   args[7].(int64), clock: time.Duration(args[8].(int64)) * time.Millisecond,
	}
	for i := 11; i < len(args); i += 3 {
		r.claims = append(r.claims, claim{args[i].(string), args[i+1].(int), args[i+2].(int)})
	}
	return r
}
