package redisbudget

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed share.lua
var lua string

var share = redis.NewScript(lua)

// A request is one call of share.lua.
type request struct {
	id     string
	call   uint64        // later calls have larger ones: a late one must not undo them
	seen   int64         // the newest version of the state that this instance was told of
	ttl    time.Duration // of leases
	hold   time.Duration // how long the ports of an expired lease stay out of use
	pool   int
	leaves bool
	born   int64         // which state it was told of
	clock  time.Duration // how far the clock of that state must be by now
	claims []claim

	// Set by tests only.
	now string // ms; "": ask the server
	run string // of which server; "": ask it
}

// A claim says what an instance wants of an account, and has, beyond its floor.
type claim struct {
	account    string
	wants, has int
}

// An answer is what became of a request.
type answer struct {
	version  int64
	born     int64         // tells this state, and this piece of its time, from others
	clock    time.Duration // by which it reckons
	living   int           // instances
	counted  int           // those too whose ports may still be in the NAT
	learning time.Duration // until anybody gets more than it has; zero: from now on
	parts    []part        // as the claims
}

// A part is the answer to a claim.
type part struct{ grant, quarantined int }

// key is where the state of a NAT is kept. The number is the version of the format.
func key(nat string) string { return "natwise:budget:1:" + nat }

func ask(ctx context.Context, c redis.Scripter, nat string, r request) (answer, error) {
	leaves := "0"
	if r.leaves {
		leaves = "1"
	}
	args := make([]any, 0, 11+3*len(r.claims))
	args = append(args, r.id, r.call, r.seen, r.ttl.Milliseconds(), r.hold.Milliseconds(), r.pool, leaves,
		r.born, r.clock.Milliseconds(), r.now, r.run)
	for _, c := range r.claims {
		args = append(args, c.account, c.wants, c.has)
	}
	said, err := share.Run(ctx, c, []string{key(nat)}, args...).Int64Slice()
	if err != nil {
		return answer{}, err
	}
	return parse(said, len(r.claims))
}

func parse(said []int64, claims int) (answer, error) {
	const head = 6
	if len(said) != head+2*claims {
		return answer{}, fmt.Errorf("redisbudget: %d numbers for %d accounts, want %d", len(said), claims, head+2*claims)
	}
	a := answer{
		version: said[0], living: int(said[1]), counted: int(said[2]),
		learning: time.Duration(said[3]) * time.Millisecond,
		born:     said[4],
		clock:    time.Duration(said[5]) * time.Millisecond,
		parts:    make([]part, claims),
	}
	for i := range a.parts {
		a.parts[i] = part{grant: int(said[head+2*i]), quarantined: int(said[head+2*i+1])}
	}
	return a, nil
}
